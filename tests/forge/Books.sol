// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Cheats} from "./Cheats.sol";
import {TaskBooks} from "./TaskBooks.sol";

/// @title What everybody should have
/// @notice Books kept from the arena's events alone, event by event, against rules written down a second time. Every
/// event is refused that the rules do not allow at its moment; after every call each actor was credited exactly what
/// the outcome table says; and `_check` compares the books with the arena's storage.
abstract contract Books is TaskBooks {
    /// @dev Enters the events of one call that `sender` made. Those of a call inside it come from accounts with code.
    function _enter(Cheats.Log[] memory logs, address sender) internal {
        uint256 drops = 0;
        uint256 selections = 0;
        uint256 closings = 0;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter != address(arena)) continue;
            bytes32 kind = logs[i].topics[0];
            if (kind == IPoUW.TaskDropped.selector) ++drops;
            if (kind == IPoUW.TaskSelected.selector) ++selections;
            if (kind == IPoUW.RoundClosed.selector) ++closings;
            if (!_enterTaskEvent(kind, logs[i])) _enterRoundEvent(kind, logs[i], sender);
        }
        require(drops < 2 && selections < 2 && closings < 2, "6: one drop, one selection, one closing a call");
        for (uint256 i = 0; i < actors.length; ++i) {
            address account = actors[i];
            require(_received[account] == _expected[account], "10: credited what the outcome table says");
            (_received[account], _expected[account]) = (0, 0);
        }
    }

    function _enterRoundEvent(bytes32 kind, Cheats.Log memory log, address sender) private {
        if (kind == IPoUW.Credited.selector) {
            address account = address(uint160(uint256(log.topics[1])));
            require(known[account], "10: nobody else is credited");
            uint256 amount = abi.decode(log.data, (uint256));
            _received[account] += amount;
            creditOf[account] += amount;
            credited += amount;
            return;
        }
        if (kind == IPoUW.Withdrawn.selector) {
            address account = address(uint160(uint256(log.topics[1])));
            uint256 amount = abi.decode(log.data, (uint256));
            require(account == sender || account.code.length != 0, "10: withdrawn by its creditor");
            require(amount == creditOf[account], "the whole credit");
            (creditOf[account], credited) = (0, credited - amount);
            return;
        }
        uint64 round = uint64(uint256(log.topics[1]));
        RoundBook storage book = roundBooks[round];
        address who = log.topics.length > 2 ? address(uint160(uint256(log.topics[2]))) : address(0);
        if (kind == IPoUW.DataKeyReleased.selector) {
            _enterBeginning(round, book, log);
            return;
        }
        uint256 t1 = book.t0 + terms.phase1;
        if (kind == IPoUW.Committed.selector) {
            require(who == sender || sender.code.length != 0, "4: only its owner commits");
            require(round == begun && live && clock < t1, "5: committed in Phase 1");
            EntryBook storage entry = entryBooks[round][who];
            (entry.commitment,) = abi.decode(log.data, (bytes32, uint40));
            entry.time = clock;
        } else if (kind == IPoUW.TestOpened.selector) {
            require(round == begun && live && !book.opened, "opened once");
            require(clock >= t1 && clock < t1 + terms.keyWindow, "opened in its window");
            book.opened = true;
        } else if (kind == IPoUW.Revealed.selector) {
            _enterReveal(round, book, who, log, sender);
        } else if (kind == IPoUW.Reported.selector) {
            _enterReport(round, book, who, log);
        } else if (kind == IPoUW.Challenged.selector) {
            uint256 t4 = t1 + terms.keyWindow + terms.revealWindow + terms.reportWindow;
            require(book.opened && book.challenger == address(0), "challenged once");
            require(clock >= t4 && clock < t4 + terms.challengeWindow, "challenged in its window");
            book.challenger = who;
            bonds += terms.challengeBond;
            _visit(book.verdict == IPoUW.Verdict.None ? bytes32("challenge missing") : bytes32("challenge outcome"));
        } else if (kind == IPoUW.Ruled.selector) {
            require(sender == terms.arbiter, "10: only the arbiter rules");
            require(book.challenger != address(0) && !book.ruled && clock < t1 + _phase2(), "ruled once, before t6");
            (IPoUW.Verdict verdict, address winner, bytes32 evidence,) =
                abi.decode(log.data, (IPoUW.Verdict, address, bytes32, bool));
            _checkFits(round, verdict, winner);
            book.ruled = true;
            book.changed = verdict != book.verdict || winner != book.winner;
            (book.verdict, book.winner, book.evidenceDigest) = (verdict, winner, evidence);
            _visit(book.changed ? bytes32("rule changes") : bytes32("rule confirms"));
        } else if (kind == IPoUW.RoundClosed.selector) {
            _enterClosing(round, book, log);
        } else if (kind == IPoUW.Reclaimed.selector) {
            _enterReclaim(round, book, who, log);
        } else {
            revert("an event without a rule");
        }
    }

    function _enterBeginning(uint64 round, RoundBook storage book, Cheats.Log memory log) private {
        uint64 taskId = uint64(uint256(log.topics[2]));
        uint256 opens = selectedAt + _phase2();
        require(!live && round == begun + 1, "8: rounds do not overlap, numbers rise by one");
        require(taskId == selected && taskBooks[taskId].fate == Fate.Selected, "the selected task's round");
        require(clock >= opens && clock < opens + terms.keyWindow, "released in its window");
        uint256 t6Before = round == 1 ? 0 : roundBooks[begun].t0 + terms.phase1 + _phase2();
        require(clock >= t6Before, "8: t0 of n+1 is not before t6 of n");
        (book.taskId, book.t0, book.poolHistory) = (taskId, clock, historyBeforeSelection);
        (bytes32 key,, bytes32 word) = abi.decode(log.data, (bytes32, uint40, bytes32));
        require(key == DATA_KEY && word == historyBeforeSelection, "its key, its history");
        (selected, begun, live, taskBooks[taskId].fate) = (0, round, true, Fate.Round);
    }

    function _enterReveal(uint64 round, RoundBook storage book, address who, Cheats.Log memory log, address sender)
        private
    {
        (uint32 claim, bytes32 manifest, bytes32 salt, bytes memory signature) =
            abi.decode(log.data, (uint32, bytes32, bytes32, bytes));
        EntryBook storage entry = entryBooks[round][who];
        uint256 t3 = book.t0 + terms.phase1 + terms.keyWindow + terms.revealWindow;
        require(who == sender && !entry.revealed, "4: its owner, once");
        require(round == begun && book.opened && clock < t3, "5: revealed in time");
        require(claim >= taskBooks[book.taskId].minScore && claim <= 1_000_000, "5: claimed at least minScore");
        require(entry.time != 0 && entry.time < book.t0 + terms.phase1, "5: committed in Phase 1");
        bytes32 word = arena.commitmentOf(round, who, manifest, salt);
        require(bytes22(word) == bytes22(entry.commitment), "4: opens its own last commitment");
        (entry.revealed, entry.claim) = (true, claim);
        entry.digest = bytes22(keccak256(abi.encode(manifest, keccak256(signature))));
        revealers[round].push(who);
        bonds += terms.minerBond;
    }

    function _checkFits(uint64 round, IPoUW.Verdict verdict, address winner) private view {
        if (verdict == IPoUW.Verdict.Winner) {
            require(entryBooks[round][winner].revealed, "5: a winner revealed");
        } else {
            require(verdict != IPoUW.Verdict.None && winner == address(0), "names nobody");
            require(verdict == IPoUW.Verdict.Invalid || revealers[round].length != 0, "NoTrueClaim needs a reveal");
        }
    }

    function _enterReport(uint64 round, RoundBook storage book, address who, Cheats.Log memory log) private {
        (IPoUW.Verdict verdict, address winner, bytes32 evidence) =
            abi.decode(log.data, (IPoUW.Verdict, address, bytes32));
        uint256 t3 = book.t0 + terms.phase1 + terms.keyWindow + terms.revealWindow;
        require(round == begun && book.opened && clock >= t3 && clock < t3 + terms.reportWindow, "voted in its window");
        _checkFits(round, verdict, winner);
        uint256 bit = 0;
        for (uint256 i = 0; i < terms.oracles.length; ++i) {
            if (terms.oracles[i] == who) bit = 1 << i;
        }
        require(bit != 0 && book.voted & bit == 0, "each oracle once");
        book.voted |= bit;
        uint256 voters = votesFor[round][verdict][winner] | bit;
        votesFor[round][verdict][winner] = voters;
        uint256 count = 0;
        for (uint256 i = 0; i < 16; ++i) {
            count += (voters >> i) & 1;
        }
        if (count < terms.threshold) return;
        if (book.verdict == IPoUW.Verdict.None) {
            (book.verdict, book.winner, book.evidenceDigest) = (verdict, winner, evidence);
            _visit("quorum");
        }
        book.voters = voters;
    }

    function _enterClosing(uint64 round, RoundBook storage book, Cheats.Log memory log) private {
        TaskBook storage task = taskBooks[book.taskId];
        require(live && round == begun && task.fate == Fate.Round, "2: closed once");
        uint256 t1 = book.t0 + terms.phase1;
        uint256 t6 = t1 + _phase2();
        uint256 from = !book.opened
            ? t1 + terms.keyWindow
            : book.ruled ? 0 : book.challenger != address(0) ? t6 : t6 - terms.rulingWindow;
        require(clock >= from, "not before it is decided");
        EntryBook storage best = entryBooks[round][book.winner];
        bytes32 header = keccak256(
            abi.encode(
                round,
                parent,
                book.taskId,
                task.specDigest,
                book.poolHistory,
                book.verdict,
                book.winner,
                best.claim,
                best.digest,
                book.evidenceDigest,
                clock
            )
        );
        (IPoUW.Verdict verdict, address winner,,,,, bytes32 told) =
            abi.decode(log.data, (IPoUW.Verdict, address, uint32, bytes22, bytes32, uint40, bytes32));
        require(verdict == book.verdict && winner == book.winner, "the outcome that was voted or ruled");
        require(told == header, "7: each header names its parent");
        (live, parent, book.header, task.fate) = (false, header, header, Fate.Closed);
        escrowed -= _moneyOf(book.taskId);
        if (book.challenger != address(0)) bonds -= terms.challengeBond;
        _expectOutcome(book, task);
    }

    function _expectOutcome(RoundBook storage book, TaskBook storage task) private {
        uint256 fee = _feeOf(task.reward);
        uint256 bond = _bondOf(task.reward);
        if (!book.opened) {
            _visit("close: not opened");
            _expect(task.publisher, task.reward - fee);
            _expect(address(0), fee + bond);
            return;
        }
        if (book.verdict == IPoUW.Verdict.None) {
            _visit(book.voted == 0 ? bytes32("close: no vote") : bytes32("close: no quorum"));
            _expect(task.publisher, task.reward - fee + bond);
            _expect(address(0), fee);
        } else {
            if (book.changed) _expect(book.challenger, fee + terms.challengeBond);
            else fee = _expectShares(book.voters, fee);
            bool won = book.verdict == IPoUW.Verdict.Winner;
            bool invalid = book.verdict == IPoUW.Verdict.Invalid;
            _visit(
                won ? bytes32("close: winner") : invalid ? bytes32("close: invalid") : bytes32("close: no true claim")
            );
            _expect(won ? book.winner : task.publisher, task.reward - fee);
            _expect(invalid ? address(0) : task.publisher, bond);
        }
        if (book.challenger == address(0) || book.changed) return;
        _visit(book.ruled ? bytes32("close: confirmed") : bytes32("close: silent arbiter"));
        _expect(book.ruled ? address(0) : book.challenger, terms.challengeBond);
    }

    function _expectShares(uint256 voters, uint256 fee) private returns (uint256 paid) {
        uint256 count = 0;
        for (uint256 i = 0; i < terms.oracles.length; ++i) {
            count += (voters >> i) & 1;
        }
        for (uint256 i = 0; i < terms.oracles.length; ++i) {
            if ((voters >> i) & 1 == 0) continue;
            _expect(terms.oracles[i], fee / count);
            paid += fee / count;
        }
    }

    function _enterReclaim(uint64 round, RoundBook storage book, address who, Cheats.Log memory log) private {
        EntryBook storage entry = entryBooks[round][who];
        require(book.header != 0 && entry.revealed && !entry.reclaimed, "a bond comes back once, after the close");
        bool above = book.verdict == IPoUW.Verdict.NoTrueClaim;
        if (book.verdict == IPoUW.Verdict.Winner) {
            bool first = taskBooks[book.taskId].first;
            above = _rankOf(entry, who, first) < _rankOf(entryBooks[round][book.winner], book.winner, first);
        }
        require(abi.decode(log.data, (bool)) == above, "5: burned exactly above the winner");
        entry.reclaimed = true;
        bonds -= terms.minerBond;
        _expect(above ? address(0) : who, terms.minerBond);
        _visit(above ? bytes32("reclaim burned") : bytes32("reclaim back"));
    }

    /// @dev One number that is smaller the better a reveal ranks.
    function _rankOf(EntryBook storage entry, address who, bool first) private view returns (uint256) {
        uint256 worse = first ? 0 : 1_000_000 - entry.claim;
        return (worse << 208) | (entry.time << 160) | uint160(who);
    }

    /// @dev Compares the books with the arena, the credit of one actor a time; numbers are those of the invariants.
    function _check(uint256 turn) internal view {
        uint256 held = terms.asset == address(0) ? address(arena).balance : token.balanceOf(address(arena));
        require(held == escrowed + bonds + credited + forced, "1: holds exactly what it owes and what was forced in");
        address account = actors[turn % actors.length];
        require(arena.credits(account) == creditOf[account], "1: credits follow from events");
        IPoUW.Arena memory now_ = arena.arena();
        require(now_.tasks == published && now_.rounds == begun && now_.live == live, "8: one round at most");
        require(now_.selected == selected && now_.selectedAt == (selected == 0 ? 0 : selectedAt), "8: one task at most");
        uint64[] memory order = arena.pool(0, 1000);
        require(order.length == pooled.length, "3: the pool holds who waits");
        uint64 above = 0;
        for (uint256 i = 0; i < order.length; ++i) {
            require(taskBooks[order[i]].fate == Fate.Pooled, "3: nobody else");
            require(above == 0 || _comesBefore(above, order[i]), "3: ordered");
            above = order[i];
        }
        require(arena.poolHistory() == history, "the history follows from events");
        require(arena.lastHeader() == parent, "7: headers form one chain");
        if (begun != 0) require(arena.rounds(begun).header == roundBooks[begun].header, "7: closed or not");
    }
}
