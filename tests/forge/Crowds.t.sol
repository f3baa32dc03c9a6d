// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {vm} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title Gas with a thousand tasks and after a year of silence
/// @notice Runs isolated: every call is a transaction of its own, whose whole gas is counted.
/// forge-config: default.isolate = true
contract CrowdsTest is Stage {
    uint128 private constant REWARD = 1_000_000;
    uint256 private constant TASKS = 1000;
    uint256 private constant CEILING = 400_000;

    uint256 private _worst;

    event Worst(uint256 used);

    function setUp() public {
        vm.warp(1_800_000_000);
        _deploy(_usual());
        vm.deal(stranger, 1 ether);
        vm.deal(publisher, 100 ether);
    }

    /// @dev One call that must go through below the ceiling.
    function _cheap(address from, uint256 value, bytes memory data) private {
        vm.prank(from);
        (bool done,) = address(arena).call{value: value}(data);
        uint256 used = vm.lastCallGas().gasTotalUsed;
        require(done, "goes through");
        require(used > 21_000, "a transaction of its own");
        require(used < CEILING, "below the ceiling");
        if (used > _worst) _worst = used;
    }

    /// @dev The same, taken back.
    function _cheapAndBack(address from, uint256 value, bytes memory data) private {
        uint256 snapshot = vm.snapshotState();
        _cheap(from, value, data);
        uint256 worst = _worst;
        require(vm.revertToStateAndDelete(snapshot), "taken back");
        _worst = worst;
    }

    function _publishData(uint128 reward, uint64 hint) private pure returns (bytes memory) {
        return abi.encodeCall(IPoUW.publish, (SPEC, KEY_HASH, 500_000, false, reward, hint));
    }

    /// @dev With a fresh hint.
    function _topUpData(uint64 taskId, uint128 amount) private view returns (bytes memory) {
        uint64 hint = arena.hintFor(arena.tasks(taskId).reward + amount);
        return abi.encodeCall(IPoUW.topUp, (taskId, amount, hint));
    }

    /// @dev What topping up costs: the amount, and the growth of the bond.
    function _growth(uint64 taskId, uint128 amount) private view returns (uint256) {
        uint128 before = arena.tasks(taskId).reward;
        return amount + _bondOf(before + amount) - _bondOf(before);
    }

    function _due(uint128 reward) private view returns (uint256) {
        return reward + _bondOf(reward);
    }

    /// @dev A thousand tasks wait; round 1 was challenged and nobody came for a year.
    function test_thousandTasks__yearOfSilence__everyCallBelowTheCeiling() public {
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        _commit(1, 1);
        vm.warp(t.t1);
        _publish(publisher, REWARD, false, 0);
        arena.openTest(TEST_KEY);
        for (uint128 i = 0; i < TASKS; ++i) {
            uint128 reward = 2000 + (i * 7919) % 1000;
            _cheap(publisher, _due(reward), _publishData(reward, arena.hintFor(reward)));
        }
        _equal(arena.pool(0, 2 * TASKS).length, TASKS, "all wait");
        _reveal(1, 0, 900_000);
        _reveal(1, 1, 800_000);
        vm.warp(t.t3);
        _cheap(_oracle(0), 0, abi.encodeCall(IPoUW.report, (1, IPoUW.Verdict.Winner, _miner(1), EVIDENCE)));
        _cheap(_oracle(1), 0, abi.encodeCall(IPoUW.report, (1, IPoUW.Verdict.Winner, _miner(1), EVIDENCE)));
        vm.warp(t.t4);
        _cheap(stranger, terms.challengeBond, abi.encodeCall(IPoUW.challenge, (1)));
        uint256 opens = arena.arena().selectedAt + _phase2();
        vm.warp(opens);
        _cheapAndBack(stranger, 0, abi.encodeCall(IPoUW.releaseDataKey, (DATA_KEY)));

        // The compiler takes block.timestamp for the same within a call: a test keeps its own clock.
        uint256 time = t.t4 + 365 days;
        vm.warp(time);
        uint64 hint = arena.hintFor(2500);
        _cheapAndBack(stranger, 0, abi.encodeCall(IPoUW.sync, ()));
        _cheapAndBack(publisher, _due(2500), _publishData(2500, hint));
        _cheapAndBack(publisher, _growth(500, 500), _topUpData(500, 500));
        _cheapAndBack(publisher, 0, abi.encodeCall(IPoUW.cancel, (500)));
        _cheap(stranger, 0, abi.encodeCall(IPoUW.finalize, ()));
        require(arena.rounds(1).header != 0 && arena.pool(0, 2 * TASKS).length == TASKS - 1, "drop, select, close");
        _cheap(stranger, 0, abi.encodeCall(IPoUW.reclaim, (1, _miner(0))));
        _cheap(stranger, 0, abi.encodeCall(IPoUW.reclaim, (1, _miner(1))));
        for (uint256 i = 0; i < TASKS; ++i) {
            time += 365 days;
            vm.warp(time);
            _cheap(stranger, 0, abi.encodeCall(IPoUW.sync, ()));
        }
        require(arena.pool(0, 1).length == 0 && arena.arena().selected == 0, "each silence leads one task out");
        _cheap(publisher, 0, abi.encodeCall(IPoUW.withdraw, (publisher)));
        _cheap(_miner(1), 0, abi.encodeCall(IPoUW.withdraw, (_miner(1))));
        emit Worst(_worst);
    }
}
