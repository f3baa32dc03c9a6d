// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Puppet} from "../../contracts/test/Puppet.sol";
import {vm} from "./Cheats.sol";
import {HostileToken} from "./HostileToken.sol";
import {Moves} from "./Moves.sol";

/// @title What must be refused
/// @notice Late, stolen, forged, wrongly paid, in another's name, in the middle of a payment.
abstract contract Attacks is Moves {
    function _attack() internal {
        uint256 choice = _pick(12);
        if (choice < 6 && live) _attackRound(choice);
        else if (choice < 8) _attackPool();
        else if (choice == 8) _payWrongly();
        else if (choice == 9) _forceMoney();
        else if (hostile) _meddleWithToken();
        else _useWrongKey();
    }

    function _attackRound(uint256 choice) private {
        Times memory t = _timesOf(begun);
        RoundBook storage book = roundBooks[begun];
        uint256 i = _pick(MINERS);
        if (book.opened && clock < t.t3) choice = 1;
        if (book.opened && clock >= t.t4 && _chance(50)) choice = _chance(50) ? 0 : 5;
        if (book.challenger != address(0) && !book.ruled && _chance(50)) choice = 4;
        if (choice == 0) {
            _comeLate(t, i);
        } else if (choice == 1 && book.opened && clock < t.t3) {
            _stealReveal(i, _pick(MINERS));
        } else if (choice == 2) {
            bytes memory data = abi.encodeCall(IPoUW.report, (begun, IPoUW.Verdict.Invalid, address(0), EVIDENCE));
            _refused(IPoUW.NotOracle.selector, stranger, 0, data);
        } else if (choice == 3 && book.opened && clock >= t.t3 && clock < t.t4) {
            _voteWrongly();
        } else if (choice == 4) {
            bytes memory data = abi.encodeCall(IPoUW.rule, (begun, IPoUW.Verdict.Invalid, address(0), EVIDENCE));
            if (book.challenger == address(0) || book.ruled) {
                if (terms.arbiter != address(0)) _refused(IPoUW.NotRulable.selector, terms.arbiter, 0, data);
            } else {
                _refused(IPoUW.NotArbiter.selector, stranger, 0, data);
            }
        } else if (choice == 5) {
            bool decided = book.ruled || clock >= (!book.opened ? t.t2 : book.challenger != address(0) ? t.t6 : t.t5);
            if (!decided) _refused(IPoUW.NotDecided.selector, stranger, 0, abi.encodeCall(IPoUW.finalize, ()));
        }
    }

    /// @dev The newest call whose window is over.
    function _comeLate(Times memory t, uint256 i) private {
        bytes4 why = IPoUW.TooLate.selector;
        RoundBook storage book = roundBooks[begun];
        if (book.opened && clock >= t.t5 && book.challenger == address(0) && terms.arbiter != address(0)) {
            _refused(why, stranger, terms.challengeBond, abi.encodeCall(IPoUW.challenge, (begun)));
        } else if (book.opened && clock >= t.t4) {
            bytes memory data = abi.encodeCall(IPoUW.report, (begun, IPoUW.Verdict.Invalid, address(0), EVIDENCE));
            _refused(why, terms.oracles[i % terms.oracles.length], 0, data);
        }
        if (book.opened && clock >= t.t3) {
            _refused(why, _miner(i), terms.minerBond, _revealData(begun, i, 800_000));
        } else if (clock >= t.t1) {
            _refused(why, _miner(i), 0, abi.encodeCall(IPoUW.commit, (begun, bytes32(_seed))));
        }
        if (book.challenger != address(0) && !book.ruled && clock >= t.t6) {
            bytes memory data = abi.encodeCall(IPoUW.rule, (begun, IPoUW.Verdict.Invalid, address(0), EVIDENCE));
            _refused(why, terms.arbiter, 0, data);
        }
    }

    /// @dev Miner `i` shows what miner `j` committed to, signed by either.
    function _stealReveal(uint256 i, uint256 j) private {
        address thief = _miner(i);
        if (i == j || entryBooks[begun][thief].time == 0 || entryBooks[begun][thief].revealed) return;
        _refused(IPoUW.CommitmentMismatch.selector, thief, terms.minerBond, _revealData(begun, j, 800_000));
        bytes memory forged = abi.encodeCall(
            IPoUW.reveal, (begun, _manifest(begun, thief), 800_000, _salt(begun, thief), _signature(begun, j, 800_000))
        );
        if (entryBooks[begun][thief].commitment != _commitment(begun, thief)) return;
        _refused(IPoUW.InvalidSignature.selector, thief, terms.minerBond, forged);
    }

    function _voteWrongly() private {
        uint256 i = _pick(terms.oracles.length);
        bytes memory data = abi.encodeCall(IPoUW.report, (begun, IPoUW.Verdict.Winner, stranger, EVIDENCE));
        bytes4 why =
            roundBooks[begun].voted & (1 << i) != 0 ? IPoUW.AlreadyVoted.selector : IPoUW.InvalidVerdict.selector;
        _refused(why, terms.oracles[i], 0, data);
    }

    function _attackPool() private {
        if (published == 0) return;
        uint64 taskId = uint64(1 + _pick(published));
        bytes4 why = taskBooks[taskId].fate == Fate.Pooled ? IPoUW.NotPublisher.selector : IPoUW.TaskNotPooled.selector;
        if (_owesSelection() && arena.pool(0, 1)[0] == taskId) why = IPoUW.TaskNotPooled.selector;
        address intruder = taskBooks[taskId].publisher == stranger ? _publisher(0) : stranger;
        _refused(why, intruder, 0, abi.encodeCall(IPoUW.cancel, (taskId)));
        _refused(why, intruder, 1100, abi.encodeCall(IPoUW.topUp, (taskId, 1000, 0)));
    }

    function _payWrongly() private {
        bytes memory data = abi.encodeCall(IPoUW.publish, (SPEC, KEY_HASH, 0, false, 10_000, 0));
        if (terms.asset == address(0)) {
            _refused(IPoUW.WrongPayment.selector, stranger, 10_999 + 2 * _pick(2), data);
        } else {
            vm.deal(stranger, 1);
            vm.prank(stranger);
            (bool done, bytes memory returned) = address(arena).call{value: 1}(data);
            require(!done && bytes4(returned) == IPoUW.WrongPayment.selector, "no ether into a token arena");
            _visit("ether refused");
        }
    }

    function _forceMoney() private {
        uint256 amount = _pick(1000);
        if (terms.asset == address(0)) {
            vm.deal(address(arena), address(arena).balance + amount);
        } else {
            token.mint(address(arena), amount);
        }
        forced += amount;
        _visit("forced in");
    }

    function _useWrongKey() private {
        bytes32 key = bytes32(_seed);
        if (live && !roundBooks[begun].opened) {
            Times memory t = _timesOf(begun);
            if (clock >= t.t1 && clock < t.t2) {
                _refused(IPoUW.WrongKey.selector, stranger, 0, abi.encodeCall(IPoUW.openTest, (key)));
            }
        } else if (selected != 0) {
            uint256 opens = selectedAt + _phase2();
            if (clock >= opens && clock < opens + terms.keyWindow) {
                _refused(IPoUW.WrongKey.selector, stranger, 0, abi.encodeCall(IPoUW.releaseDataKey, (key)));
            }
        }
    }

    /// @dev The token takes a fee, lies, or lets the puppet act in the middle of a payment.
    function _meddleWithToken() private {
        HostileToken asset = HostileToken(terms.asset);
        uint128 reward = uint128(1000 + _pick(1000));
        bytes memory data = abi.encodeCall(IPoUW.publish, (SPEC, KEY_HASH, 0, false, reward, 0));
        uint256 due = reward + _bondOf(reward);
        uint256 choice = _pick(4);
        if (choice < 2) {
            _fund(stranger, due);
            asset.behave(choice == 0 ? HostileToken.Manner.Fee : HostileToken.Manner.Lie);
            vm.prank(stranger);
            (bool done, bytes memory returned) = address(arena).call(data);
            require(!done && bytes4(returned) == IPoUW.WrongPayment.selector, "less than told is refused");
            _visit(choice == 0 ? bytes32("fee refused") : bytes32("lie refused"));
            asset.behave(HostileToken.Manner.Honest);
            return;
        }
        bytes memory inner =
            choice == 2 ? abi.encodeCall(IPoUW.sync, ()) : abi.encodeCall(IPoUW.withdraw, (address(puppet)));
        bool allowed = choice == 2;
        if (choice == 3 && creditOf[address(puppet)] == 0) return;
        _fund(stranger, due);
        asset.arm(address(puppet), abi.encodeCall(Puppet.execute, (address(arena), 0, inner)));
        vm.recordLogs();
        vm.prank(stranger);
        (bool went,) = address(arena).call(data);
        if (went) _enter(vm.getRecordedLogs(), stranger);
        require(went == allowed, "money that leaves during a payment is missed");
        _visit(allowed ? bytes32("sync inside a payment") : bytes32("withdraw inside a payment"));
        asset.arm(address(0), "");
    }
}
