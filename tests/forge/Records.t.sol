// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Cheats, vm} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title What every call writes down
/// @notice The very events of each call in their order, after docs/protocol.md, and what the views answer then.
contract RecordsTest is Stage {
    uint128 private constant REWARD = 100_003;
    uint128 private constant BOND = 10_000;
    uint128 private constant FEE = 5_000;
    uint256 private constant START = 1_800_000_000;

    Cheats.Log[] private _expected;
    bytes32 private _history;

    function setUp() public {
        vm.warp(START);
        _deploy(_usual());
    }

    function test_publish__idleArena__recordsAndSelects() public {
        uint256 value = _fund(publisher, REWARD + BOND);
        _expectChange(IPoUW.PoolChange.Publish, 1, REWARD, IPoUW.TaskPublished.selector);
        _expectSelection(1, publisher, REWARD, START);
        vm.recordLogs();
        vm.prank(publisher);
        _equal(arena.publish{value: value}(SPEC, KEY_HASH, 500_000, true, REWARD, 0), 1, "its id");
        _compare();
        IPoUW.Task memory task = arena.tasks(1);
        require(task.publisher == publisher && task.specDigest == SPEC && task.keyHash == KEY_HASH, "the task");
        require(task.minScore == 500_000 && task.first && !task.pooled && task.reward == REWARD, "its terms");
        require(task.round == 0 && task.above == 0 && task.below == 0, "no longer in the pool");
        IPoUW.Arena memory a = arena.arena();
        require(a.tasks == 1 && a.rounds == 0 && a.selected == 1 && a.selectedAt == START && !a.live, "selected");
        require(arena.poolHistory() == _history, "the pool's history");
    }

    function test_publish__overdueSelection__dropsAndSelectsFirst() public {
        _publish(publisher, REWARD, false, 0);
        _forget(publisher, REWARD, 1, START);
        uint256 closes = START + _phase2() + terms.keyWindow;
        vm.warp(closes);
        _note(abi.encode(IPoUW.TaskDropped.selector, 1), "");
        _expectCredit(publisher, REWARD);
        _expectCredit(address(0), BOND);
        _expectChange(IPoUW.PoolChange.Publish, 2, 2 * REWARD, IPoUW.TaskPublished.selector);
        _expectSelection(2, publisher, 2 * REWARD, closes);
        uint256 value = _fund(publisher, 2 * REWARD + 20_000);
        vm.recordLogs();
        vm.prank(publisher);
        arena.publish{value: value}(SPEC, KEY_HASH, 500_000, true, 2 * REWARD, 0);
        _compare();
    }

    function test_publish__owedSelection__isMadeBeforeTheNewTaskEnters() public {
        Times memory t = _begin(REWARD, false);
        _publish(publisher, 2005, false, 0);
        _history = arena.poolHistory();
        vm.warp(t.t1);
        _expectSelection(2, publisher, 2005, t.t1);
        _expectChange(IPoUW.PoolChange.Publish, 3, REWARD, IPoUW.TaskPublished.selector);
        uint256 value = _fund(publisher, REWARD + BOND);
        vm.recordLogs();
        vm.prank(publisher);
        arena.publish{value: value}(SPEC, KEY_HASH, 500_000, true, REWARD, 0);
        _compare();
        require(arena.arena().selected == 2, "not the richer one that came after");
    }

    function test_poolOfTasks__changed__recordsEveryChange() public {
        _publish(publisher, REWARD, false, 0);
        _publish(publisher, 2005, false, 0);
        _publish(publisher, 1009, false, 0);
        _history = arena.poolHistory();
        _expectChange(IPoUW.PoolChange.TopUp, 3, 2009, IPoUW.TaskToppedUp.selector);
        uint256 value = _fund(publisher, 1100);
        vm.recordLogs();
        vm.prank(publisher);
        arena.topUp{value: value}(3, 1000, 0);
        _compare();
        require(arena.tasks(3).reward == 2009 && arena.pool(0, 9)[0] == 3, "moved up");
        _expectChange(IPoUW.PoolChange.Cancel, 2, 0, IPoUW.TaskCancelled.selector);
        _expectCredit(publisher, 2205);
        vm.recordLogs();
        vm.prank(publisher);
        arena.cancel(2);
        _compare();
        IPoUW.Task memory gone = arena.tasks(2);
        require(gone.publisher == address(0) && gone.reward == 0 && gone.keyHash == 0 && !gone.pooled, "forgotten");
        require(arena.pool(0, 9).length == 1 && arena.pool(3, 9).length == 0, "one is left");
        require(arena.poolHistory() == _history, "the pool's history");
    }

    function test_pool__paged__continuesAfterEachTask() public {
        _publish(publisher, REWARD, false, 0);
        for (uint128 i = 0; i < 5; ++i) {
            _publish(publisher, 2000 - i, false, 0);
        }
        for (uint64 from = 0; from < 7; ++from) {
            if (from == 1) continue;
            for (uint256 limit = 0; limit < 7; ++limit) {
                uint64[] memory page = arena.pool(from, limit);
                uint64 first = from == 0 ? 2 : from + 1;
                uint256 left = 7 - first;
                _equal(page.length, left < limit ? left : limit, "no more than asked for");
                for (uint64 i = 0; i < page.length; ++i) {
                    _equal(page[i], first + i, "in order");
                }
            }
        }
    }

    function test_releaseDataKey__inTime__recordsTheRound() public {
        _publish(publisher, REWARD, false, 0);
        _publish(publisher, 2005, false, 0);
        bytes32 before = _historyBeforeFirstSelection();
        uint256 t0 = START + _phase2() + 7;
        vm.warp(t0);
        _note(abi.encode(IPoUW.DataKeyReleased.selector, 1, 1), abi.encode(DATA_KEY, t0, before));
        vm.recordLogs();
        arena.releaseDataKey(DATA_KEY);
        _compare();
        IPoUW.Arena memory a = arena.arena();
        require(a.tasks == 2 && a.rounds == 1 && a.selected == 0 && a.selectedAt == 0 && a.live, "live");
        IPoUW.Round memory r = arena.rounds(1);
        require(r.taskId == 1 && r.t0 == t0 && r.poolHistory == before && r.header == 0, "the round");
        _equal(arena.tasks(1).round, 1, "the task's round");
    }

    function test_round__whole__recordsEveryCall() public {
        Times memory t = _begin(REWARD, false);
        bytes32 genesis = arena.lastHeader();
        require(genesis == _domain(), "before the first header");
        address miner = _miner(0);

        vm.warp(t.t0 + 5);
        bytes32 word = _commitment(1, miner);
        _note(abi.encode(IPoUW.Committed.selector, 1, miner), abi.encode(word, t.t0 + 5));
        vm.recordLogs();
        _commit(1, 0);
        _compare();
        IPoUW.Entry memory entry = arena.entries(1, miner);
        require(entry.state == IPoUW.EntryState.Committed && entry.digest == bytes22(word), "committed");
        require(entry.committedAt == t.t0 + 5 && entry.claim == 0, "then");

        vm.warp(t.t1);
        _note(abi.encode(IPoUW.TestOpened.selector, 1), abi.encode(TEST_KEY));
        vm.recordLogs();
        arena.openTest(TEST_KEY);
        _compare();

        bytes memory signature = _signature(1, 0, 800_000);
        _note(
            abi.encode(IPoUW.Revealed.selector, 1, miner),
            abi.encode(800_000, _manifest(1, miner), _salt(1, miner), signature)
        );
        vm.recordLogs();
        _reveal(1, 0, 800_000);
        _compare();
        bytes22 digest = bytes22(keccak256(abi.encode(_manifest(1, miner), keccak256(signature))));
        entry = arena.entries(1, miner);
        require(entry.state == IPoUW.EntryState.Revealed && entry.digest == digest, "revealed");
        require(entry.committedAt == t.t0 + 5 && entry.claim == 800_000, "the claim");
        _equal(arena.rounds(1).reveals, 1, "counted");

        _recordsVotes(t, miner);
        _recordsDispute(t, miner);
        _recordsClosing(t, miner, digest, genesis);
        _recordsMoney(miner);
    }

    function _recordsVotes(Times memory t, address miner) private {
        vm.warp(t.t3);
        IPoUW.Verdict winner = IPoUW.Verdict.Winner;
        _votes(2, IPoUW.Verdict.Invalid, address(0), 4);
        require(arena.rounds(1).verdict == IPoUW.Verdict.None && arena.rounds(1).voters == 0, "one is no quorum");
        _votes(1, winner, miner, 2);
        require(arena.rounds(1).verdict == IPoUW.Verdict.None, "nor are two of different opinions");
        _votes(0, winner, miner, 3);
        IPoUW.Round memory r = arena.rounds(1);
        require(r.verdict == winner && r.winner == miner && r.evidenceDigest == EVIDENCE, "two that agree are");
        require(r.voted == 7 && r.voters == 3, "who voted");
    }

    function _votes(uint256 i, IPoUW.Verdict verdict, address winner, uint256 voters) private {
        _note(abi.encode(IPoUW.Reported.selector, 1, _oracle(i)), abi.encode(verdict, winner, EVIDENCE));
        vm.recordLogs();
        _report(1, i, verdict, winner);
        _compare();
        _equal(arena.votes(1, verdict, winner), voters, "for this outcome");
    }

    function test_report__voteAfterTheDecision__keepsItsEvidence() public {
        Times memory t = _begin(REWARD, false);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        vm.warp(t.t3);
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(_oracle(i));
            arena.report(1, IPoUW.Verdict.Invalid, address(0), bytes32(i));
        }
        IPoUW.Round memory r = arena.rounds(1);
        require(r.evidenceDigest == bytes32(uint256(1)), "of the vote that completed the quorum");
        require(r.verdict == IPoUW.Verdict.Invalid && r.voters == 7, "paid with the others");
    }

    function test_rule__anotherWinner__changesTheOutcome() public {
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        _commit(1, 1);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        _reveal(1, 0, 900_000);
        _reveal(1, 1, 800_000);
        vm.warp(t.t3);
        _report(1, 0, IPoUW.Verdict.Winner, _miner(0));
        _report(1, 1, IPoUW.Verdict.Winner, _miner(0));
        vm.warp(t.t4);
        vm.deal(stranger, terms.challengeBond);
        vm.prank(stranger);
        arena.challenge{value: terms.challengeBond}(1);
        _note(abi.encode(IPoUW.Ruled.selector, 1), abi.encode(IPoUW.Verdict.Winner, _miner(1), EVIDENCE, true));
        vm.recordLogs();
        vm.prank(arbiter);
        arena.rule(1, IPoUW.Verdict.Winner, _miner(1), EVIDENCE);
        _compare();
        IPoUW.Round memory r = arena.rounds(1);
        require(r.winner == _miner(1) && r.changed && r.ruled, "the other one");
        uint256 before = arena.credits(_miner(1));
        arena.finalize();
        _equal(arena.credits(_miner(1)) - before, REWARD - FEE, "paid");
        _equal(arena.credits(stranger), FEE + terms.challengeBond, "the challenger gets the fee");
    }

    function test_finalize__feeOfTwoUnits__paysEachVoterOne() public {
        IPoUW.Parameters memory p = _usual();
        p.minReward = 1;
        _deploy(p);
        Times memory t = _begin(40, false);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        vm.warp(t.t3);
        _report(1, 1, IPoUW.Verdict.Invalid, address(0));
        _report(1, 2, IPoUW.Verdict.Invalid, address(0));
        vm.warp(t.t5);
        arena.finalize();
        require(arena.credits(_oracle(1)) == 1 && arena.credits(_oracle(2)) == 1, "whoever voted");
        require(arena.credits(_oracle(0)) == 0 && arena.credits(publisher) == 38, "and nobody else");
    }

    function test_finalize__owedSelection__selectsFirst() public {
        Times memory t = _begin(REWARD, false);
        _publish(publisher, 2005, false, 0);
        vm.warp(t.t2);
        arena.finalize();
        require(arena.arena().selected == 2 && arena.arena().selectedAt == t.t2, "selected by the same call");
    }

    function _recordsDispute(Times memory t, address miner) private {
        vm.warp(t.t4);
        vm.deal(stranger, terms.challengeBond);
        _note(abi.encode(IPoUW.Challenged.selector, 1, stranger), "");
        vm.recordLogs();
        vm.prank(stranger);
        arena.challenge{value: terms.challengeBond}(1);
        _compare();
        require(arena.rounds(1).challenger == stranger && arena.rounds(1).challenged, "who challenged");
        bytes32 evidence = keccak256("the arbiter's");
        _note(abi.encode(IPoUW.Ruled.selector, 1), abi.encode(IPoUW.Verdict.Winner, miner, evidence, false));
        vm.recordLogs();
        vm.prank(arbiter);
        arena.rule(1, IPoUW.Verdict.Winner, miner, evidence);
        _compare();
        IPoUW.Round memory r = arena.rounds(1);
        require(r.ruled && !r.changed && r.evidenceDigest == evidence, "the last word");
    }

    function _recordsClosing(Times memory t, address miner, bytes22 digest, bytes32 genesis) private {
        vm.warp(t.t4 + 9);
        bytes32 evidence = keccak256("the arbiter's");
        bytes32 head = _headerOf(1, genesis, IPoUW.Verdict.Winner, miner, 800_000, digest, evidence, t.t4 + 9);
        _note(
            abi.encode(IPoUW.RoundClosed.selector, 1),
            abi.encode(IPoUW.Verdict.Winner, miner, 800_000, digest, evidence, t.t4 + 9, head)
        );
        _expectCredit(_oracle(0), FEE / 2);
        _expectCredit(_oracle(1), FEE / 2);
        _expectCredit(miner, REWARD - FEE);
        _expectCredit(publisher, BOND);
        _expectCredit(address(0), terms.challengeBond);
        vm.recordLogs();
        arena.finalize();
        _compare();
        require(arena.rounds(1).header == head && arena.lastHeader() == head, "the header");
        require(!arena.arena().live, "closed");
    }

    function _recordsMoney(address miner) private {
        _note(abi.encode(IPoUW.Reclaimed.selector, 1, miner), abi.encode(false));
        _expectCredit(miner, terms.minerBond);
        vm.recordLogs();
        arena.reclaim(1, miner);
        _compare();
        require(arena.entries(1, miner).state == IPoUW.EntryState.Reclaimed, "reclaimed");
        _note(abi.encode(IPoUW.Withdrawn.selector, miner, address(0xB0B)), abi.encode(REWARD - FEE + 50));
        vm.recordLogs();
        vm.prank(miner);
        _equal(arena.withdraw(address(0xB0B)), REWARD - FEE + 50, "the whole");
        _compare();
        require(arena.credits(miner) == 0 && address(0xB0B).balance == REWARD - FEE + 50, "paid");
    }

    function test_secondRound__released__closesTheFirstAndLinksItsHeader() public {
        Times memory t = _begin(REWARD, false);
        bytes32 genesis = _domain();
        _history = _afterFirstSelection(arena.rounds(1).poolHistory);
        _publish(publisher, 2005, true, 0);
        _roll(IPoUW.PoolChange.Publish, 2, publisher, 2005);
        vm.prank(publisher);
        arena.cancel(2);
        _roll(IPoUW.PoolChange.Cancel, 2, publisher, 0);
        _publish(publisher, 2005, true, 0);
        _roll(IPoUW.PoolChange.Publish, 3, publisher, 2005);
        bytes32 second = _history;
        vm.warp(t.t1);
        _expectSelection(3, publisher, 2005, t.t1);
        _note(abi.encode(IPoUW.TestOpened.selector, 1), abi.encode(TEST_KEY));
        vm.recordLogs();
        arena.openTest(TEST_KEY);
        _compare();
        uint256 t0 = t.t1 + _phase2();
        vm.warp(t0);
        bytes32 head = _headerOf(1, genesis, IPoUW.Verdict.None, address(0), 0, 0, 0, t0);
        _note(
            abi.encode(IPoUW.RoundClosed.selector, 1),
            abi.encode(IPoUW.Verdict.None, address(0), 0, bytes22(0), bytes32(0), t0, head)
        );
        _expectCredit(publisher, REWARD - FEE + BOND);
        _expectCredit(address(0), FEE);
        _note(abi.encode(IPoUW.DataKeyReleased.selector, 2, 3), abi.encode(DATA_KEY, t0, second));
        vm.recordLogs();
        arena.releaseDataKey(DATA_KEY);
        _compare();
        require(arena.lastHeader() == head, "of the last closed round");
        _equal(arena.tasks(3).round, 2, "the task's round");
        vm.warp(_timesOf(2).t2);
        vm.recordLogs();
        arena.finalize();
        Cheats.Log[] memory logs = vm.getRecordedLogs();
        bytes32 third = _headerOf(2, head, IPoUW.Verdict.None, address(0), 0, 0, 0, block.timestamp);
        (,,,,,, bytes32 written) = abi.decode(logs[0].data, (uint8, address, uint32, bytes22, bytes32, uint40, bytes32));
        require(written == third && arena.lastHeader() == third, "linked to the first");
    }

    function _headerOf(
        uint64 number,
        bytes32 parent,
        IPoUW.Verdict verdict,
        address winner,
        uint32 score,
        bytes22 digest,
        bytes32 evidence,
        uint256 closedAt
    ) private view returns (bytes32) {
        IPoUW.Round memory r = arena.rounds(number);
        return keccak256(
            abi.encode(
                number, parent, r.taskId, SPEC, r.poolHistory, verdict, winner, score, digest, evidence, closedAt
            )
        );
    }

    function _historyBeforeFirstSelection() private view returns (bytes32) {
        return keccak256(abi.encode(bytes32(0), IPoUW.PoolChange.Publish, 1, publisher, SPEC, REWARD));
    }

    function _afterFirstSelection(bytes32 before) private view returns (bytes32) {
        return keccak256(abi.encode(before, IPoUW.PoolChange.Select, 1, publisher, SPEC, REWARD));
    }

    /// @dev The history after a publication into the idle arena.
    function _forget(address who, uint128 reward, uint64 taskId, uint256 time) private {
        _history = 0;
        _roll(IPoUW.PoolChange.Publish, taskId, who, reward);
        _roll(IPoUW.PoolChange.Select, taskId, who, reward);
        require(arena.arena().selectedAt == time, "selected then");
    }

    function _roll(IPoUW.PoolChange kind, uint64 taskId, address who, uint128 rewardAfter) private {
        _history = keccak256(abi.encode(_history, kind, taskId, who, SPEC, rewardAfter));
    }

    function _expectChange(IPoUW.PoolChange kind, uint64 taskId, uint128 rewardAfter, bytes32 name) private {
        _roll(kind, taskId, publisher, rewardAfter);
        if (kind == IPoUW.PoolChange.Publish) {
            bytes memory data = abi.encode(SPEC, KEY_HASH, 500_000, true, rewardAfter, _history);
            _note(abi.encode(name, taskId, publisher), data);
        } else if (kind == IPoUW.PoolChange.TopUp) {
            _note(abi.encode(name, taskId), abi.encode(rewardAfter, _history));
        } else {
            _note(abi.encode(name, taskId), abi.encode(_history));
        }
    }

    function _expectSelection(uint64 taskId, address who, uint128 reward, uint256 time) private {
        _roll(IPoUW.PoolChange.Select, taskId, who, reward);
        _note(abi.encode(IPoUW.TaskSelected.selector, taskId), abi.encode(time, _history));
    }

    function _expectCredit(address account, uint256 amount) private {
        _note(abi.encode(IPoUW.Credited.selector, account), abi.encode(amount));
    }

    /// @dev The next event of the arena: its topics as words, its data.
    function _note(bytes memory topics, bytes memory data) private {
        Cheats.Log storage log = _expected.push();
        log.emitter = address(arena);
        log.data = data;
        for (uint256 i = 0; i < topics.length / 32; ++i) {
            bytes32 word;
            assembly ("memory-safe") {
                word := mload(add(add(topics, 32), mul(i, 32)))
            }
            log.topics.push(word);
        }
    }

    /// @dev The events since `recordLogs` are the expected ones.
    function _compare() private {
        Cheats.Log[] memory logs = vm.getRecordedLogs();
        uint256 next = 0;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter != address(arena)) continue;
            require(next < _expected.length, "an event too many");
            Cheats.Log memory log = _expected[next++];
            require(
                keccak256(abi.encodePacked(logs[i].topics)) == keccak256(abi.encodePacked(log.topics)), "its topics"
            );
            require(keccak256(logs[i].data) == keccak256(log.data), "its data");
        }
        require(next == _expected.length, "an event is missing");
        delete _expected;
    }
}
