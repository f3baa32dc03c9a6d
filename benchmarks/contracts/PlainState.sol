// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Escrow} from "../../contracts/Escrow.sol";
import {IPoUW} from "../../contracts/IPoUW.sol";
import {Terms} from "../../contracts/Terms.sol";

/// @title What the plain port keeps
/// @notice The arena as one would write it down first: a word for every field, whole digests, votes as flags and lists.
/// @dev Shares `Terms` (immutable parameters) and `Escrow` with `PoUW`, so that only layout and order are compared.
/// The fields' order keeps small types apart, or the compiler would pack them.
abstract contract PlainState is Terms, Escrow, EIP712 {
    struct PlainTask {
        address publisher;
        uint256 minScore;
        uint256 round;
        bool pooled;
        uint256 reward;
        bool first;
        uint256 above;
        uint256 below;
        bytes32 specDigest;
        bytes32 keyHash;
    }

    struct PlainRound {
        uint256 taskId;
        bool opened;
        uint256 t0;
        bool challenged;
        uint256 reveals;
        bool ruled;
        bytes32 poolHistory;
        bool changed;
        bytes32 evidenceDigest;
        Verdict verdict;
        bytes32 header;
        address winner;
        address challenger;
    }

    struct PlainEntry {
        uint256 committedAt;
        EntryState state;
        uint256 claim;
        bytes32 commitment;
        bytes32 revealDigest;
    }

    uint256 internal constant MAX_SCORE = 1_000_000;

    uint256 internal _published;
    uint256 internal _begun;
    uint256 internal _selected;
    uint256 internal _selectedAt;
    bool internal _live;
    bytes32 internal _selectedHistory;
    mapping(uint256 taskId => PlainTask) internal _tasks;
    mapping(uint256 round => PlainRound) internal _rounds;
    mapping(uint256 round => mapping(address miner => PlainEntry)) internal _entries;
    mapping(uint256 round => mapping(address oracle => bool)) internal _voted;
    mapping(uint256 round => mapping(bytes32 outcome => address[])) internal _voters;

    /// @inheritdoc IPoUW
    bytes32 public poolHistory;

    /// @inheritdoc IPoUW
    function arena() external view returns (Arena memory) {
        return Arena({
            tasks: uint64(_published),
            rounds: uint64(_begun),
            selected: uint64(_selected),
            selectedAt: uint40(_selectedAt),
            live: _live
        });
    }

    /// @inheritdoc IPoUW
    function tasks(uint64 taskId) external view returns (Task memory) {
        PlainTask storage task = _tasks[taskId];
        return Task({
            publisher: task.publisher,
            minScore: uint32(task.minScore),
            round: uint40(task.round),
            pooled: task.pooled,
            first: task.first,
            reward: uint128(task.reward),
            above: uint64(task.above),
            below: uint64(task.below),
            specDigest: task.specDigest,
            keyHash: task.keyHash
        });
    }

    /// @inheritdoc IPoUW
    function rounds(uint64 round) external view returns (Round memory) {
        PlainRound storage r = _rounds[round];
        return Round({
            taskId: uint64(r.taskId),
            t0: uint40(r.t0),
            reveals: uint32(r.reveals),
            opened: r.opened,
            challenged: r.challenged,
            ruled: r.ruled,
            changed: r.changed,
            verdict: r.verdict,
            voted: _votedIn(round),
            voters: _quorumOf(_voters[round][_outcome(r.verdict, r.winner)]),
            winner: r.winner,
            challenger: r.challenger,
            poolHistory: r.poolHistory,
            evidenceDigest: r.evidenceDigest,
            header: r.header
        });
    }

    /// @inheritdoc IPoUW
    function entries(uint64 round, address miner) external view returns (Entry memory) {
        PlainEntry storage entry = _entries[round][miner];
        return Entry({
            committedAt: uint40(entry.committedAt),
            claim: uint32(entry.claim),
            state: entry.state,
            digest: bytes22(entry.state > EntryState.Committed ? entry.revealDigest : entry.commitment)
        });
    }

    /// @inheritdoc IPoUW
    function votes(uint64 round, Verdict verdict, address winner) external view returns (uint256) {
        return _bitsOf(_voters[round][_outcome(verdict, winner)]);
    }

    function _outcome(Verdict verdict, address winner) internal pure returns (bytes32) {
        return keccak256(abi.encode(verdict, winner));
    }

    function _quorumOf(address[] storage oracles) private view returns (uint16) {
        return oracles.length < THRESHOLD ? 0 : _bitsOf(oracles);
    }

    function _bitsOf(address[] storage oracles) private view returns (uint16 bits) {
        for (uint256 i = 0; i < oracles.length; ++i) {
            bits |= _bits[oracles[i]];
        }
    }

    function _votedIn(uint256 round) private view returns (uint16 bits) {
        address[] memory oracles = this.parameters().oracles;
        for (uint256 i = 0; i < oracles.length; ++i) {
            if (_voted[round][oracles[i]]) bits |= _bits[oracles[i]];
        }
    }
}
