// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Puppet} from "../../contracts/test/Puppet.sol";
import {Attacks} from "./Attacks.sol";
import {vm} from "./Cheats.sol";
import {HostileToken} from "./HostileToken.sol";
import {Moves} from "./Moves.sol";

/// @title Everybody who plays, guided
/// @notice Each `play` makes one move that fits the moment: the next step of the live round on an edge of its window,
/// a change of the pool, a payment, a silence, or something that must be refused.
contract Players is Attacks {
    uint256 private _moves;

    constructor(IPoUW.Parameters memory p, bool hostileToken) Moves(p, hostileToken) {}

    /// @notice Ten moves, the books compared with the arena after each.
    function play(uint256 seed) external {
        vm.warp(clock);
        for (uint256 i = 0; i < 10; ++i) {
            _seed = uint256(keccak256(abi.encode(seed, ++_moves)));
            _move();
            _check(_moves);
        }
    }

    function _move() private {
        uint256 choice = _pick(100);
        if (choice < 55) _step();
        else if (choice < 70) _changePool();
        else if (choice < 82) _collect();
        else if (choice < 97) _attack();
        else _beSilent();
    }

    function _beSilent() private {
        _setClock(clock + 1 + _pick(_chance(10) ? 365 days : 400));
        if (_chance(50)) {
            _must("sync", stranger, 0, abi.encodeCall(IPoUW.sync, ()));
            vm.recordLogs();
            arena.sync();
            require(vm.getRecordedLogs().length == 0, "9: after _sync, _sync changes nothing");
        }
    }

    // The live round, or the selected task, moves on.

    function _step() private {
        if (live) _stepRound();
        else if (selected != 0) _stepSelection();
        else _publishOne(_publisher(_pick(PUBLISHERS)));
    }

    function _stepSelection() private {
        uint256 opens = selectedAt + _phase2();
        uint256 closes = opens + terms.keyWindow;
        if (clock >= closes || _chance(8)) {
            if (clock < closes) _setClock(closes + _pick(2));
            _must(
                pooled.length == 0 ? bytes32("drop") : bytes32("drop and select"),
                stranger,
                0,
                abi.encodeCall(IPoUW.sync, ())
            );
            return;
        }
        bytes memory release = abi.encodeCall(IPoUW.releaseDataKey, (DATA_KEY));
        if (clock < opens && _chance(20)) {
            _setClock(_chance(50) || clock >= opens - 1 ? clock : opens - 1);
            _refused(IPoUW.TooEarly.selector, stranger, 0, release);
            return;
        }
        _setClock(_moment(opens, closes));
        _must("release", stranger, 0, release);
    }

    function _stepRound() private {
        Times memory t = _timesOf(begun);
        if (clock < t.t1) _stepPhase1(t);
        else if (!roundBooks[begun].opened) _stepOpening(t);
        else if (clock < t.t3) _stepReveals(t);
        else if (clock < t.t4) _stepReports(t);
        else if (clock < t.t5 && roundBooks[begun].challenger == address(0)) _stepChallenge(t);
        else _stepClosing(t);
    }

    function _stepPhase1(Times memory t) private {
        if (_chance(30)) {
            _setClock(_moment(t.t1, t.t2));
            return;
        }
        if (_chance(30)) _setClock(_moment(clock, t.t1));
        uint256 i = _pick(MINERS);
        bytes32 word = _chance(90) ? _commitment(begun, _miner(i)) : bytes32(_seed);
        bool again = entryBooks[begun][_miner(i)].time != 0;
        _must(
            again ? bytes32("overwrite") : bytes32("commit"), _miner(i), 0, abi.encodeCall(IPoUW.commit, (begun, word))
        );
    }

    function _stepOpening(Times memory t) private {
        if (clock >= t.t2 || _chance(6)) {
            if (clock < t.t2) _setClock(t.t2 + _pick(2));
            _close();
            return;
        }
        _setClock(_moment(t.t1, t.t2));
        _must("open", stranger, 0, abi.encodeCall(IPoUW.openTest, (TEST_KEY)));
    }

    function _stepReveals(Times memory t) private {
        uint256 i = _pick(MINERS);
        EntryBook storage entry = entryBooks[begun][_miner(i)];
        if (_chance(20)) {
            _setClock(_moment(t.t3, t.t4));
        } else if (entry.time != 0 && !entry.revealed && entry.commitment == _commitment(begun, _miner(i))) {
            if (_chance(20)) _setClock(_moment(clock, t.t3));
            uint32 claim = uint32(500_000 + _pick(3) * 250_000);
            _must("reveal", _miner(i), terms.minerBond, _revealData(begun, i, claim));
        }
    }

    /// @dev Honest oracles of one round agree; which verdict they reach, and who dissents, the seed says.
    function _someVerdict(bool agreed) private returns (IPoUW.Verdict verdict, address winner) {
        uint256 count = revealers[begun].length;
        uint256 plan = agreed ? uint256(keccak256(abi.encode(begun, "truth"))) : _pick(1 << 128);
        if (count == 0 || plan % 7 == 0) return (IPoUW.Verdict.Invalid, address(0));
        if (plan % 7 < 3) return (IPoUW.Verdict.NoTrueClaim, address(0));
        return (IPoUW.Verdict.Winner, revealers[begun][(plan >> 64) % count]);
    }

    function _stepReports(Times memory t) private {
        uint256 i = _pick(terms.oracles.length);
        if (_chance(20)) {
            _setClock(_moment(t.t4, t.t4 + (t.t5 > t.t4 ? t.t5 - t.t4 : 1)));
        } else if (roundBooks[begun].voted & (1 << i) == 0) {
            if (_chance(20)) _setClock(_moment(clock, t.t4));
            (IPoUW.Verdict verdict, address winner) = _someVerdict(_chance(80));
            _must("report", terms.oracles[i], 0, abi.encodeCall(IPoUW.report, (begun, verdict, winner, EVIDENCE)));
        }
    }

    function _stepChallenge(Times memory t) private {
        if (_chance(50)) {
            _setClock(_moment(t.t5, t.t6 + 2));
            return;
        }
        if (_chance(30)) _setClock(_moment(clock, t.t5));
        address who = _chance(50) ? stranger : _miner(_pick(MINERS));
        _must("challenge", who, terms.challengeBond, abi.encodeCall(IPoUW.challenge, (begun)));
    }

    function _stepClosing(Times memory t) private {
        RoundBook storage book = roundBooks[begun];
        if (book.challenger != address(0) && !book.ruled && clock < t.t6) {
            if (_chance(25)) {
                _setClock(t.t6 + _pick(2));
                return;
            }
            if (_chance(30)) _setClock(_moment(clock, t.t6));
            (IPoUW.Verdict verdict, address winner) = _someVerdict(_chance(30));
            if (book.verdict != IPoUW.Verdict.None && _chance(40)) (verdict, winner) = (book.verdict, book.winner);
            _must("rule", terms.arbiter, 0, abi.encodeCall(IPoUW.rule, (begun, verdict, winner, EVIDENCE)));
            return;
        }
        if (clock < t.t5 && !book.ruled) _setClock(t.t5 + _pick(2));
        _close();
    }

    /// @dev By whoever finalizes, or by whoever releases the next key.
    function _close() private {
        if (selected != 0 && _chance(50)) {
            uint256 opens = selectedAt + _phase2();
            if (clock < opens + terms.keyWindow) {
                _setClock(_moment(opens, opens + terms.keyWindow));
                _must("release closes", stranger, 0, abi.encodeCall(IPoUW.releaseDataKey, (DATA_KEY)));
                return;
            }
        }
        _must("finalize", stranger, 0, abi.encodeCall(IPoUW.finalize, ()));
    }

    // The pool.

    function _publishOne(address who) private {
        uint128 reward = uint128(1000 + (_chance(50) ? _pick(4) : _pick(1 << 80)));
        bytes memory data =
            abi.encodeCall(IPoUW.publish, (SPEC, KEY_HASH, 500_000, _chance(30), reward, uint64(_pick(published + 3))));
        _must("publish", who, reward + _bondOf(reward), data);
    }

    function _changePool() private {
        if (pooled.length < 3 || (pooled.length < 12 && _chance(40))) {
            _publishOne(_chance(20) ? address(puppet) : _publisher(_pick(PUBLISHERS)));
            return;
        }
        uint64 taskId = pooled[_pick(pooled.length)];
        TaskBook storage task = taskBooks[taskId];
        if (_owesSelection() && !_chance(10)) _must("sync", stranger, 0, abi.encodeCall(IPoUW.sync, ()));
        if (task.fate != Fate.Pooled) return;
        bool head = arena.pool(0, 1)[0] == taskId;
        bytes memory data;
        uint256 due = 0;
        if (_chance(40)) {
            data = abi.encodeCall(IPoUW.cancel, (taskId));
        } else {
            uint128 amount = uint128(1 + _pick(1 << 70));
            due = amount + _bondOf(task.reward + amount) - _bondOf(task.reward);
            data = abi.encodeCall(IPoUW.topUp, (taskId, amount, uint64(_pick(published + 3))));
        }
        if (_owesSelection() && head) _refused(IPoUW.TaskNotPooled.selector, task.publisher, due, data);
        else _must(due == 0 ? bytes32("cancel") : bytes32("top up"), task.publisher, due, data);
    }

    // Money.

    function _collect() private {
        if (begun > 0 && _chance(50)) {
            uint64 round = uint64(begun - _pick(begun > 3 ? 3 : begun));
            uint256 count = revealers[round].length;
            if (count == 0) return;
            address miner = revealers[round][_pick(count)];
            bytes memory data = abi.encodeCall(IPoUW.reclaim, (round, miner));
            if (roundBooks[round].header == 0) {
                _refused(IPoUW.NotClosed.selector, stranger, 0, data);
            } else if (entryBooks[round][miner].reclaimed) {
                _refused(IPoUW.NothingToReclaim.selector, stranger, 0, data);
            } else {
                _must("reclaim", stranger, 0, data);
            }
            return;
        }
        _withdraw(_chance(20) ? address(puppet) : actors[1 + _pick(actors.length - 1)]);
    }

    function _withdraw(address who) private {
        uint256 amount = creditOf[who];
        if (amount == 0) {
            _refused(IPoUW.NothingToWithdraw.selector, who, 0, abi.encodeCall(IPoUW.withdraw, (who)));
        } else if (terms.asset == address(0) && _chance(who == address(puppet) ? 70 : 30)) {
            _withdrawToPuppet(who);
        } else if (hostile && _chance(30)) {
            // Whoever withdraws a lying token loses what it says that it moved; the arena keeps it.
            HostileToken(terms.asset).behave(HostileToken.Manner.Lie);
            _must("withdraw a lie", who, 0, abi.encodeCall(IPoUW.withdraw, (who)));
            HostileToken(terms.asset).behave(HostileToken.Manner.Honest);
            forced += amount;
        } else {
            _must("withdraw", who, 0, abi.encodeCall(IPoUW.withdraw, (who)));
        }
    }

    /// @dev A receiver that refuses, or that calls the arena back while it is paid.
    function _withdrawToPuppet(address who) private {
        bytes memory withdraw = abi.encodeCall(IPoUW.withdraw, (address(puppet)));
        uint256 choice = _pick(3);
        if (choice == 0) {
            puppet.meetMoney(Puppet.Manner.Refuse, address(0), "");
            (bool done,) = _send(who, 0, withdraw);
            require(!done && arena.credits(who) == creditOf[who], "10: a refused payment stays a credit");
            _visit("withdraw refused");
        } else if (choice == 1 && who == address(puppet)) {
            puppet.meetMoney(Puppet.Manner.Act, address(arena), withdraw);
            (bool done,) = _send(who, 0, withdraw);
            require(!done, "paid once");
            _visit("withdraw again inside");
        } else {
            puppet.meetMoney(Puppet.Manner.Act, address(arena), abi.encodeCall(IPoUW.sync, ()));
            _must("sync inside a withdrawal", who, 0, withdraw);
        }
        puppet.meetMoney(Puppet.Manner.Accept, address(0), "");
    }

    /// @notice Compares the books with the arena once more.
    function check() external view {
        _check(_moves);
    }

    /// @notice From here time and permissionless calls alone lead every unit of money to its owner.
    function drain() external {
        vm.warp(clock);
        for (uint256 i = 0; i < actors.length; ++i) {
            _check(i);
        }
        _visit(_stage());
        for (uint256 i = 0; live || selected != 0 || pooled.length != 0; ++i) {
            require(i < 40, "6: it ends");
            _setClock(clock + 10 * 365 days);
            _must("sync", stranger, 0, abi.encodeCall(IPoUW.sync, ()));
            if (live) _must("finalize", stranger, 0, abi.encodeCall(IPoUW.finalize, ()));
        }
        for (uint64 round = 1; round <= begun; ++round) {
            for (uint256 i = 0; i < revealers[round].length; ++i) {
                address miner = revealers[round][i];
                if (entryBooks[round][miner].reclaimed) continue;
                _must("reclaim", stranger, 0, abi.encodeCall(IPoUW.reclaim, (round, miner)));
            }
        }
        for (uint256 i = 1; i < actors.length; ++i) {
            if (creditOf[actors[i]] == 0) continue;
            _must("withdraw", actors[i], 0, abi.encodeCall(IPoUW.withdraw, (actors[i])));
        }
        uint256 held = terms.asset == address(0) ? address(arena).balance : token.balanceOf(address(arena));
        require(held == creditOf[address(0)] + forced, "6: only what was burned or forced in is left");
        require(escrowed == 0 && bonds == 0, "6: nothing is owed");
    }

    function _stage() private view returns (bytes32) {
        if (!live) return selected != 0 ? bytes32("drain selected") : bytes32("drain idle");
        Times memory t = _timesOf(begun);
        if (clock < t.t1) return "drain phase 1";
        if (!roundBooks[begun].opened) return "drain not opened";
        if (clock < t.t3) return "drain reveals";
        if (clock < t.t4) return "drain reports";
        return roundBooks[begun].challenger != address(0) ? bytes32("drain challenged") : bytes32("drain reported");
    }

    /// @notice Appends how often each transition was visited to `path`.
    function tell(string calldata path) external {
        for (uint256 i = 0; i < visitNames.length; ++i) {
            vm.writeLine(
                path, string.concat(vm.toString(uint256(visitNames[i])), " ", vm.toString(visits[visitNames[i]]))
            );
        }
        vm.writeLine(path, string.concat("0 ", vm.toString(_moves)));
    }
}
