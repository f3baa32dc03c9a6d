// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {PouwToken} from "../../contracts/PouwToken.sol";
import {vm} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title The block reward of an arena
contract BlockRewardTest is Stage {
    PouwToken private _pouw;

    function setUp() public {
        vm.warp(1_800_000_000);
        _deploy(_usual());
        _pouw = new PouwToken(arena, 10, 1);
    }

    function test_mint__closedRoundWithAWinner__mintsToItOnce() public {
        _refuses(1, PouwToken.NoWinner.selector);
        Times memory t = _voted(1);
        vm.warp(t.t5);
        _refuses(1, PouwToken.NoWinner.selector);
        arena.finalize();
        _pouw.mint(1);
        _equal(_pouw.balanceOf(_miner(0)), 10, "to the winner");
        _equal(_pouw.totalSupply(), 10, "to nobody else");
        require(_pouw.minted(1), "remembered");
        _refuses(1, PouwToken.AlreadyMinted.selector);
    }

    function test_mint__halvings__leaveNothingInTheEnd() public {
        for (uint64 round = 1; round <= 5; ++round) {
            Times memory t = _voted(round);
            vm.warp(t.t5);
            arena.finalize();
            if (round < 5) _pouw.mint(round);
        }
        _equal(_pouw.totalSupply(), 10 + 5 + 2 + 1, "halved, rounded down");
        require(_pouw.totalSupply() <= _pouw.cap(), "below the cap");
        _refuses(5, PouwToken.NothingLeft.selector);
        _equal(_pouw.rewardOf(0), 0, "rounds count from 1");
    }

    function test_mint__roundWithoutAWinner__isRefused() public {
        Times memory t = _begin(100_003, false);
        vm.warp(t.t2);
        arena.finalize();
        _refuses(1, PouwToken.NoWinner.selector);
    }

    /// @dev Miner 0 has won the round, which is not closed.
    function _voted(uint64 round) private returns (Times memory t) {
        t = _begin(100_003, false);
        _commit(round, 0);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        _reveal(round, 0, 800_000);
        vm.warp(t.t3);
        _report(round, 0, IPoUW.Verdict.Winner, _miner(0));
        _report(round, 1, IPoUW.Verdict.Winner, _miner(0));
    }

    function _refuses(uint64 round, bytes4 why) private {
        try _pouw.mint(round) {
            revert("minted");
        } catch (bytes memory returned) {
            require(keccak256(returned) == keccak256(abi.encodeWithSelector(why, round)), "another error");
        }
    }
}
