// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Books} from "./Books.sol";

/// @title The books against the arena's storage
/// @notice Numbers are those of the invariants.
abstract contract Checks is Books {
    /// @dev After every call that went through.
    function _checkMoney(uint256 turn) internal view {
        uint256 held = ASSET == address(0) ? address(arena).balance : token.balanceOf(address(arena));
        require(held == escrowed + bonds + credited + forced, "1: holds exactly what it owes and what was forced in");
        address account = actors[turn % actors.length];
        require(arena.credits(account) == creditOf[account], "1: credits follow from events");
    }

    /// @dev After every call that changed the pool, began or closed a round.
    function _checkPlaces() internal view {
        IPoUW.Arena memory now_ = arena.arena();
        require(now_.tasks == published && now_.rounds == begun && now_.live == live, "8: one round at most");
        require(now_.selected == selected && now_.selectedAt == (selected == 0 ? 0 : selectedAt), "8: one task at most");
        require(live || selected != 0 || pooled.length == 0, "6: an idle arena keeps nobody waiting");
    }

    /// @dev After every call that changed the pool.
    function _checkPool() internal view {
        uint64[] memory order = arena.pool(0, 1000);
        require(order.length == pooled.length, "3: the pool holds who waits");
        uint64 above = 0;
        for (uint256 i = 0; i < order.length; ++i) {
            require(taskBooks[order[i]].fate == Fate.Pooled, "3: nobody else");
            require(above == 0 || _comesBefore(above, order[i]), "3: ordered");
            above = order[i];
        }
        require(arena.poolHistory() == history, "the history follows from events");
    }

    /// @dev After every call that began or closed a round.
    function _checkHeaders() internal view {
        require(arena.lastHeader() == parent, "7: headers form one chain");
        if (begun == 0) return;
        IPoUW.Round memory round = arena.rounds(begun);
        RoundBook storage book = roundBooks[begun];
        require(round.header == book.header, "7: closed or not");
        require(round.taskId == book.taskId && round.t0 == book.t0, "8: the task's round");
        require(round.opened == book.opened && round.reveals == revealers[begun].length, "5: who revealed");
        require(round.verdict == book.verdict && round.winner == book.winner, "the outcome follows from events");
    }

    /// @dev Everything, every actor's credit included.
    function _checkAll() internal view {
        for (uint256 i = 0; i < actors.length; ++i) {
            _checkMoney(i);
        }
        _checkPlaces();
        _checkPool();
        _checkHeaders();
    }
}
