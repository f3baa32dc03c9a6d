// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {vm} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title What a hint saves
/// @notice With a fresh hint a change of the pool costs the same at any length, at its top, middle and end.
contract HintsTest is Stage {
    uint128 private constant MILLION = 1_000_000;

    function setUp() public {
        vm.warp(1_800_000_000);
        _deploy(_usual());
        _publish(publisher, 1000 * MILLION, false, 0);
    }

    function test_publish__freshHint__costsTheSameAtAnyLength() public {
        _fill(0, 4);
        uint256 few = _costOfPublishing(MILLION - 1);
        _fill(4, 60);
        _same(_costOfPublishing(2 * MILLION - 1), few, "in the middle");
        _same(_costOfPublishing(1), few, "at the end");
    }

    function test_publish__hintRightBelowItsPlace__costsOneStep() public {
        _fill(0, 4);
        uint256 few = _costOfPublishing(MILLION - 1);
        _fill(4, 60);
        uint128 reward = 1000 + 3 * MILLION;
        uint64 lower = arena.tasks(arena.hintFor(reward)).below;
        _same(_costOfPublishing(3 * MILLION, lower), few, "not a walk from the head");
    }

    function test_publish__freshHintAmongEquals__costsTheSameAtAnyNumber() public {
        _fill(0, 4);
        uint256 few = _costOfPublishing(MILLION - 1);
        for (uint256 i = 0; i < 60; ++i) {
            _publish(publisher, 1000, false, arena.hintFor(1000));
        }
        _same(_costOfPublishing(0), few, "behind its equals");
    }

    function test_topUp__freshHint__costsTheSameAtAnyLength() public {
        _fill(0, 4);
        uint256 few = _costOfToppingUp(2, 1);
        _fill(4, 60);
        _same(_costOfToppingUp(20, 19), few, "in the middle");
    }

    function test_hintFor__anyReward__isTheLowestThatRanksAbove() public {
        require(arena.hintFor(1) == 0, "nobody");
        _fill(0, 4);
        require(arena.hintFor(5 * MILLION) == 0, "the head");
        require(arena.hintFor(4 * MILLION) == 5, "of equals the one before");
        require(arena.hintFor(2 * MILLION + 1) == 4, "in the middle");
        require(arena.hintFor(1) == 2, "the end");
        require(arena.hintFor(0) == 2, "nothing is below the end");
    }

    /// @dev Tasks from + 2 to to + 1, worth 1 to `to` millions, each at the head.
    function _fill(uint128 from, uint128 to) private {
        for (uint128 i = from; i < to; ++i) {
            _publish(publisher, (i + 1) * MILLION, false, 0);
        }
    }

    function _costOfPublishing(uint128 above1000) private returns (uint256) {
        return _costOfPublishing(above1000, arena.hintFor(1000 + above1000));
    }

    function _costOfPublishing(uint128 above1000, uint64 hint) private returns (uint256 gas) {
        uint128 reward = 1000 + above1000;
        uint256 value = reward + _bondOf(reward);
        vm.deal(publisher, value);
        vm.prank(publisher);
        gas = gasleft();
        arena.publish{value: value}(SPEC, KEY_HASH, 500_000, false, reward, hint);
        gas -= gasleft();
    }

    /// @dev Within its place, so that the neighbours stay.
    function _costOfToppingUp(uint64 taskId, uint64 below) private returns (uint256 gas) {
        uint64 hint = arena.tasks(taskId).above;
        require(arena.tasks(taskId).below == below || below == 1, "between neighbours");
        vm.deal(publisher, 11);
        vm.prank(publisher);
        gas = gasleft();
        arena.topUp{value: 11}(taskId, 10, hint);
        gas -= gasleft();
    }

    /// @dev Within a twentieth, some ten steps of a walk: slots are as warm or cold as the neighbours of each place.
    function _same(uint256 one, uint256 other, string memory what) private pure {
        uint256 difference = one > other ? one - other : other - one;
        require(difference * 20 <= other, what);
    }
}
