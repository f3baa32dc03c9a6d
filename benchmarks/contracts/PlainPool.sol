// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {PlainState} from "./PlainState.sol";

/// @title The plain port's pool
/// @notice A list sorted by reward into which a task walks from the head: hints are taken and ignored.
abstract contract PlainPool is PlainState {
    /// @inheritdoc IPoUW
    function publish(bytes32 specDigest, bytes32 keyHash, uint32 minScore, bool first, uint128 reward, uint64)
        external
        payable
        returns (uint64 taskId)
    {
        _sync();
        if (reward < MIN_REWARD) revert RewardTooSmall(reward, MIN_REWARD);
        if (minScore > MAX_SCORE) revert InvalidScore(minScore);

        taskId = uint64(++_published);
        PlainTask storage task = _tasks[taskId];
        task.publisher = msg.sender;
        task.minScore = minScore;
        task.first = first;
        task.reward = reward;
        task.specDigest = specDigest;
        task.keyHash = keyHash;
        _insert(taskId);
        _recordChange(PoolChange.Publish, taskId, msg.sender, specDigest, reward);
        emit TaskPublished(taskId, msg.sender, specDigest, keyHash, minScore, first, reward, poolHistory);
        _sync();

        _take(reward + _bondOf(reward));
    }

    /// @inheritdoc IPoUW
    function topUp(uint64 taskId, uint128 amount, uint64) external payable {
        _sync();
        PlainTask storage task = _pooledTaskOfCaller(taskId);
        if (amount == 0) revert NothingToAdd();

        uint256 before = task.reward;
        uint128 reward = uint128(before) + amount;
        _remove(taskId);
        task.reward = reward;
        _insert(taskId);
        _recordChange(PoolChange.TopUp, taskId, msg.sender, task.specDigest, reward);
        emit TaskToppedUp(taskId, reward, poolHistory);

        _take(amount + _bondOf(reward) - _bondOf(before));
    }

    /// @inheritdoc IPoUW
    function cancel(uint64 taskId) external {
        _sync();
        PlainTask storage task = _pooledTaskOfCaller(taskId);

        uint256 reward = task.reward;
        bytes32 specDigest = task.specDigest;
        _remove(taskId);
        delete _tasks[taskId];
        _recordChange(PoolChange.Cancel, taskId, msg.sender, specDigest, 0);
        emit TaskCancelled(taskId, poolHistory);

        _credit(msg.sender, reward + _bondOf(reward));
    }

    /// @inheritdoc IPoUW
    function sync() external {
        _sync();
    }

    /// @inheritdoc IPoUW
    function hintFor(uint128 reward) external view returns (uint64) {
        return uint64(_locate(reward, type(uint64).max));
    }

    /// @inheritdoc IPoUW
    function pool(uint64 from, uint256 limit) external view returns (uint64[] memory taskIds) {
        if (from != 0 && !_tasks[from].pooled) revert TaskNotPooled(from);
        uint256 length = 0;
        for (uint256 id = _tasks[from].below; id != 0 && length < limit; id = _tasks[id].below) {
            ++length;
        }
        taskIds = new uint64[](length);
        uint256 next = from;
        for (uint256 i = 0; i < length; ++i) {
            next = _tasks[next].below;
            taskIds[i] = uint64(next);
        }
    }

    function _sync() internal {
        if (_selected != 0 && block.timestamp >= _selectedAt + CLOSES) _drop(_selected);
        uint256 head = _tasks[0].below;
        if (_selected == 0 && head != 0 && (!_live || block.timestamp >= _rounds[_begun].t0 + T1)) _select(head);
    }

    function _select(uint256 taskId) private {
        PlainTask storage task = _tasks[taskId];
        _remove(taskId);
        _selected = taskId;
        _selectedAt = block.timestamp;
        _selectedHistory = poolHistory;
        _recordChange(PoolChange.Select, taskId, task.publisher, task.specDigest, task.reward);
        emit TaskSelected(uint64(taskId), uint40(block.timestamp), poolHistory);
    }

    function _drop(uint256 taskId) private {
        PlainTask storage task = _tasks[taskId];
        _selected = 0;
        _selectedAt = 0;
        emit TaskDropped(uint64(taskId));
        _credit(task.publisher, task.reward);
        _credit(address(0), _bondOf(task.reward));
    }

    function _insert(uint256 taskId) private {
        PlainTask storage task = _tasks[taskId];
        uint256 above = _locate(task.reward, taskId);
        uint256 below = _tasks[above].below;
        task.above = above;
        task.below = below;
        task.pooled = true;
        _tasks[above].below = taskId;
        _tasks[below].above = taskId;
    }

    function _remove(uint256 taskId) private {
        PlainTask storage task = _tasks[taskId];
        _tasks[task.above].below = task.below;
        _tasks[task.below].above = task.above;
        task.above = 0;
        task.below = 0;
        task.pooled = false;
    }

    function _recordChange(PoolChange kind, uint256 taskId, address publisher, bytes32 specDigest, uint256 rewardAfter)
        private
    {
        poolHistory = keccak256(abi.encode(poolHistory, kind, taskId, publisher, specDigest, rewardAfter));
    }

    /// @dev The last task with at least this reward: among equals the older one stays ahead. A task that is topped up
    /// is not in the list, so ids above its own may have the same reward.
    function _locate(uint256 reward, uint256 taskId) private view returns (uint256 above) {
        uint256 below = _tasks[0].below;
        while (below != 0) {
            uint256 other = _tasks[below].reward;
            if (other < reward || (other == reward && below > taskId)) break;
            above = below;
            below = _tasks[below].below;
        }
    }

    function _pooledTaskOfCaller(uint256 taskId) private view returns (PlainTask storage task) {
        task = _tasks[taskId];
        if (!task.pooled) revert TaskNotPooled(uint64(taskId));
        if (task.publisher != msg.sender) revert NotPublisher(uint64(taskId), msg.sender);
    }
}
