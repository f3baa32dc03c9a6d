// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Cheats} from "./Cheats.sol";
import {TaskBooks} from "./TaskBooks.sol";

/// @title What everybody should have
/// @notice Books kept from the arena's events alone, event by event, against rules written down a second time. Every
/// event is refused that the rules do not allow at its moment; after every call each actor was credited exactly what
/// the outcome table says.
abstract contract Books is TaskBooks {
    /// @dev Enters the events of one call that `sender` made. Those of a call inside it come from accounts with code.
    /// Returns whether they changed the pool, and whether a round began or closed.
    function _enter(Cheats.Log[] memory logs, address sender) internal returns (bool ofPool, bool ofRounds) {
        uint256 drops = 0;
        uint256 selections = 0;
        uint256 closings = 0;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter != address(arena)) continue;
            bytes32 kind = logs[i].topics[0];
            if (kind == IPoUW.TaskDropped.selector) ++drops;
            if (kind == IPoUW.TaskSelected.selector) ++selections;
            if (kind == IPoUW.RoundClosed.selector) ++closings;
            if (kind == IPoUW.DataKeyReleased.selector) ofRounds = true;
            if (_enterTaskEvent(kind, logs[i])) ofPool = true;
            else _enterRoundEvent(kind, logs[i], sender);
        }
        require(drops < 2 && selections < 2 && closings < 2, "6: one drop, one selection, one closing a call");
        if (closings != 0) ofRounds = true;
        require(uneven == 0, "10: everybody is credited what the outcome table says");
    }

    function _enterRoundEvent(bytes32 kind, Cheats.Log memory log, address sender) private {
        if (kind == IPoUW.Credited.selector) {
            address account = address(uint160(uint256(log.topics[1])));
            require(known[account], "10: nobody else is credited");
            uint256 amount = abi.decode(log.data, (uint256));
            _owe(account, -int256(amount));
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
        uint256 t0 = book.t0;
        if (kind == IPoUW.Committed.selector) {
            require(who == sender || sender.code.length != 0, "4: only its owner commits");
            require(round == begun && live && clock < t0 + T1, "5: committed in Phase 1");
            EntryBook storage entry = entryBooks[round][who];
            (entry.commitment,) = abi.decode(log.data, (bytes32, uint40));
            entry.time = clock;
        } else if (kind == IPoUW.TestOpened.selector) {
            require(round == begun && live && !book.opened, "opened once");
            require(clock >= t0 + T1 && clock < t0 + T2, "opened in its window");
            book.opened = true;
        } else if (kind == IPoUW.Revealed.selector) {
            _enterReveal(round, book, who, log, sender);
        } else if (kind == IPoUW.Reported.selector) {
            _enterReport(round, book, who, log);
        } else if (kind == IPoUW.Challenged.selector) {
            require(book.opened && book.challenger == address(0), "challenged once");
            require(clock >= t0 + T4 && clock < t0 + T5, "challenged in its window");
            book.challenger = who;
            bonds += CHALLENGE_BOND;
            _visit(book.verdict == IPoUW.Verdict.None ? bytes32("challenge missing") : bytes32("challenge outcome"));
        } else if (kind == IPoUW.Ruled.selector) {
            require(sender == ARBITER, "10: only the arbiter rules");
            require(book.challenger != address(0) && !book.ruled && clock < t0 + T6, "ruled once, before t6");
            (IPoUW.Verdict verdict, address winner, bytes32 evidence,) =
                abi.decode(log.data, (IPoUW.Verdict, address, bytes32, bool));
            _checkFits(round, verdict, winner);
            bool silent = book.verdict == IPoUW.Verdict.None;
            book.ruled = true;
            book.changed = verdict != book.verdict || winner != book.winner;
            (book.verdict, book.winner, book.evidenceDigest) = (verdict, winner, evidence);
            _visit(
                !book.changed ? bytes32("rule confirms") : silent ? bytes32("rule on silence") : bytes32("rule changes")
            );
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
        require(!live && round == begun + 1, "8: rounds do not overlap, numbers rise by one");
        require(taskId == selected && taskBooks[taskId].fate == Fate.Selected, "the selected task's round");
        require(clock >= selectedAt + OPENS && clock < selectedAt + CLOSES, "released in its window");
        uint256 t6Before = round == 1 ? 0 : roundBooks[begun].t0 + T6;
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
        uint256 t3 = book.t0 + T3;
        require(who == sender && !entry.revealed, "4: its owner, once");
        require(round == begun && book.opened && clock < t3, "5: revealed in time");
        require(claim >= taskBooks[book.taskId].minScore && claim <= 1_000_000, "5: claimed at least minScore");
        require(entry.time != 0 && entry.time < book.t0 + T1, "5: committed in Phase 1");
        bytes32 word = _commitmentTo(round, who, manifest, salt);
        require(bytes22(word) == bytes22(entry.commitment), "4: opens its own last commitment");
        (entry.revealed, entry.claim) = (true, claim);
        entry.digest = bytes22(keccak256(abi.encode(manifest, keccak256(signature))));
        revealers[round].push(who);
        bonds += MINER_BOND;
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
        uint256 t0 = book.t0;
        require(round == begun && book.opened && clock >= t0 + T3 && clock < t0 + T4, "voted in its window");
        _checkFits(round, verdict, winner);
        uint256 bit = 0;
        for (uint256 i = 0; i < SEATS; ++i) {
            if (_oracle(i) == who) bit = 1 << i;
        }
        require(bit != 0 && book.voted & bit == 0, "each oracle once");
        book.voted |= bit;
        uint256 voters = votesFor[round][verdict][winner] | bit;
        votesFor[round][verdict][winner] = voters;
        uint256 count = 0;
        for (uint256 i = 0; i < 16; ++i) {
            count += (voters >> i) & 1;
        }
        if (count < THRESHOLD) return;
        if (book.verdict == IPoUW.Verdict.None) {
            (book.verdict, book.winner, book.evidenceDigest) = (verdict, winner, evidence);
            _visit("quorum");
        }
        book.voters = voters;
    }

    function _enterClosing(uint64 round, RoundBook storage book, Cheats.Log memory log) private {
        TaskBook storage task = taskBooks[book.taskId];
        require(live && round == begun && task.fate == Fate.Round, "2: closed once");
        require(book.ruled || clock >= _decidedAt(book), "not before it is decided");
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
        if (book.challenger != address(0)) bonds -= CHALLENGE_BOND;
        _expectOutcome(book, task);
    }

    /// @dev From when on a round that is not ruled is decided.
    function _decidedAt(RoundBook storage book) internal view returns (uint256) {
        return book.t0 + (!book.opened ? T2 : book.challenger != address(0) ? T6 : T5);
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
            if (revealers[begun].length == 0) _visit("close: no reveal");
            _visit(book.voted == 0 ? bytes32("close: no vote") : bytes32("close: no quorum"));
            _expect(task.publisher, task.reward - fee + bond);
            _expect(address(0), fee);
        } else {
            if (book.changed) _expect(book.challenger, fee + CHALLENGE_BOND);
            else fee = _expectShares(book.voters, fee);
            bool won = book.verdict == IPoUW.Verdict.Winner;
            bool invalid = book.verdict == IPoUW.Verdict.Invalid;
            _visit(
                won
                    ? task.first ? bytes32("close: winner, first") : bytes32("close: winner")
                    : invalid ? bytes32("close: invalid") : bytes32("close: no true claim")
            );
            if (book.changed) _visit("close: changed");
            _expect(won ? book.winner : task.publisher, task.reward - fee);
            _expect(invalid ? address(0) : task.publisher, bond);
        }
        if (book.challenger == address(0) || book.changed) return;
        _visit(book.ruled ? bytes32("close: confirmed") : bytes32("close: silent arbiter"));
        _expect(book.ruled ? address(0) : book.challenger, CHALLENGE_BOND);
    }

    function _expectShares(uint256 voters, uint256 fee) private returns (uint256 paid) {
        uint256 count = 0;
        for (uint256 i = 0; i < SEATS; ++i) {
            count += (voters >> i) & 1;
        }
        for (uint256 i = 0; i < SEATS; ++i) {
            if ((voters >> i) & 1 == 0) continue;
            _expect(_oracle(i), fee / count);
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
        bonds -= MINER_BOND;
        _expect(above ? address(0) : who, MINER_BOND);
        if (book.verdict == IPoUW.Verdict.Winner) _visit(above ? bytes32("bond: above") : bytes32("bond: not above"));
        else if (above) _visit("bond: no true claim");
        else _visit(book.verdict == IPoUW.Verdict.Invalid ? bytes32("bond: invalid") : bytes32("bond: no outcome"));
    }

    /// @dev One number that is smaller the better a reveal ranks.
    function _rankOf(EntryBook storage entry, address who, bool first) private view returns (uint256) {
        uint256 worse = first ? 0 : 1_000_000 - entry.claim;
        return (worse << 208) | (entry.time << 160) | uint160(who);
    }
}
