// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {vm} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title The pool's order among equals, and what a task keeps of it
contract OrderTest is Stage {
    function setUp() public {
        vm.warp(1_800_000_000);
        _deploy(_usual());
        _publish(publisher, 9000, false, 0); // selected at once
        for (uint256 i = 0; i < 4; ++i) {
            _publish(publisher, 2000, false, 0);
        }
        _publish(publisher, 1000, false, 0);
    }

    function test_publish__equalRewards__rankByNumber() public view {
        _isPool([2, 3, 4, 5, 6]);
    }

    function test_topUp__toAnEqualReward__ranksByNumber() public {
        _publish(publisher, 2100, false, 0);
        _publish(publisher, 2100, false, 0);
        _topUp(4, 100);
        uint64[] memory ids = arena.pool(0, 8);
        require(ids[0] == 4 && ids[1] == 7 && ids[2] == 8 && ids[3] == 2, "before younger equals");
        _topUp(6, 1000);
        ids = arena.pool(0, 8);
        require(ids[4] == 3 && ids[5] == 5 && ids[6] == 6, "behind older equals");
    }

    function test_topUp__amongEquals__stillRanksByNumber() public {
        for (uint64 id = 5; id >= 2; --id) {
            _topUp(id, 500);
        }
        _isPool([2, 3, 4, 5, 6]);
    }

    function test_cancel__betweenNeighbours__forgetsThem() public {
        vm.prank(publisher);
        arena.cancel(3);
        IPoUW.Task memory gone = arena.tasks(3);
        require(gone.above == 0 && gone.below == 0 && !gone.pooled, "no neighbours");
        require(arena.tasks(2).below == 4 && arena.tasks(4).above == 2, "closed up");
    }

    function test_select__headOfMany__forgetsItsNeighbour() public {
        vm.warp(arena.arena().selectedAt + _phase2());
        arena.releaseDataKey(DATA_KEY);
        vm.warp(_timesOf(1).t1);
        arena.sync();
        require(arena.arena().selected == 2, "the oldest of equals");
        IPoUW.Task memory head = arena.tasks(2);
        require(head.above == 0 && head.below == 0 && !head.pooled, "no neighbours");
        require(arena.tasks(3).above == 0, "the next is the head");
    }

    function _topUp(uint64 taskId, uint128 amount) private {
        uint256 value = _fund(publisher, amount + amount / 10);
        vm.prank(publisher);
        arena.topUp{value: value}(taskId, amount, 0);
    }

    function _isPool(uint8[5] memory expected) private view {
        uint64[] memory ids = arena.pool(0, 5);
        require(ids.length == 5, "five");
        for (uint256 i = 0; i < 5; ++i) {
            require(ids[i] == expected[i], "order");
        }
    }
}
