// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Escrow} from "../../contracts/Escrow.sol";
import {IPoUW} from "../../contracts/IPoUW.sol";
import {Terms} from "../../contracts/Terms.sol";
import {PlainPool} from "./PlainPool.sol";

/// @title The arena, ported plainly
/// @notice Every call of `IPoUW`, with its checks, events and money, in the layout of `PlainState`. A yardstick for
/// gas, not for use.
contract PlainPoUW is PlainPool {
    bytes32 private constant COMMIT_TYPEHASH = keccak256(
        "Commit(uint256 chainId,address arena,uint64 round,address miner,bytes32 manifestDigest,bytes32 salt)"
    );
    bytes32 private constant REVEAL_TYPEHASH =
        keccak256("Reveal(uint64 round,address miner,bytes32 manifestDigest,uint32 claimedScore)");

    bytes32 private immutable GENESIS;

    constructor(Parameters memory p) Terms(p) Escrow(p.asset) EIP712("PoUW", "1") {
        GENESIS = _domainSeparatorV4();
    }

    /// @inheritdoc IPoUW
    function releaseDataKey(bytes32 dataKey) external {
        _sync();
        if (_selected == 0) revert NothingSelected();
        _requireFrom(_selectedAt + OPENS);
        PlainTask storage task = _tasks[_selected];
        if (keccak256(abi.encode(dataKey)) != task.keyHash) revert WrongKey(dataKey);
        if (_live) _close(_begun);

        uint256 taskId = _selected;
        uint256 number = ++_begun;
        _selected = 0;
        _selectedAt = 0;
        _live = true;
        task.round = number;
        PlainRound storage r = _rounds[number];
        r.taskId = taskId;
        r.t0 = block.timestamp;
        r.poolHistory = _selectedHistory;
        emit DataKeyReleased(uint64(number), uint64(taskId), dataKey, uint40(block.timestamp), _selectedHistory);
    }

    /// @inheritdoc IPoUW
    function commit(uint64 round, bytes32 commitment) external {
        uint256 t0 = _rounds[round].t0;
        if (t0 == 0) revert NotLive(round);
        _requireBefore(t0 + T1);

        PlainEntry storage entry = _entries[round][msg.sender];
        entry.committedAt = block.timestamp;
        entry.state = EntryState.Committed;
        entry.commitment = commitment;
        emit Committed(round, msg.sender, commitment, uint40(block.timestamp));
    }

    /// @inheritdoc IPoUW
    function openTest(bytes32 testKey) external {
        _sync();
        if (!_live) revert NotLive(uint64(_begun));
        PlainRound storage r = _rounds[_begun];
        if (r.opened) revert TestAlreadyOpen(uint64(_begun));
        _requireFrom(r.t0 + T1);
        _requireBefore(r.t0 + T2);
        bytes32 dataKey = keccak256(abi.encode(testKey));
        if (keccak256(abi.encode(dataKey)) != _tasks[r.taskId].keyHash) revert WrongKey(testKey);

        r.opened = true;
        emit TestOpened(uint64(_begun), testKey);
    }

    /// @inheritdoc IPoUW
    function reveal(uint64 round, bytes32 manifestDigest, uint32 claimedScore, bytes32 salt, bytes calldata signature)
        external
        payable
    {
        PlainRound storage r = _rounds[round];
        if (!r.opened) revert TestNotOpen(round);
        _requireBefore(r.t0 + T3);
        PlainEntry storage entry = _entries[round][msg.sender];
        if (entry.state != EntryState.Committed) revert NothingCommitted(round, msg.sender);
        bytes32 commitment = commitmentOf(round, msg.sender, manifestDigest, salt);
        if (entry.commitment != commitment) revert CommitmentMismatch(commitment);
        uint256 minScore = _tasks[r.taskId].minScore;
        if (claimedScore < minScore) revert ClaimTooLow(claimedScore, uint32(minScore));
        if (claimedScore > MAX_SCORE) revert InvalidScore(claimedScore);
        bytes32 structHash = keccak256(abi.encode(REVEAL_TYPEHASH, round, msg.sender, manifestDigest, claimedScore));
        (address signer,,) = ECDSA.tryRecoverCalldata(_hashTypedDataV4(structHash), signature);
        if (signer != msg.sender) revert InvalidSignature(msg.sender);

        entry.state = EntryState.Revealed;
        entry.claim = claimedScore;
        entry.revealDigest = keccak256(abi.encode(manifestDigest, keccak256(signature)));
        ++r.reveals;
        emit Revealed(round, msg.sender, claimedScore, manifestDigest, salt, signature);

        _take(MINER_BOND);
    }

    /// @inheritdoc IPoUW
    function report(uint64 round, Verdict verdict, address winner, bytes32 evidenceDigest) external {
        if (_bits[msg.sender] == 0) revert NotOracle(msg.sender);
        PlainRound storage r = _rounds[round];
        if (!r.opened) revert TestNotOpen(round);
        _requireFrom(r.t0 + T3);
        _requireBefore(r.t0 + T4);
        if (_voted[round][msg.sender]) revert AlreadyVoted(round, msg.sender);
        _checkVerdict(round, verdict, winner);

        _voted[round][msg.sender] = true;
        address[] storage voters = _voters[round][_outcome(verdict, winner)];
        voters.push(msg.sender);
        if (voters.length >= THRESHOLD && r.verdict == Verdict.None) {
            r.verdict = verdict;
            r.winner = winner;
            r.evidenceDigest = evidenceDigest;
        }
        emit Reported(round, msg.sender, verdict, winner, evidenceDigest);
    }

    /// @inheritdoc IPoUW
    function challenge(uint64 round) external payable {
        PlainRound storage r = _rounds[round];
        if (ARBITER == address(0) || r.challenged) revert NotChallengeable(round);
        if (!r.opened) revert TestNotOpen(round);
        _requireFrom(r.t0 + T4);
        _requireBefore(r.t0 + T5);

        r.challenged = true;
        r.challenger = msg.sender;
        emit Challenged(round, msg.sender);

        _take(CHALLENGE_BOND);
    }

    /// @inheritdoc IPoUW
    function rule(uint64 round, Verdict verdict, address winner, bytes32 evidenceDigest) external {
        if (msg.sender != ARBITER) revert NotArbiter(msg.sender);
        PlainRound storage r = _rounds[round];
        if (!r.challenged || r.ruled) revert NotRulable(round);
        _requireBefore(r.t0 + T6);
        _checkVerdict(round, verdict, winner);

        bool changed = r.verdict != verdict || r.winner != winner;
        r.ruled = true;
        r.changed = changed;
        r.verdict = verdict;
        r.winner = winner;
        r.evidenceDigest = evidenceDigest;
        emit Ruled(round, verdict, winner, evidenceDigest, changed);
    }

    /// @inheritdoc IPoUW
    function finalize() external {
        _sync();
        if (!_live) revert NotLive(uint64(_begun));
        PlainRound storage r = _rounds[_begun];
        bool decided = r.ruled || block.timestamp >= r.t0 + (!r.opened ? T2 : r.challenged ? T6 : T5);
        if (!decided) revert NotDecided(uint64(_begun));

        _close(_begun);
    }

    /// @inheritdoc IPoUW
    function reclaim(uint64 round, address miner) external {
        PlainRound storage r = _rounds[round];
        if (r.header == 0) revert NotClosed(round);
        PlainEntry storage entry = _entries[round][miner];
        if (entry.state != EntryState.Revealed) revert NothingToReclaim(round, miner);
        bool burned = r.winner == address(0) ? r.verdict == Verdict.NoTrueClaim : _ranksAboveWinner(round, miner);

        entry.state = EntryState.Reclaimed;
        emit Reclaimed(round, miner, burned);

        _credit(burned ? address(0) : miner, MINER_BOND);
    }

    /// @inheritdoc IPoUW
    function lastHeader() external view returns (bytes32) {
        return _parentOf(_live ? _begun : _begun + 1);
    }

    /// @inheritdoc IPoUW
    function commitmentOf(uint64 round, address miner, bytes32 manifestDigest, bytes32 salt)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(COMMIT_TYPEHASH, block.chainid, address(this), round, miner, manifestDigest, salt));
    }

    function _close(uint256 number) private {
        PlainRound storage r = _rounds[number];
        PlainTask storage task = _tasks[r.taskId];
        Verdict verdict = r.verdict;
        uint256 fee = _feeOf(task.reward);
        uint256 bond = _bondOf(task.reward);
        _live = false;
        _writeHeader(number, r, task.specDigest);

        uint256 burned = 0;
        if (verdict == Verdict.None) burned += fee;
        else if (r.changed) _credit(r.challenger, fee + CHALLENGE_BOND);
        else fee = _payVoters(_voters[number][_outcome(verdict, r.winner)], fee);

        if (r.challenged && !r.changed) {
            if (r.ruled) burned += CHALLENGE_BOND;
            else _credit(r.challenger, CHALLENGE_BOND);
        }

        uint256 returned = 0;
        if (!r.opened || verdict == Verdict.Invalid) burned += bond;
        else returned += bond;

        if (verdict == Verdict.Winner) _credit(r.winner, task.reward - fee);
        else returned += task.reward - fee;
        _credit(task.publisher, returned);
        _credit(address(0), burned);
    }

    function _writeHeader(uint256 number, PlainRound storage r, bytes32 specDigest) private {
        uint32 score = 0;
        bytes22 revealDigest = 0;
        if (r.verdict == Verdict.Winner) {
            PlainEntry storage entry = _entries[number][r.winner];
            score = uint32(entry.claim);
            revealDigest = bytes22(entry.revealDigest);
        }
        r.header = keccak256(
            abi.encode(
                number,
                _parentOf(number),
                r.taskId,
                specDigest,
                r.poolHistory,
                r.verdict,
                r.winner,
                score,
                revealDigest,
                r.evidenceDigest,
                block.timestamp
            )
        );
        emit RoundClosed(
            uint64(number),
            r.verdict,
            r.winner,
            score,
            revealDigest,
            r.evidenceDigest,
            uint40(block.timestamp),
            r.header
        );
    }

    function _payVoters(address[] storage voters, uint256 fee) private returns (uint256) {
        uint256 share = fee / voters.length;
        for (uint256 i = 0; i < voters.length; ++i) {
            _credit(voters[i], share);
        }
        return share * voters.length;
    }

    function _checkVerdict(uint64 round, Verdict verdict, address winner) private view {
        bool fits = verdict == Verdict.Winner
            ? _entries[round][winner].state == EntryState.Revealed
            : winner == address(0) && verdict != Verdict.None
                && (verdict == Verdict.Invalid || _rounds[round].reveals != 0);
        if (!fits) revert InvalidVerdict(verdict, winner);
    }

    function _ranksAboveWinner(uint256 round, address miner) private view returns (bool) {
        address winner = _rounds[round].winner;
        PlainEntry storage entry = _entries[round][miner];
        PlainEntry storage best = _entries[round][winner];
        bool first = _tasks[_rounds[round].taskId].first;
        if (!first && entry.claim != best.claim) return entry.claim > best.claim;
        if (entry.committedAt != best.committedAt) return entry.committedAt < best.committedAt;
        return miner < winner;
    }

    function _parentOf(uint256 number) private view returns (bytes32) {
        return number <= 1 ? GENESIS : _rounds[number - 1].header;
    }
}
