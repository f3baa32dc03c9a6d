// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Escrow} from "./Escrow.sol";
import {IPoUW} from "./IPoUW.sol";
import {TaskQueue} from "./TaskQueue.sol";
import {Terms} from "./Terms.sol";

/// @title One arena of proof of useful work
/// @notice See `IPoUW` for the protocol and what every call requires, `Terms` for the deployment's parameters, `Escrow`
/// for money in and out.
/// @dev Every call follows the same beats: settle the pool, check, effect, event, transfer last. `_sync` is two ifs
/// that cannot revert or loop. A task is never selected before t1 of the live round, so its data key is never
/// released before that round's t6: rounds do not overlap, and whoever releases a key closes the round before.
contract PoUW is Terms, Escrow, EIP712 {
    using TaskQueue for mapping(uint64 taskId => Task);

    uint32 private constant MAX_SCORE = 1_000_000;
    bytes32 private constant COMMIT_TYPEHASH = keccak256(
        "Commit(uint256 chainId,address arena,uint64 round,address miner,bytes32 manifestDigest,bytes32 salt)"
    );
    bytes32 private constant REVEAL_TYPEHASH =
        keccak256("Reveal(uint64 round,address miner,bytes32 manifestDigest,uint32 claimedScore)");

    /// @dev The parent of the first header.
    bytes32 private immutable GENESIS;

    Arena private _arena;
    /// @dev `poolHistory` just before the selected task was selected.
    bytes32 private _selectedHistory;
    mapping(uint64 taskId => Task) private _tasks;
    mapping(uint64 round => Round) private _rounds;
    mapping(uint64 round => mapping(address miner => Entry)) private _entries;
    mapping(uint64 round => mapping(bytes32 outcome => uint16 bitmap)) private _votes;

    /// @inheritdoc IPoUW
    bytes32 public poolHistory;

    constructor(Parameters memory p) Terms(p) Escrow(p.asset) EIP712("PoUW", "1") {
        GENESIS = _domainSeparatorV4();
    }

    /// @inheritdoc IPoUW
    function publish(bytes32 specDigest, bytes32 keyHash, uint32 minScore, bool first, uint128 reward, uint64 hint)
        external
        payable
        returns (uint64 taskId)
    {
        _sync();
        if (reward < MIN_REWARD) revert RewardTooSmall(reward, MIN_REWARD);
        if (minScore > MAX_SCORE) revert InvalidScore(minScore);

        taskId = ++_arena.tasks;
        Task storage task = _tasks[taskId];
        (task.publisher, task.minScore, task.first, task.reward) = (msg.sender, minScore, first, reward);
        (task.specDigest, task.keyHash) = (specDigest, keyHash);
        _tasks.insert(taskId, hint);
        bytes32 history = _recordChange(PoolChange.Publish, taskId, msg.sender, specDigest, reward);
        emit TaskPublished(taskId, msg.sender, specDigest, keyHash, minScore, first, reward, history);
        _sync();

        _take(reward + _bondOf(reward));
    }

    /// @inheritdoc IPoUW
    function topUp(uint64 taskId, uint128 amount, uint64 hint) external payable {
        _sync();
        Task storage task = _pooledTaskOfCaller(taskId);
        if (amount == 0) revert NothingToAdd();

        uint128 before = task.reward;
        uint128 reward = before + amount;
        _tasks.remove(taskId);
        task.reward = reward;
        _tasks.insert(taskId, hint);
        bytes32 history = _recordChange(PoolChange.TopUp, taskId, msg.sender, task.specDigest, reward);
        emit TaskToppedUp(taskId, reward, history);

        _take(amount + _bondOf(reward) - _bondOf(before));
    }

    /// @inheritdoc IPoUW
    function cancel(uint64 taskId) external {
        _sync();
        Task storage task = _pooledTaskOfCaller(taskId);

        uint128 reward = task.reward;
        bytes32 specDigest = task.specDigest;
        _tasks.remove(taskId);
        delete _tasks[taskId];
        bytes32 history = _recordChange(PoolChange.Cancel, taskId, msg.sender, specDigest, 0);
        emit TaskCancelled(taskId, history);

        _credit(msg.sender, reward + _bondOf(reward));
    }

    /// @inheritdoc IPoUW
    function releaseDataKey(bytes32 dataKey) external {
        _sync();
        Arena memory a = _arena;
        if (a.selected == 0) revert NothingSelected();
        _requireFrom(a.selectedAt + OPENS);
        Task storage task = _tasks[a.selected];
        if (keccak256(abi.encode(dataKey)) != task.keyHash) revert WrongKey(dataKey);
        // Selected at or after t1 of the live round, OPENS later: not before its t6, so it is decided.
        if (a.live) _close(a.rounds);

        uint64 number = a.rounds + 1;
        uint64 taskId = a.selected;
        uint40 t0 = uint40(block.timestamp);
        bytes32 history = _selectedHistory;
        _arena = Arena({tasks: a.tasks, rounds: number, selected: 0, selectedAt: 0, live: true});
        task.round = uint40(number);
        Round storage r = _rounds[number];
        (r.taskId, r.t0, r.poolHistory) = (taskId, t0, history);
        emit DataKeyReleased(number, taskId, dataKey, t0, history);
    }

    /// @inheritdoc IPoUW
    function commit(uint64 round, bytes32 commitment) external {
        uint256 t0 = _rounds[round].t0;
        if (t0 == 0) revert NotLive(round);
        _requireBefore(t0 + T1);

        uint40 committedAt = uint40(block.timestamp);
        _entries[round][msg.sender] =
            Entry({committedAt: committedAt, claim: 0, state: EntryState.Committed, digest: bytes22(commitment)});
        emit Committed(round, msg.sender, commitment, committedAt);
    }

    /// @inheritdoc IPoUW
    function openTest(bytes32 testKey) external {
        _sync();
        Arena memory a = _arena;
        if (!a.live) revert NotLive(a.rounds);
        Round storage r = _rounds[a.rounds];
        if (r.opened) revert TestAlreadyOpen(a.rounds);
        _requireFrom(r.t0 + T1);
        _requireBefore(r.t0 + T2);
        bytes32 dataKey = keccak256(abi.encode(testKey));
        if (keccak256(abi.encode(dataKey)) != _tasks[r.taskId].keyHash) revert WrongKey(testKey);

        r.opened = true;
        emit TestOpened(a.rounds, testKey);
    }

    /// @inheritdoc IPoUW
    function reveal(uint64 round, bytes32 manifestDigest, uint32 claimedScore, bytes32 salt, bytes calldata signature)
        external
        payable
    {
        Round storage r = _rounds[round];
        if (!r.opened) revert TestNotOpen(round);
        _requireBefore(r.t0 + T3);
        Entry storage entry = _entries[round][msg.sender];
        if (entry.state != EntryState.Committed) revert NothingCommitted(round, msg.sender);
        bytes32 commitment = commitmentOf(round, msg.sender, manifestDigest, salt);
        if (entry.digest != bytes22(commitment)) revert CommitmentMismatch(commitment);
        uint32 minScore = _tasks[r.taskId].minScore;
        if (claimedScore < minScore) revert ClaimTooLow(claimedScore, minScore);
        if (claimedScore > MAX_SCORE) revert InvalidScore(claimedScore);
        bytes32 structHash = keccak256(abi.encode(REVEAL_TYPEHASH, round, msg.sender, manifestDigest, claimedScore));
        (address signer,,) = ECDSA.tryRecoverCalldata(_hashTypedDataV4(structHash), signature);
        if (signer != msg.sender) revert InvalidSignature(msg.sender);

        (entry.state, entry.claim) = (EntryState.Revealed, claimedScore);
        entry.digest = bytes22(keccak256(abi.encode(manifestDigest, keccak256(signature))));
        ++r.reveals;
        emit Revealed(round, msg.sender, claimedScore, manifestDigest, salt, signature);

        _take(MINER_BOND);
    }

    /// @inheritdoc IPoUW
    function report(uint64 round, Verdict verdict, address winner, bytes32 evidenceDigest) external {
        uint16 bit = _bits[msg.sender];
        if (bit == 0) revert NotOracle(msg.sender);
        Round storage r = _rounds[round];
        if (!r.opened) revert TestNotOpen(round);
        _requireFrom(r.t0 + T3);
        _requireBefore(r.t0 + T4);
        if (r.voted & bit != 0) revert AlreadyVoted(round, msg.sender);
        _checkVerdict(round, verdict, winner);

        mapping(bytes32 outcome => uint16) storage votesFor = _votes[round];
        bytes32 outcome = _outcome(verdict, winner);
        uint16 voters = votesFor[outcome] | bit;
        votesFor[outcome] = voters;
        r.voted |= bit;
        // More than half of the committee decides: once an outcome has the votes, no other can get them.
        if (_count(voters) >= THRESHOLD) {
            r.voters = voters;
            if (r.verdict == Verdict.None) {
                (r.verdict, r.winner, r.evidenceDigest) = (verdict, winner, evidenceDigest);
            }
        }
        emit Reported(round, msg.sender, verdict, winner, evidenceDigest);
    }

    /// @inheritdoc IPoUW
    function challenge(uint64 round) external payable {
        Round storage r = _rounds[round];
        if (ARBITER == address(0) || r.challenged) revert NotChallengeable(round);
        if (!r.opened) revert TestNotOpen(round);
        _requireFrom(r.t0 + T4);
        _requireBefore(r.t0 + T5);

        (r.challenged, r.challenger) = (true, msg.sender);
        emit Challenged(round, msg.sender);

        _take(CHALLENGE_BOND);
    }

    /// @inheritdoc IPoUW
    function rule(uint64 round, Verdict verdict, address winner, bytes32 evidenceDigest) external {
        if (msg.sender != ARBITER) revert NotArbiter(msg.sender);
        Round storage r = _rounds[round];
        if (!r.challenged || r.ruled) revert NotRulable(round);
        _requireBefore(r.t0 + T6);
        _checkVerdict(round, verdict, winner);

        bool changed = r.verdict != verdict || r.winner != winner;
        (r.ruled, r.changed, r.verdict, r.winner) = (true, changed, verdict, winner);
        r.evidenceDigest = evidenceDigest;
        emit Ruled(round, verdict, winner, evidenceDigest, changed);
    }

    /// @inheritdoc IPoUW
    function finalize() external {
        _sync();
        uint64 number = _arena.rounds;
        if (!_arena.live) revert NotLive(number);
        if (!_decided(_rounds[number])) revert NotDecided(number);

        _close(number);
    }

    /// @inheritdoc IPoUW
    function sync() external {
        _sync();
    }

    /// @inheritdoc IPoUW
    function reclaim(uint64 round, address miner) external {
        Round storage r = _rounds[round];
        if (r.header == 0) revert NotClosed(round);
        mapping(address => Entry) storage entriesOf = _entries[round];
        Entry storage entry = entriesOf[miner];
        if (entry.state != EntryState.Revealed) revert NothingToReclaim(round, miner);
        address winner = r.winner;
        bool burned = winner == address(0)
            ? r.verdict == Verdict.NoTrueClaim
            : _ranksAbove(_tasks[r.taskId].first, entry, miner, entriesOf[winner], winner);

        entry.state = EntryState.Reclaimed;
        emit Reclaimed(round, miner, burned);

        _credit(burned ? address(0) : miner, MINER_BOND);
    }

    /// @inheritdoc IPoUW
    function hintFor(uint128 reward) external view returns (uint64) {
        return _tasks.locate(reward, type(uint64).max, 0);
    }

    /// @inheritdoc IPoUW
    function pool(uint64 from, uint256 limit) external view returns (uint64[] memory) {
        if (from != 0 && !_tasks[from].pooled) revert TaskNotPooled(from);
        return _tasks.list(from, limit);
    }

    /// @inheritdoc IPoUW
    function arena() external view returns (Arena memory) {
        return _arena;
    }

    /// @inheritdoc IPoUW
    function tasks(uint64 taskId) external view returns (Task memory) {
        return _tasks[taskId];
    }

    /// @inheritdoc IPoUW
    function rounds(uint64 round) external view returns (Round memory) {
        return _rounds[round];
    }

    /// @inheritdoc IPoUW
    function entries(uint64 round, address miner) external view returns (Entry memory) {
        return _entries[round][miner];
    }

    /// @inheritdoc IPoUW
    function votes(uint64 round, Verdict verdict, address winner) external view returns (uint256) {
        return _votes[round][_outcome(verdict, winner)];
    }

    /// @inheritdoc IPoUW
    function lastHeader() external view returns (bytes32) {
        uint64 number = _arena.rounds;
        return _parentOf(_arena.live ? number : number + 1);
    }

    /// @inheritdoc IPoUW
    function commitmentOf(uint64 round, address miner, bytes32 manifestDigest, bytes32 salt)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(COMMIT_TYPEHASH, block.chainid, address(this), round, miner, manifestDigest, salt));
    }

    /// @dev Drops a selected task whose key did not come, then selects the head unless a round is before its t1.
    function _sync() private {
        Arena memory a = _arena;
        if (a.selected != 0 && block.timestamp >= a.selectedAt + CLOSES) {
            _drop(a.selected);
            a.selected = 0;
        }
        if (a.selected == 0) {
            uint64 head = _tasks.head();
            if (head != 0 && (!a.live || block.timestamp >= _rounds[a.rounds].t0 + T1)) _select(head);
        }
    }

    function _select(uint64 taskId) private {
        Task storage task = _tasks[taskId];
        uint40 selectedAt = uint40(block.timestamp);
        _tasks.remove(taskId);
        (_arena.selected, _arena.selectedAt) = (taskId, selectedAt);
        _selectedHistory = poolHistory;
        bytes32 history = _recordChange(PoolChange.Select, taskId, task.publisher, task.specDigest, task.reward);
        emit TaskSelected(taskId, selectedAt, history);
    }

    function _drop(uint64 taskId) private {
        Task storage task = _tasks[taskId];
        (_arena.selected, _arena.selectedAt) = (0, 0);
        emit TaskDropped(taskId);
        _credit(task.publisher, task.reward);
        _credit(address(0), _bondOf(task.reward));
    }

    /// @dev Credits reward, fee and bonds after the outcome table and writes the header. Whatever the committee does
    /// not get whole, the remainder of an equal division included, goes to the reward's receiver.
    function _close(uint64 number) private {
        Round storage r = _rounds[number];
        Task storage task = _tasks[r.taskId];
        Verdict verdict = r.verdict;
        (address publisher, uint256 reward) = (task.publisher, task.reward);
        uint256 fee = _feeOf(reward);
        uint256 bond = _bondOf(reward);
        _arena.live = false;
        _writeHeader(number, r, task.specDigest);

        uint256 burned = 0;
        if (verdict == Verdict.None) burned += fee;
        else if (r.changed) _credit(r.challenger, fee + CHALLENGE_BOND);
        else fee = _payVoters(r.voters, fee);

        if (r.challenged && !r.changed) {
            if (r.ruled) burned += CHALLENGE_BOND;
            else _credit(r.challenger, CHALLENGE_BOND);
        }

        uint256 returned = 0;
        if (!r.opened || verdict == Verdict.Invalid) burned += bond;
        else returned += bond;

        if (verdict == Verdict.Winner) _credit(r.winner, reward - fee);
        else returned += reward - fee;
        _credit(publisher, returned);
        _credit(address(0), burned);
    }

    function _writeHeader(uint64 number, Round storage r, bytes32 specDigest) private {
        uint40 closedAt = uint40(block.timestamp);
        (Verdict verdict, address winner, bytes32 evidenceDigest) = (r.verdict, r.winner, r.evidenceDigest);
        uint32 score = 0;
        bytes22 revealDigest = 0;
        if (verdict == Verdict.Winner) {
            Entry storage entry = _entries[number][winner];
            (score, revealDigest) = (entry.claim, entry.digest);
        }
        bytes32 header = keccak256(
            abi.encode(
                number,
                _parentOf(number),
                r.taskId,
                specDigest,
                r.poolHistory,
                verdict,
                winner,
                score,
                revealDigest,
                evidenceDigest,
                closedAt
            )
        );
        r.header = header;
        emit RoundClosed(number, verdict, winner, score, revealDigest, evidenceDigest, closedAt, header);
    }

    /// @dev Returns what was paid: equal shares, rounded down.
    function _payVoters(uint256 voters, uint256 fee) private returns (uint256) {
        uint256 count = _count(voters);
        uint256 share = fee / count;
        for (uint256 i = 0; voters >> i != 0; ++i) {
            if (voters >> i & 1 != 0) _credit(_oracleAt(i), share);
        }
        return share * count;
    }

    function _recordChange(PoolChange kind, uint64 taskId, address publisher, bytes32 specDigest, uint128 rewardAfter)
        private
        returns (bytes32 history)
    {
        history = keccak256(abi.encode(poolHistory, kind, taskId, publisher, specDigest, rewardAfter));
        poolHistory = history;
    }

    function _pooledTaskOfCaller(uint64 taskId) private view returns (Task storage task) {
        task = _tasks[taskId];
        if (!task.pooled) revert TaskNotPooled(taskId);
        if (task.publisher != msg.sender) revert NotPublisher(taskId, msg.sender);
    }

    function _decided(Round storage r) private view returns (bool) {
        if (r.ruled) return true;
        return block.timestamp >= r.t0 + (!r.opened ? T2 : r.challenged ? T6 : T5);
    }

    function _checkVerdict(uint64 round, Verdict verdict, address winner) private view {
        bool fits = verdict == Verdict.Winner
            ? _entries[round][winner].state == EntryState.Revealed
            : winner == address(0) && verdict != Verdict.None
                && (verdict == Verdict.Invalid || _rounds[round].reveals != 0);
        if (!fits) revert InvalidVerdict(verdict, winner);
    }

    function _ranksAbove(bool first, Entry storage entry, address miner, Entry storage other, address otherMiner)
        private
        view
        returns (bool)
    {
        if (!first && entry.claim != other.claim) return entry.claim > other.claim;
        if (entry.committedAt != other.committedAt) return entry.committedAt < other.committedAt;
        return miner < otherMiner;
    }

    function _parentOf(uint64 number) private view returns (bytes32) {
        return number <= 1 ? GENESIS : _rounds[number - 1].header;
    }

    function _outcome(Verdict verdict, address winner) private pure returns (bytes32) {
        return keccak256(abi.encode(verdict, winner));
    }

    function _count(uint256 bitmap) private pure returns (uint256 ones) {
        for (; bitmap != 0; bitmap &= bitmap - 1) {
            ++ones;
        }
    }
}
