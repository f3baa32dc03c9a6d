// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {TaskQueue} from "../../contracts/TaskQueue.sol";

/// @title The pool's order, for all rewards and hints
/// @notice Pools of three tasks, where a place is looked for of two and a third, whatever their rewards: every place,
/// every tie, every hint. What is longer adds steps to a walk, no other case: insert and remove write to two neighbours
/// only.
contract PoolProofs {
    using TaskQueue for mapping(uint64 taskId => IPoUW.Task);

    uint64 private constant MOST = 3;

    mapping(uint64 taskId => IPoUW.Task) private _tasks;

    function check_insert__anyRewardsAndHint__keepsOrder(uint128[3] calldata rewards, uint64 hint) external {
        _publish(rewards, 2);
        _tasks[3].reward = rewards[2];
        _tasks.insert(3, _pinned(hint));
        _assertOrdered(3);
    }

    function check_locate__anyHint__answersTheSame(uint128[3] calldata rewards, uint64 hint) external {
        _publish(rewards, 2);
        assert(_tasks.locate(rewards[2], 3, _pinned(hint)) == _tasks.locate(rewards[2], 3, 0));
    }

    function check_remove__anyTask__leavesTheOthersInOrder(uint128[3] calldata rewards, uint64 which) external {
        _publish(rewards, MOST);
        uint64 taskId = _pinned(which);
        if (!_tasks[taskId].pooled) return;
        _tasks.remove(taskId);
        _assertOrdered(2);
        assert(!_tasks[taskId].pooled && _tasks[taskId].above == 0 && _tasks[taskId].below == 0);
    }

    function check_topUp__anyTaskAmountAndHint__keepsOrder(uint128[3] calldata rewards, uint64 which, uint64 hint)
        external
    {
        _publish(rewards, 2);
        uint64 taskId = _pinned(which);
        if (!_tasks[taskId].pooled || rewards[2] <= _tasks[taskId].reward) return;
        _tasks.remove(taskId);
        _tasks[taskId].reward = rewards[2];
        _tasks.insert(taskId, _pinned(hint));
        _assertOrdered(2);
    }

    function check_head__anyRewards__ranksAboveEverybody(uint128[3] calldata rewards, uint64 which) external {
        _publish(rewards, MOST);
        uint64 head = _tasks.head();
        uint64 other = _pinned(which);
        if (!_tasks[other].pooled || other == head) return;
        (uint128 most, uint128 less) = (_tasks[head].reward, _tasks[other].reward);
        assert(most > less || (most == less && head < other));
    }

    /// @dev Tasks 1 to `count`, each from the head downwards.
    function _publish(uint128[3] calldata rewards, uint64 count) private {
        for (uint64 id = 1; id <= count; ++id) {
            _tasks[id].reward = rewards[id - 1];
            _tasks.insert(id, 0);
        }
    }

    /// @dev The same number, one path each, so that mappings are read at known places: a pooled task, the new one, or
    /// one that does not wait, which are all alike.
    function _pinned(uint64 taskId) private pure returns (uint64) {
        for (uint64 id = 1; id <= MOST; ++id) {
            if (taskId == id) return id;
        }
        return 0;
    }

    /// @dev `count` tasks from head to end, each linked to the one before and ranked below it.
    function _assertOrdered(uint256 count) private view {
        uint64 above = 0;
        uint64 id = _tasks[0].below;
        for (uint256 i = 0; i < count; ++i) {
            assert(id != 0 && _tasks[id].pooled && _tasks[id].above == above);
            if (above != 0) assert(_tasks.ranksAbove(above, _tasks[id].reward, id));
            (above, id) = (id, _tasks[id].below);
        }
        assert(id == 0 && _tasks[0].above == above);
    }
}
