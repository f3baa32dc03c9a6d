// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Proof of useful work: one arena
/// @notice Publishers escrow rewards for segmentation models, miners train them, oracles score them on a hidden test
/// set, the highest true claim is paid. After Li, Chenli, Xu, Jung and Shi, "Exploiting Computation Power of
/// Blockchain for Biomedical Image Segmentation" (CVPR Workshops 2019); sections in brackets are the paper's.
/// @dev There is no owner: every parameter is fixed at deployment. Times are seconds since the epoch; every window
/// includes its start and excludes its end. Scores are parts per million (1,000,000 = Dice 1.0). Amounts are in the
/// asset's smallest unit. The phase follows from recorded timestamps and is never stored:
///
///   selectedAt                        the call that selects
///   opens  = selectedAt + PHASE2      then releaseDataKey
///   closes = opens + keyWindow        no key by now: the task is dropped
///   t0                                data key released: Phase 1 begins
///   t1 = t0 + phase1                  commit before; openTest from here; the next head may be selected
///   t2 = t1 + keyWindow               test not open by now: no winner, publisher's bond burned
///   t3 = t2 + revealWindow            reveal before (once open)
///   t4 = t3 + reportWindow            report in [t3, t4)
///   t5 = t4 + challengeWindow         challenge in [t4, t5)
///   t6 = t5 + rulingWindow            rule before; t6 = t1 + PHASE2
///
/// Rank of a reveal: higher claim (not compared where the task is `first`), then earlier last commit, then lower
/// address. Every reveal ranked above the winner is thereby rejected. Burned means credited to address(0).
///
/// A `first` task is the contract that the paper prints as Fig. 10, made safe. The printed one
/// - pays every caller that reaches the accuracy: here a task's reward leaves escrow once, to one winner, and whoever
///   asks for more than the truth loses a bond;
/// - learns the link from the call itself, so that whoever sees it coming sends it first: here the earliest commitment
///   counts, which tells nothing and opens for its owner alone, in one round of one arena on one chain;
/// - uses fields under other names than it declares: here one compiled interface has the words, and events, errors,
///   package and documents have the same.
interface IPoUW {
    // ------------------------------------------------------------------ types

    /// @notice Outcome of a round. `None`: no reveal, no quorum, or a test set that was never opened.
    enum Verdict {
        None,
        Winner,
        NoTrueClaim,
        Invalid
    }

    /// @notice How far one miner got in one round.
    enum EntryState {
        None,
        Committed,
        Revealed,
        Reclaimed
    }

    /// @notice What changed in the pool; the kinds that `poolHistory` rolls over.
    enum PoolChange {
        None,
        Publish,
        TopUp,
        Cancel,
        Select
    }

    /// @notice Immutables of a deployment.
    /// @param asset address(0) for ETH, else an ERC-20 that delivers exactly what it is told to
    /// @param phase1 seconds of training
    /// @param keyWindow seconds to release either key
    /// @param revealWindow seconds to reveal, after the key window
    /// @param reportWindow seconds to vote
    /// @param challengeWindow seconds to challenge (0 without an arbiter)
    /// @param rulingWindow seconds to rule (0 without an arbiter)
    /// @param minReward smallest reward
    /// @param publisherBondBps publisher's bond, in 1/10,000 of the reward
    /// @param oracleFeeBps the committee's fee, in 1/10,000 of the reward, taken out of it
    /// @param minerBond bond of one reveal
    /// @param challengeBond bond of one challenge
    /// @param oracles the committee, 1 to 16 members
    /// @param threshold votes that decide; more than half of the committee
    /// @param arbiter rules on challenges; address(0): no challenges
    struct Parameters {
        address asset;
        uint40 phase1;
        uint40 keyWindow;
        uint40 revealWindow;
        uint40 reportWindow;
        uint40 challengeWindow;
        uint40 rulingWindow;
        uint128 minReward;
        uint16 publisherBondBps;
        uint16 oracleFeeBps;
        uint128 minerBond;
        uint128 challengeBond;
        address[] oracles;
        uint8 threshold;
        address arbiter;
    }

    /// @notice A published task.
    /// @param publisher who escrowed the reward
    /// @param minScore smallest claim that may be revealed
    /// @param round its round, 0 until the data key is released
    /// @param pooled whether it waits in the pool
    /// @param first whether the earliest commit wins instead of the highest claim (Fig. 10)
    /// @param reward escrowed reward
    /// @param above neighbour with the next higher rank in the pool, 0 at the head
    /// @param below neighbour with the next lower rank in the pool, 0 at the end
    /// @param specDigest sha2-256 of the TaskSpec
    /// @param keyHash keccak256(dataKey), where dataKey = keccak256(testKey)
    struct Task {
        address publisher;
        uint32 minScore;
        uint40 round;
        bool pooled;
        bool first;
        uint128 reward;
        uint64 above;
        uint64 below;
        bytes32 specDigest;
        bytes32 keyHash;
    }

    /// @notice A round.
    /// @param taskId the task it runs
    /// @param t0 when the data key was released
    /// @param reveals number of reveals
    /// @param opened whether the test set is open
    /// @param challenged whether it was challenged
    /// @param ruled whether the arbiter ruled
    /// @param changed whether the ruling changed the outcome
    /// @param verdict the outcome so far
    /// @param voted bitmap of the oracles that voted
    /// @param voters bitmap of the oracles that voted for the committee's outcome, whatever was ruled
    /// @param winner the winner, where the verdict is `Winner`
    /// @param challenger who challenged
    /// @param poolHistory the pool's history just before the task was selected
    /// @param evidenceDigest of the vote that completed the quorum, or of the ruling
    /// @param header hash of the header; 0 until the round is closed
    struct Round {
        uint64 taskId;
        uint40 t0;
        uint32 reveals;
        bool opened;
        bool challenged;
        bool ruled;
        bool changed;
        Verdict verdict;
        uint16 voted;
        uint16 voters;
        address winner;
        address challenger;
        bytes32 poolHistory;
        bytes32 evidenceDigest;
        bytes32 header;
    }

    /// @notice One miner in one round, in one word.
    /// @param committedAt time of the last commit; breaks ties
    /// @param claim claimed score, once revealed
    /// @param state how far the miner got
    /// @param digest first 22 bytes of the commitment, once revealed the revealDigest
    struct Entry {
        uint40 committedAt;
        uint32 claim;
        EntryState state;
        bytes22 digest;
    }

    /// @notice What is going on: at most one selected task and one live round.
    /// @param tasks number of tasks ever published; the last task's id
    /// @param rounds number of rounds ever begun; the last round's number
    /// @param selected the selected task, 0 if none
    /// @param selectedAt when it was selected
    /// @param live whether the last round is not closed yet
    struct Arena {
        uint64 tasks;
        uint64 rounds;
        uint64 selected;
        uint40 selectedAt;
        bool live;
    }

    // ------------------------------------------------------------------ events

    /// @notice A task entered the pool.
    event TaskPublished(
        uint64 indexed taskId,
        address indexed publisher,
        bytes32 specDigest,
        bytes32 keyHash,
        uint32 minScore,
        bool first,
        uint128 reward,
        bytes32 poolHistory
    );
    /// @notice A pooled task's reward was raised to `reward`.
    event TaskToppedUp(uint64 indexed taskId, uint128 reward, bytes32 poolHistory);
    /// @notice A pooled task was taken back.
    event TaskCancelled(uint64 indexed taskId, bytes32 poolHistory);
    /// @notice The head of the pool was selected.
    event TaskSelected(uint64 indexed taskId, uint40 selectedAt, bytes32 poolHistory);
    /// @notice The selected task's data key did not come in time.
    event TaskDropped(uint64 indexed taskId);
    /// @notice A round began; its sealed training data can be opened.
    event DataKeyReleased(uint64 indexed round, uint64 indexed taskId, bytes32 dataKey, uint40 t0, bytes32 poolHistory);
    /// @notice A miner committed, or overwrote the commitment.
    event Committed(uint64 indexed round, address indexed miner, bytes32 commitment, uint40 committedAt);
    /// @notice The sealed test set can be opened.
    event TestOpened(uint64 indexed round, bytes32 testKey);
    /// @notice A miner opened the commitment.
    event Revealed(
        uint64 indexed round,
        address indexed miner,
        uint32 claimedScore,
        bytes32 manifestDigest,
        bytes32 salt,
        bytes signature
    );
    /// @notice An oracle voted.
    event Reported(
        uint64 indexed round, address indexed oracle, Verdict verdict, address winner, bytes32 evidenceDigest
    );
    /// @notice The outcome, or its absence, was challenged.
    event Challenged(uint64 indexed round, address indexed challenger);
    /// @notice The arbiter ruled.
    event Ruled(uint64 indexed round, Verdict verdict, address winner, bytes32 evidenceDigest, bool changed);
    /// @notice A round closed and wrote its header.
    event RoundClosed(
        uint64 indexed round,
        Verdict verdict,
        address winner,
        uint32 score,
        bytes22 revealDigest,
        bytes32 evidenceDigest,
        uint40 closedAt,
        bytes32 header
    );
    /// @notice A revealer's bond went back, or was burned.
    event Reclaimed(uint64 indexed round, address indexed miner, bool burned);
    /// @notice An account can withdraw `amount` more; address(0): burned.
    event Credited(address indexed account, uint256 amount);
    /// @notice An account took its credit.
    event Withdrawn(address indexed account, address indexed to, uint256 amount);

    // ------------------------------------------------------------------ errors

    /// @notice A deployment parameter makes no sense.
    error InvalidParameter(string name);
    /// @notice The call must bring exactly `expected`.
    error WrongPayment(uint256 sent, uint256 expected);
    /// @notice The reward is below the arena's minimum.
    error RewardTooSmall(uint256 reward, uint256 minimum);
    /// @notice A score is above 1,000,000 ppm.
    error InvalidScore(uint256 score);
    /// @notice Only the publisher may do this.
    error NotPublisher(uint64 taskId, address caller);
    /// @notice The task does not wait in the pool.
    error TaskNotPooled(uint64 taskId);
    /// @notice Raising a reward by nothing.
    error NothingToAdd();
    /// @notice No task is selected.
    error NothingSelected();
    /// @notice The key does not hash to what was published.
    error WrongKey(bytes32 key);
    /// @notice The window begins at `opens`.
    error TooEarly(uint256 time, uint256 opens);
    /// @notice The window ended at `closed`.
    error TooLate(uint256 time, uint256 closed);
    /// @notice No such round is live.
    error NotLive(uint64 round);
    /// @notice The test set of the round is not open.
    error TestNotOpen(uint64 round);
    /// @notice The test set of the round is open already.
    error TestAlreadyOpen(uint64 round);
    /// @notice The miner has no open commitment in the round.
    error NothingCommitted(uint64 round, address miner);
    /// @notice The revealed values do not match the commitment.
    error CommitmentMismatch(bytes32 computed);
    /// @notice The claim is below the task's minimum.
    error ClaimTooLow(uint32 claimedScore, uint32 minScore);
    /// @notice The EIP-712 signature is not the miner's.
    error InvalidSignature(address miner);
    /// @notice Only a member of the committee may do this.
    error NotOracle(address caller);
    /// @notice The oracle voted already.
    error AlreadyVoted(uint64 round, address oracle);
    /// @notice The verdict does not fit what was revealed.
    error InvalidVerdict(Verdict verdict, address winner);
    /// @notice Only the arbiter may do this.
    error NotArbiter(address caller);
    /// @notice The deployment has no arbiter, or the round was challenged already.
    error NotChallengeable(uint64 round);
    /// @notice The round was not challenged, or was ruled on already.
    error NotRulable(uint64 round);
    /// @notice The live round is not decided yet.
    error NotDecided(uint64 round);
    /// @notice The round is not closed.
    error NotClosed(uint64 round);
    /// @notice The miner has no bond to reclaim in the round.
    error NothingToReclaim(uint64 round, address miner);
    /// @notice The caller has no credit.
    error NothingToWithdraw(address account);
    /// @notice Money cannot go to address(0).
    error InvalidReceiver();
    /// @notice The receiver refused the money.
    error PaymentFailed(address to, uint256 amount);

    // ------------------------------------------------------------------ tasks

    /// @notice Publish a task: escrow the reward and the publisher's bond, enter the pool by reward.
    /// @dev O(1) with a fresh hint; from a stale one the caller pays for the walk. An idle arena selects at once.
    ///
    /// Requirements:
    /// - the reward is at least `minReward`, the minimum score at most 1,000,000;
    /// - the call brings exactly reward plus bond.
    /// @param specDigest sha2-256 of the TaskSpec
    /// @param keyHash keccak256(dataKey), where dataKey = keccak256(testKey)
    /// @param minScore smallest claim that may be revealed, in ppm
    /// @param first whether the earliest commit wins instead of the highest claim
    /// @param reward escrowed reward
    /// @param hint a pooled task that ranks right above the new one (`hintFor`), 0 for the head
    /// @return taskId the new task's id
    function publish(bytes32 specDigest, bytes32 keyHash, uint32 minScore, bool first, uint128 reward, uint64 hint)
        external
        payable
        returns (uint64 taskId);

    /// @notice Raise the reward (and with it the bond) of a pooled task, which moves up.
    ///
    /// Requirements:
    /// - the task is pooled, the caller its publisher, the amount not 0;
    /// - the call brings exactly the amount plus what the bond grows by.
    function topUp(uint64 taskId, uint128 amount, uint64 hint) external payable;

    /// @notice Take a pooled task back; reward and bond return whole, as a credit.
    ///
    /// Requirements:
    /// - the task is pooled, the caller its publisher.
    function cancel(uint64 taskId) external;

    /// @notice Release the selected task's data key: close the round before, begin the next.
    ///
    /// Requirements:
    /// - a task is selected and the time in [opens, closes);
    /// - keccak256(dataKey) is the task's `keyHash`.
    function releaseDataKey(bytes32 dataKey) external;

    // ------------------------------------------------------------------ rounds

    /// @notice Commit to a model, or overwrite the commitment; the last one counts and its time breaks ties.
    ///
    /// Requirements:
    /// - the round is in Phase 1.
    /// @param round the live round
    /// @param commitment see `commitmentOf`
    function commit(uint64 round, bytes32 commitment) external;

    /// @notice Open the live round's test set.
    ///
    /// Requirements:
    /// - a round is live, its test set not open, the time in [t1, t2);
    /// - keccak256(keccak256(testKey)) is the task's `keyHash`.
    function openTest(bytes32 testKey) external;

    /// @notice Open a commitment: claim a score, name the manifest, leave a bond.
    /// @dev A claim is a guarantee: it is true iff the committee's own recomputation is at least the claim, the
    /// content could be retrieved, and the spec's caps and provenance policy are met. Not revealing costs nothing.
    ///
    /// Requirements:
    /// - the test set is open and the time before t3;
    /// - the caller has a commitment in the round that `manifestDigest` and `salt` open;
    /// - the claim is at least the task's `minScore` and at most 1,000,000;
    /// - `signature` is the caller's EIP-712 signature of the reveal (65 bytes, low s);
    /// - the call brings exactly the miner's bond.
    function reveal(uint64 round, bytes32 manifestDigest, uint32 claimedScore, bytes32 salt, bytes calldata signature)
        external
        payable;

    /// @notice Vote on the outcome. `threshold` equal votes are the outcome.
    ///
    /// Requirements:
    /// - the caller is of the committee and has not voted in this round;
    /// - the test set was opened and the time is in [t3, t4);
    /// - `Winner` names a miner who revealed, any other verdict names nobody; `NoTrueClaim` needs a reveal.
    function report(uint64 round, Verdict verdict, address winner, bytes32 evidenceDigest) external;

    /// @notice Challenge the outcome, or its absence.
    ///
    /// Requirements:
    /// - the arena has an arbiter, the round was not challenged yet;
    /// - the test set was opened and the time is in [t4, t5);
    /// - the call brings exactly the challenge bond.
    function challenge(uint64 round) external payable;

    /// @notice Rule on a challenge; the ruling is the outcome.
    ///
    /// Requirements:
    /// - the caller is the arbiter, the round challenged and not ruled on, the time before t6;
    /// - the verdict fits what was revealed, as in `report`.
    function rule(uint64 round, Verdict verdict, address winner, bytes32 evidenceDigest) external;

    /// @notice Close the live round: credit everybody, write the header.
    ///
    /// Requirements:
    /// - a round is live and decided.
    function finalize() external;

    /// @notice Settle the pool: drop a selected task whose key did not come, select the next.
    function sync() external;

    // ------------------------------------------------------------------ money

    /// @notice Credit a revealer's bond once the round is closed: back to the miner, or burned where the claim
    /// ranks above the winner or no claim was true.
    ///
    /// Requirements:
    /// - the round is closed and the miner revealed in it and did not reclaim yet.
    function reclaim(uint64 round, address miner) external;

    /// @notice Take the caller's whole credit.
    ///
    /// Requirements:
    /// - the caller has credit, `to` is not address(0) and accepts.
    function withdraw(address to) external returns (uint256 amount);

    // ------------------------------------------------------------------ views

    /// @notice The commitment to a manifest: keccak256(abi.encode(COMMIT_TYPEHASH, chainid, this, round, miner,
    /// manifestDigest, salt)).
    function commitmentOf(uint64 round, address miner, bytes32 manifestDigest, bytes32 salt)
        external
        view
        returns (bytes32);

    /// @notice The hint that makes `publish` O(1) for this reward now: the lowest task that ranks above it.
    function hintFor(uint128 reward) external view returns (uint64);

    /// @notice Ids in the pool's order, at most `limit`, after task `from` (0: from the head).
    function pool(uint64 from, uint256 limit) external view returns (uint64[] memory taskIds);

    /// @notice The state of selection and rounds.
    function arena() external view returns (Arena memory);

    /// @notice A task by its id; empty where it was cancelled or never published. Task 0 is the two ends of the pool.
    function tasks(uint64 taskId) external view returns (Task memory);

    /// @notice A round by its number; empty where it has not begun.
    function rounds(uint64 round) external view returns (Round memory);

    /// @notice A miner's entry in a round.
    function entries(uint64 round, address miner) external view returns (Entry memory);

    /// @notice Bitmap of the oracles that voted for an outcome.
    function votes(uint64 round, Verdict verdict, address winner) external view returns (uint256);

    /// @notice What an account can withdraw; of address(0): what was burned.
    function credits(address account) external view returns (uint256);

    /// @notice Rolling hash over every change of the pool.
    function poolHistory() external view returns (bytes32);

    /// @notice The header of the last closed round; before the first, the EIP-712 domain separator.
    function lastHeader() external view returns (bytes32);

    /// @notice The deployment's parameters.
    function parameters() external view returns (Parameters memory);
}
