// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Puppet} from "../../contracts/test/Puppet.sol";
import {vm} from "./Cheats.sol";
import {HostileToken} from "./HostileToken.sol";
import {Moves} from "./Moves.sol";

/// @title What must be refused
/// @notice Early, late, twice, stolen, forged, replayed, wrongly paid, in another's name, in the middle of a payment.
/// An attack that does not fit the moment makes no call.
abstract contract Attacks is Moves {
    uint32 private constant CLAIM = 800_000;

    function _attack() internal {
        uint256 choice = _pick(12);
        if (choice == 0) _comeEarly(_times());
        else if (choice < 3) _comeLate(_times());
        else if (choice < 5) _forgeReveal();
        else if (choice == 5) _comeBeforeTheTest();
        else if (choice == 6) _voteWrongly(_times());
        else if (choice == 7) _ruleWrongly(_times());
        else if (choice == 8) _attackPool();
        else if (choice == 9) _comeAgain();
        else if (choice == 10) _payWrongly();
        else if (HOSTILE && _chance(70)) _meddleWithToken();
        else _forceMoney();
    }

    function _comeEarly(Times memory t) internal {
        RoundBook storage book = roundBooks[begun];
        bytes4 why = IPoUW.TooEarly.selector;
        uint256 choice = _pick(5);
        if (choice == 0) {
            bytes memory release = abi.encodeCall(IPoUW.releaseDataKey, (DATA_KEY));
            bool waits = selected != 0 && clock < selectedAt + CLOSES;
            if (!waits && !_owesSelection()) _refused(IPoUW.NothingSelected.selector, stranger, 0, release);
            else if (!waits || clock < selectedAt + OPENS) _refused(why, stranger, 0, release);
        } else if (choice == 1 && live && clock < t.t1) {
            _refused(why, stranger, 0, abi.encodeCall(IPoUW.openTest, (TEST_KEY)));
        } else if (choice == 2 && book.opened && clock < t.t3) {
            _refused(why, _oracle(_pick(SEATS)), 0, _reportData(IPoUW.Verdict.Invalid, address(0)));
        } else if (choice == 3 && book.opened && clock < t.t4 && ARBITER != address(0)) {
            _refused(why, stranger, CHALLENGE_BOND, _challengeData());
        } else if (live && !book.ruled && clock < _decidedAt(book)) {
            _refused(IPoUW.NotDecided.selector, stranger, 0, abi.encodeCall(IPoUW.finalize, ()));
        }
    }

    function _comeLate(Times memory t) internal {
        if (begun == 0) return;
        RoundBook storage book = roundBooks[begun];
        bytes4 why = IPoUW.TooLate.selector;
        bool challenged = book.challenger != address(0);
        uint256 choice = _pick(6);
        if (choice == 0 && challenged && !book.ruled && clock >= t.t6) {
            _refused(why, ARBITER, 0, _ruleData(IPoUW.Verdict.Invalid, address(0)));
        } else if (choice < 2 && book.opened && !challenged && clock >= t.t5 && ARBITER != address(0)) {
            _refused(why, stranger, CHALLENGE_BOND, _challengeData());
        } else if (choice < 3 && book.opened && clock >= t.t4) {
            _refused(why, _oracle(_pick(SEATS)), 0, _reportData(IPoUW.Verdict.Invalid, address(0)));
        } else if (choice < 4 && book.opened && clock >= t.t3) {
            uint256 i = _pick(MINERS);
            _refused(why, _miner(i), MINER_BOND, _revealData(begun, i, CLAIM));
        } else if (choice < 5 && live && !book.opened && clock >= t.t2) {
            _refused(why, stranger, 0, abi.encodeCall(IPoUW.openTest, (TEST_KEY)));
        } else if (clock >= t.t1) {
            _refused(why, _miner(_pick(MINERS)), 0, abi.encodeCall(IPoUW.commit, (begun, bytes32(_seed))));
        }
    }

    /// @dev Calls on a round whose test set nobody opened, and on one that never began.
    function _comeBeforeTheTest() private {
        bytes4 why = IPoUW.TestNotOpen.selector;
        uint256 choice = _pick(4);
        if (choice == 0) {
            _refused(IPoUW.NotLive.selector, _miner(0), 0, abi.encodeCall(IPoUW.commit, (begun + 1, bytes32(_seed))));
        } else if (roundBooks[begun].opened) {
            return;
        } else if (choice == 1) {
            uint256 i = _pick(MINERS);
            _refused(why, _miner(i), MINER_BOND, _revealData(begun, i, CLAIM));
        } else if (choice == 2) {
            _refused(why, _oracle(_pick(SEATS)), 0, _reportData(IPoUW.Verdict.Invalid, address(0)));
        } else if (ARBITER != address(0)) {
            _refused(why, stranger, CHALLENGE_BOND, _challengeData());
        }
    }

    /// @dev Miner i reveals twice, what it did not commit to, what j committed to, signed by j, for another round.
    function _forgeReveal() internal {
        if (!roundBooks[begun].opened || clock >= _times().t3) return;
        uint256 i = _unrevealed();
        uint256 j = (i + 1 + _pick(_chance(50) ? 1 : MINERS - 1)) % MINERS;
        address thief = _miner(i);
        EntryBook storage entry = entryBooks[begun][thief];
        if (entry.time == 0 || entry.revealed) {
            _refused(IPoUW.NothingCommitted.selector, thief, MINER_BOND, _revealData(begun, i, CLAIM));
            return;
        }
        bytes4 why = IPoUW.CommitmentMismatch.selector;
        if (entry.commitment != _commitment(begun, thief)) {
            _refused(why, thief, MINER_BOND, _revealData(begun, i, CLAIM));
            bool stolen = entry.commitment == _commitment(begun, _miner(j));
            _refused(why, thief, MINER_BOND, _revealData(begun, j, CLAIM));
            if (stolen) _visit("reveal a copied commitment");
            return;
        }
        uint256 choice = _pick(7);
        if (choice == 0) {
            _refused(why, thief, MINER_BOND, _revealData(begun, j, CLAIM));
        } else if (choice == 1 && begun > 1) {
            _refused(why, thief, MINER_BOND, _revealWith(begun - 1, i, begun - 1, i, CLAIM));
            _visit("reveal of another round");
        } else if (choice == 2) {
            _refused(IPoUW.ClaimTooLow.selector, thief, MINER_BOND, _revealData(begun, i, 499_999));
        } else if (choice == 3) {
            _refused(IPoUW.InvalidScore.selector, thief, MINER_BOND, _revealData(begun, i, 1_000_001));
        } else if (choice == 4) {
            _refusedWrongMoney(thief, MINER_BOND, _revealData(begun, i, CLAIM));
        } else if (choice == 5 && begun > 1) {
            _refused(IPoUW.InvalidSignature.selector, thief, MINER_BOND, _revealWith(begun, i, begun - 1, i, CLAIM));
            _visit("signature of another round");
        } else {
            _refused(IPoUW.InvalidSignature.selector, thief, MINER_BOND, _revealWith(begun, i, begun, j, CLAIM));
        }
    }

    /// @dev A miner who committed and did not reveal yet, any where there is none.
    function _unrevealed() private returns (uint256 i) {
        i = _pick(MINERS);
        for (uint256 n = 0; n < MINERS && _chance(90); ++n) {
            EntryBook storage entry = entryBooks[begun][_miner(i)];
            if (entry.time != 0 && !entry.revealed) return i;
            i = (i + 1) % MINERS;
        }
    }

    /// @dev A reveal in the newest round of what miner i made for `round`, signed by j for `signedFor`.
    function _revealWith(uint64 round, uint256 i, uint64 signedFor, uint256 j, uint32 claim)
        private
        view
        returns (bytes memory)
    {
        address miner = _miner(i);
        bytes memory signature = _signature(signedFor, j, claim);
        return abi.encodeCall(IPoUW.reveal, (begun, _manifest(round, miner), claim, _salt(round, miner), signature));
    }

    function _voteWrongly(Times memory t) internal {
        if (_chance(20)) {
            _refused(IPoUW.NotOracle.selector, stranger, 0, _reportData(IPoUW.Verdict.Invalid, address(0)));
            return;
        }
        RoundBook storage book = roundBooks[begun];
        if (!book.opened || clock < t.t3 || clock >= t.t4) return;
        uint256 i = _pick(SEATS);
        bytes4 why = book.voted & (1 << i) != 0 ? IPoUW.AlreadyVoted.selector : IPoUW.InvalidVerdict.selector;
        (IPoUW.Verdict verdict, address winner) = _misfit();
        _refused(why, _oracle(i), 0, _reportData(verdict, winner));
    }

    function _ruleWrongly(Times memory t) internal {
        RoundBook storage book = roundBooks[begun];
        bytes memory data = _ruleData(IPoUW.Verdict.Invalid, address(0));
        if (ARBITER == address(0) || _chance(20)) {
            _refused(IPoUW.NotArbiter.selector, stranger, 0, data);
        } else if (book.challenger == address(0) || book.ruled) {
            if (_chance(30)) _refused(IPoUW.NotRulable.selector, ARBITER, 0, data);
        } else if (clock < t.t6) {
            (IPoUW.Verdict verdict, address winner) = _misfit();
            _refused(IPoUW.InvalidVerdict.selector, ARBITER, 0, _ruleData(verdict, winner));
        }
    }

    /// @dev A verdict that no round allows.
    function _misfit() private returns (IPoUW.Verdict, address) {
        uint256 choice = _pick(4);
        if (choice == 0) return (IPoUW.Verdict.None, address(0));
        if (choice == 1) return (IPoUW.Verdict.Invalid, _miner(0));
        if (choice == 2 && revealers[begun].length == 0) return (IPoUW.Verdict.NoTrueClaim, address(0));
        return (IPoUW.Verdict.Winner, stranger);
    }

    function _attackPool() private {
        uint256 choice = _pick(6);
        if (choice == 0) {
            _refused(IPoUW.RewardTooSmall.selector, stranger, 999, _publishData(0, 999));
        } else if (choice == 1) {
            _refused(IPoUW.InvalidScore.selector, stranger, 11_000, _publishData(1_000_001, 10_000));
        } else if (choice == 2) {
            _refused(IPoUW.InvalidReceiver.selector, stranger, 0, abi.encodeCall(IPoUW.withdraw, (address(0))));
        } else if (published != 0) {
            bool waits = pooled.length != 0 && _chance(60);
            uint64 taskId = waits ? pooled[_pick(pooled.length)] : uint64(1 + _pick(published));
            TaskBook storage task = taskBooks[taskId];
            bool settled = task.fate == Fate.Pooled && !(_owesSelection() && _head() == taskId);
            if (choice == 3 && settled) {
                _refused(IPoUW.NothingToAdd.selector, task.publisher, 0, abi.encodeCall(IPoUW.topUp, (taskId, 0, 0)));
                return;
            }
            bytes4 why = settled ? IPoUW.NotPublisher.selector : IPoUW.TaskNotPooled.selector;
            address intruder = task.publisher == stranger ? _publisher(0) : stranger;
            if (choice == 4) _refused(why, intruder, 0, abi.encodeCall(IPoUW.cancel, (taskId)));
            else _refused(why, intruder, 1100, abi.encodeCall(IPoUW.topUp, (taskId, 1000, 0)));
        }
    }

    /// @dev Who is selected next, after the books.
    function _head() internal view returns (uint64 head) {
        for (uint256 i = 0; i < pooled.length; ++i) {
            if (head == 0 || _comesBefore(pooled[i], head)) head = pooled[i];
        }
    }

    function _publishData(uint32 minScore, uint128 reward) private pure returns (bytes memory) {
        return abi.encodeCall(IPoUW.publish, (SPEC, KEY_HASH, minScore, false, reward, 0));
    }

    /// @dev What may be done once, done twice; and keys that are none.
    function _comeAgain() internal {
        RoundBook storage book = roundBooks[begun];
        bytes32 key = bytes32(_seed);
        if (!live) {
            bool opens = _chance(50);
            bytes memory data = opens ? abi.encodeCall(IPoUW.openTest, (TEST_KEY)) : abi.encodeCall(IPoUW.finalize, ());
            _refused(IPoUW.NotLive.selector, stranger, 0, data);
        } else if (book.opened && _chance(30)) {
            _refused(IPoUW.TestAlreadyOpen.selector, stranger, 0, abi.encodeCall(IPoUW.openTest, (TEST_KEY)));
        } else if (book.challenger != address(0) || (ARBITER == address(0) && _chance(30))) {
            _refused(IPoUW.NotChallengeable.selector, stranger, CHALLENGE_BOND, _challengeData());
        } else if (!book.opened && clock >= book.t0 + T1 && clock < book.t0 + T2) {
            _refused(IPoUW.WrongKey.selector, stranger, 0, abi.encodeCall(IPoUW.openTest, (key)));
        }
        if (selected != 0 && clock >= selectedAt + OPENS && clock < selectedAt + CLOSES) {
            _refused(IPoUW.WrongKey.selector, stranger, 0, abi.encodeCall(IPoUW.releaseDataKey, (key)));
        }
    }

    function _payWrongly() private {
        RoundBook storage book = roundBooks[begun];
        Times memory t = _times();
        if (_chance(40)) {
            _refusedWrongMoney(stranger, 11_000, _publishData(0, 10_000));
        } else if (
            ARBITER != address(0) && book.opened && book.challenger == address(0) && clock >= t.t4 && clock < t.t5
        ) {
            _refusedWrongMoney(stranger, CHALLENGE_BOND, _challengeData());
        } else if (pooled.length != 0 && !_owesSelection()) {
            uint64 taskId = pooled[_pick(pooled.length)];
            TaskBook storage task = taskBooks[taskId];
            uint256 due = 1000 + _bondOf(task.reward + 1000) - _bondOf(task.reward);
            _refusedWrongMoney(task.publisher, due, abi.encodeCall(IPoUW.topUp, (taskId, 1000, 0)));
        }
    }

    function _forceMoney() private {
        uint256 amount = _pick(1000);
        if (ASSET == address(0)) vm.deal(address(arena), address(arena).balance + amount);
        else token.mint(address(arena), amount);
        forced += amount;
        _visit("forced in");
    }

    /// @dev The token takes a fee, lies, or lets the puppet act in the middle of a payment.
    function _meddleWithToken() private {
        HostileToken asset = HostileToken(ASSET);
        bytes memory data = _publishData(500_000, uint128(1000 + _pick(1000)));
        uint256 due = 2300;
        uint256 choice = _pick(4);
        if (choice < 2) {
            _fund(stranger, due);
            asset.behave(choice == 0 ? HostileToken.Manner.Fee : HostileToken.Manner.Lie);
            (bool done, bytes memory returned) = _sendValue(stranger, 0, data);
            require(!done && bytes4(returned) == IPoUW.WrongPayment.selector, "less than told is refused");
            _visit(choice == 0 ? bytes32("fee refused") : bytes32("lie refused"));
            asset.behave(HostileToken.Manner.Honest);
            return;
        }
        if (choice == 3 && creditOf[address(puppet)] == 0) return;
        bytes memory inner =
            choice == 2 ? abi.encodeCall(IPoUW.sync, ()) : abi.encodeCall(IPoUW.withdraw, (address(puppet)));
        _fund(stranger, due);
        asset.arm(address(puppet), abi.encodeCall(Puppet.execute, (address(arena), 0, inner)));
        (bool went,) = _sendValue(stranger, 0, data);
        require(went == (choice == 2), "money that leaves during a payment is missed");
        _visit(went ? bytes32("sync inside a payment") : bytes32("withdraw inside a payment"));
        asset.arm(address(0), "");
    }
}
