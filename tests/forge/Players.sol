// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {vm} from "./Cheats.sol";
import {Moves} from "./Moves.sol";
import {Purses} from "./Purses.sol";

/// @title Everybody who plays, guided
/// @notice Each move fits the moment: the next step of the live round on an edge of its window, a change of the pool,
/// a payment, a silence, or something that must be refused. The books are compared with the arena after each.
contract Players is Purses {
    uint256 private constant MOVES = 60;

    uint256 private _moves;
    /// @dev How many tasks wait in the pool, more or less: it differs from run to run.
    uint256 private _crowd;

    constructor(IPoUW.Parameters memory p, bool hostile) Moves(p, hostile) {}

    /// @notice Sixty moves.
    function play(uint256 seed) external {
        vm.warp(clock);
        vm.recordLogs();
        if (_moves == 0) _crowd = seed % 4;
        for (uint256 i = 0; i < MOVES; ++i) {
            _seed = uint256(keccak256(abi.encode(seed, ++_moves)));
            _move();
        }
    }

    /// @notice Compares all books with the arena.
    function check() external view {
        _checkAll();
    }

    /// @notice Drains the arena for good.
    function drain() external {
        vm.warp(clock);
        vm.recordLogs();
        _drain();
        _checkAll();
    }

    /// @notice Appends to `path` how often each transition was visited: a line of (name or error and call, 32 bytes;
    /// count, 4 bytes) in hexadecimal.
    function tell(string calldata path) external {
        bytes memory line = abi.encodePacked(bytes32("calls"), uint32(calls), bytes32("moves"), uint32(_moves));
        for (uint256 i = 0; i < visitNames.length; ++i) {
            line = bytes.concat(line, abi.encodePacked(visitNames[i], uint32(visits[visitNames[i]])));
        }
        vm.writeLine(path, vm.toString(line));
    }

    function _move() private {
        uint256 choice = _pick(100);
        if (choice < 52) _step();
        else if (choice < 64) _changePool();
        else if (choice < 74) _collect();
        else if (choice < 96) _attack();
        else if (choice < 97) _beSilent();
        else _drainAndReturn();
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

    function _step() private {
        if (live) _stepRound();
        else if (selected != 0) _stepSelection();
        else if (_chance(50)) _publishOne(_publisher(_pick(PUBLISHERS)));
        else _drainAndReturn();
    }

    function _stepSelection() private {
        (uint256 opens, uint256 closes) = (selectedAt + OPENS, selectedAt + CLOSES);
        if (_chance(10)) _comeAgain();
        if (_chance(30)) _drainAndReturn();
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
        if (clock < opens && _chance(10)) {
            _setClock(opens - 1);
            _refused(IPoUW.TooEarly.selector, stranger, 0, release);
        }
        _setClock(_moment(opens, closes));
        if (_chance(12)) {
            bytes memory wrong = abi.encodeCall(IPoUW.releaseDataKey, (bytes32(_seed)));
            _refused(IPoUW.WrongKey.selector, stranger, 0, wrong);
        }
        _must("release", stranger, 0, release);
    }

    function _stepRound() private {
        Times memory t = _times();
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
            _stepOpening(t);
            return;
        }
        if (_chance(30)) _setClock(_moment(clock, t.t1));
        uint256 i = _pick(MINERS);
        bytes32 word = _commitment(begun, _miner(i));
        if (_chance(16)) word = _chance(70) ? _commitment(begun, _miner((i + 1) % MINERS)) : bytes32(_seed);
        bool again = entryBooks[begun][_miner(i)].time != 0;
        _must(
            again ? bytes32("overwrite") : bytes32("commit"), _miner(i), 0, abi.encodeCall(IPoUW.commit, (begun, word))
        );
    }

    function _stepOpening(Times memory t) private {
        if (clock >= t.t2 || _chance(6)) {
            if (clock < t.t2) _setClock(t.t2 + _pick(2));
            if (_chance(60)) {
                _refused(IPoUW.TooLate.selector, stranger, 0, abi.encodeCall(IPoUW.openTest, (TEST_KEY)));
            }
            _close();
            return;
        }
        _setClock(_moment(t.t1, t.t2));
        if (_chance(12)) {
            _refused(IPoUW.WrongKey.selector, stranger, 0, abi.encodeCall(IPoUW.openTest, (bytes32(_seed))));
        }
        _must("open", stranger, 0, abi.encodeCall(IPoUW.openTest, (TEST_KEY)));
    }

    function _stepReveals(Times memory t) private {
        if (_chance(15)) _setClock(_moment(clock, t.t3));
        if (_chance(40)) _forgeReveal();
        if (_chance(8)) _comeEarly(t);
        uint256 start = _pick(MINERS);
        for (uint256 n = 0; n < MINERS; ++n) {
            uint256 i = (start + n) % MINERS;
            EntryBook storage entry = entryBooks[begun][_miner(i)];
            if (entry.time == 0 || entry.revealed || entry.commitment != _commitment(begun, _miner(i))) continue;
            uint32 claim = uint32(500_000 + _pick(3) * 250_000);
            _must("reveal", _miner(i), MINER_BOND, _revealData(begun, i, claim));
            return;
        }
        _setClock(_moment(t.t3, t.t4));
        _stepReports(t);
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
        if (_chance(15)) _setClock(_moment(clock, t.t4));
        if (_chance(15)) _voteWrongly(t);
        uint256 start = _pick(SEATS);
        for (uint256 n = 0; n < SEATS && _chance(85); ++n) {
            uint256 i = (start + n) % SEATS;
            if (roundBooks[begun].voted & (1 << i) != 0) continue;
            (IPoUW.Verdict verdict, address winner) = _someVerdict(_chance(80));
            _must("report", _oracle(i), 0, _reportData(verdict, winner));
            return;
        }
        _setClock(_moment(t.t4, t.t5 > t.t4 ? t.t5 : t.t4 + 2));
        if (ARBITER != address(0)) _stepChallenge(t);
    }

    function _stepChallenge(Times memory t) private {
        if (_chance(40)) {
            _setClock(_moment(t.t5, t.t6 + 2));
            if (_chance(40)) _comeLate(t);
            _close();
            return;
        }
        if (_chance(30)) _setClock(_moment(clock, t.t5));
        if (_chance(15)) _refusedWrongMoney(stranger, CHALLENGE_BOND, _challengeData());
        address who = _chance(50) ? stranger : _miner(_pick(MINERS));
        _must("challenge", who, CHALLENGE_BOND, _challengeData());
    }

    function _stepClosing(Times memory t) private {
        RoundBook storage book = roundBooks[begun];
        if (book.challenger != address(0) && !book.ruled && clock < t.t6) {
            if (_chance(25)) {
                _setClock(t.t6 + _pick(2));
                if (_chance(70)) _comeLate(t);
                _close();
                return;
            }
            if (_chance(10)) _ruleWrongly(t);
            if (_chance(30)) _setClock(_moment(clock, t.t6));
            (IPoUW.Verdict verdict, address winner) = _someVerdict(_chance(30));
            if (book.verdict != IPoUW.Verdict.None && _chance(40)) (verdict, winner) = (book.verdict, book.winner);
            _must("rule", ARBITER, 0, _ruleData(verdict, winner));
            return;
        }
        if (clock < t.t5 && !book.ruled) _setClock(t.t5 + _pick(2));
        _close();
    }

    /// @dev By whoever finalizes, or by whoever releases the next key.
    function _close() private {
        if (selected != 0 && _chance(50)) {
            if (clock < selectedAt + CLOSES) {
                _setClock(_moment(selectedAt + OPENS, selectedAt + CLOSES));
                _must("release closes", stranger, 0, abi.encodeCall(IPoUW.releaseDataKey, (DATA_KEY)));
                return;
            }
        }
        _must("finalize", stranger, 0, abi.encodeCall(IPoUW.finalize, ()));
    }

    function _publishOne(address who) private {
        uint128 reward = uint128(1000 + (_chance(50) ? _pick(4) : _pick(1 << 80)));
        bytes memory data =
            abi.encodeCall(IPoUW.publish, (SPEC, KEY_HASH, 500_000, _chance(30), reward, uint64(_pick(published + 3))));
        _must("publish", who, reward + _bondOf(reward), data);
    }

    function _changePool() private {
        if (pooled.length < _crowd || (pooled.length < 4 * _crowd && _chance(40))) {
            _publishOne(_chance(20) ? address(puppet) : _publisher(_pick(PUBLISHERS)));
            return;
        }
        if (pooled.length == 0) return;
        uint64 taskId = pooled[_pick(pooled.length)];
        TaskBook storage task = taskBooks[taskId];
        if (_owesSelection() && !_chance(10)) _must("sync", stranger, 0, abi.encodeCall(IPoUW.sync, ()));
        if (task.fate != Fate.Pooled) return;
        bool head = _head() == taskId;
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
}
