// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {vm} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title Every call at any time, with any amount
contract CallsTest is Stage {
    uint128 private constant REWARD = 100_003;

    function setUp() public {
        vm.warp(1_800_000_000);
        _deploy(_usual());
    }

    /// @dev What a call must do at `time` when its window is [opens, closed).
    function _expectWindow(uint256 time, uint256 opens, uint256 closed) private returns (bool inside) {
        vm.warp(time);
        if (time < opens) {
            vm.expectRevert(abi.encodeWithSelector(IPoUW.TooEarly.selector, time, opens));
        } else if (time >= closed) {
            vm.expectRevert(abi.encodeWithSelector(IPoUW.TooLate.selector, time, closed));
        } else {
            inside = true;
        }
    }

    function _between(uint256 seed, uint256 low, uint256 high) private pure returns (uint256) {
        return low + seed % (high - low + 1);
    }

    function testFuzz_publish__anyRewardsAndHints__orderIsByRewardThenId(
        uint16[12] memory rewards,
        uint8[12] memory hints
    ) public {
        _publish(publisher, REWARD, false, 0);
        for (uint256 i = 0; i < rewards.length; ++i) {
            _publish(publisher, uint128(1000) + rewards[i] % 8, false, hints[i] % 16);
        }
        uint64[] memory pool = arena.pool(0, 100);
        _equal(pool.length, rewards.length, "every task waits");
        for (uint256 i = 1; i < pool.length; ++i) {
            uint128 above = arena.tasks(pool[i - 1]).reward;
            uint128 below = arena.tasks(pool[i]).reward;
            require(above > below || (above == below && pool[i - 1] < pool[i]), "reward, then lowest id");
            _equal(arena.tasks(pool[i]).above, pool[i - 1], "linked upwards");
        }
    }

    function testFuzz_publish__anyPayment__isExact(uint128 reward, uint256 sent) public {
        reward = uint128(_between(reward, 1000, type(uint96).max));
        uint256 due = reward + _bondOf(reward);
        sent = _between(sent, due == 0 ? 0 : due - 2, due + 2);
        vm.deal(publisher, sent);
        if (sent != due) vm.expectRevert(abi.encodeWithSelector(IPoUW.WrongPayment.selector, sent, due));
        vm.prank(publisher);
        arena.publish{value: sent}(SPEC, KEY_HASH, 0, false, reward, 0);
        _equal(address(arena).balance, sent == due ? due : 0, "escrow holds what came in");
    }

    function testFuzz_topUp__anyAmountAndHint__keepsOrderAndMoney(uint8 which, uint32 amount, uint8 hint) public {
        _publish(publisher, REWARD, false, 0);
        for (uint128 i = 0; i < 8; ++i) {
            _publish(publisher, 1000 + i * 1_000_000, false, 0);
        }
        uint64 taskId = 2 + which % 8;
        uint128 before = arena.tasks(taskId).reward;
        uint128 after_ = before + uint128(_between(amount, 1, 10_000_000));
        uint256 held = address(arena).balance;
        uint256 value = _fund(publisher, after_ - before + _bondOf(after_) - _bondOf(before));
        vm.prank(publisher);
        arena.topUp{value: value}(taskId, after_ - before, hint % 12);
        _equal(address(arena).balance - held, value, "brings amount and growth of the bond");
        uint64[] memory pool = arena.pool(0, 100);
        _equal(pool.length, 8, "nobody is lost");
        for (uint256 i = 1; i < pool.length; ++i) {
            require(arena.tasks(pool[i - 1]).reward >= arena.tasks(pool[i]).reward, "ordered");
        }
        vm.prank(publisher);
        arena.cancel(taskId);
        _equal(arena.credits(publisher), after_ + _bondOf(after_), "cancel returns everything");
    }

    function testFuzz_cancel__anyOrder__leavesTheOthersInOrder(uint256 seed) public {
        _publish(publisher, REWARD, false, 0);
        for (uint256 i = 0; i < 6; ++i) {
            _publish(publisher, 1000 + uint128(i % 3), false, 0);
        }
        for (uint256 left = 6; left > 0; --left) {
            uint64[] memory pool = arena.pool(0, 100);
            _equal(pool.length, left, "one less each time");
            vm.prank(publisher);
            arena.cancel(pool[(seed >> (8 * left)) % left]);
        }
        _equal(arena.pool(0, 100).length, 0, "empty");
        _equal(address(arena).balance - arena.credits(publisher), REWARD + _bondOf(REWARD), "all is credited");
    }

    function testFuzz_releaseDataKey__anyTime__onlyInItsWindow(uint256 time) public {
        _publish(publisher, REWARD, false, 0);
        uint256 opens = block.timestamp + _phase2();
        time = _between(time, opens - 3, opens + terms.keyWindow + 3);
        vm.warp(time);
        bool late = time >= opens + terms.keyWindow;
        if (time < opens) vm.expectRevert(abi.encodeWithSelector(IPoUW.TooEarly.selector, time, opens));
        if (late) vm.expectRevert(abi.encodeWithSelector(IPoUW.NothingSelected.selector));
        vm.prank(stranger);
        arena.releaseDataKey(DATA_KEY);
        require(arena.arena().live == (time >= opens && !late), "live from then on");
    }

    function testFuzz_releaseDataKey__anyOtherKey__reverts(bytes32 key) public {
        vm.assume(key != DATA_KEY);
        _publish(publisher, REWARD, false, 0);
        vm.warp(block.timestamp + _phase2());
        vm.expectRevert(abi.encodeWithSelector(IPoUW.WrongKey.selector, key));
        arena.releaseDataKey(key);
    }

    function testFuzz_commit__anyTime__onlyInPhase1(uint256 time, bytes32 word) public {
        Times memory t = _begin(REWARD, false);
        time = _between(time, t.t0, t.t1 + 3);
        bool inside = _expectWindow(time, t.t0, t.t1);
        vm.prank(stranger);
        arena.commit(1, word);
        IPoUW.Entry memory entry = arena.entries(1, stranger);
        _equal(entry.committedAt, inside ? time : 0, "its time is kept");
        require(entry.digest == (inside ? bytes22(word) : bytes22(0)), "its first 22 bytes are kept");
    }

    function testFuzz_openTest__anyTime__onlyInItsWindow(uint256 time) public {
        Times memory t = _begin(REWARD, false);
        bool inside = _expectWindow(_between(time, t.t1 - 3, t.t2 + 3), t.t1, t.t2);
        arena.openTest(TEST_KEY);
        require(arena.rounds(1).opened == inside, "open from then on");
    }

    function testFuzz_openTest__anyOtherKey__reverts(bytes32 key) public {
        vm.assume(key != TEST_KEY);
        Times memory t = _begin(REWARD, false);
        vm.warp(t.t1);
        vm.expectRevert(abi.encodeWithSelector(IPoUW.WrongKey.selector, key));
        arena.openTest(key);
    }

    function testFuzz_reveal__anyTimeAndClaim__onlyInItsWindow(uint256 time, uint32 claim) public {
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        claim = uint32(_between(claim, 499_998, 1_000_002));
        address miner = _miner(0);
        bytes memory signature = _signature(1, 0, claim);
        vm.deal(miner, terms.minerBond);
        bool inside = _expectWindow(_between(time, t.t1, t.t3 + 3), t.t1, t.t3);
        if (inside && claim < 500_000) {
            vm.expectRevert(abi.encodeWithSelector(IPoUW.ClaimTooLow.selector, claim, 500_000));
        }
        if (inside && claim > 1_000_000) vm.expectRevert(abi.encodeWithSelector(IPoUW.InvalidScore.selector, claim));
        vm.prank(miner);
        arena.reveal{value: terms.minerBond}(1, _manifest(1, miner), claim, _salt(1, miner), signature);
        bool counts = inside && claim >= 500_000 && claim <= 1_000_000;
        _equal(arena.entries(1, miner).claim, counts ? claim : 0, "the claim is kept");
        _equal(arena.rounds(1).reveals, counts ? 1 : 0, "counted once");
    }

    function testFuzz_reveal__anythingElseChanged__reverts(uint8 what, bytes32 other) public {
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        address miner = _miner(0);
        bytes32 manifest = _manifest(1, miner);
        bytes32 salt = _salt(1, miner);
        bytes memory signature = _signature(1, 0, 800_000);
        vm.assume(other != manifest && other != salt);
        vm.deal(miner, terms.minerBond);
        what %= 3;
        if (what == 0) manifest = other;
        if (what == 1) salt = other;
        if (what == 2) signature[uint256(other) % 65] ^= bytes1(uint8(1 << (uint256(other) >> 8) % 8));
        vm.expectRevert(
            what == 2
                ? abi.encodeWithSelector(IPoUW.InvalidSignature.selector, miner)
                : abi.encodeWithSelector(
                    IPoUW.CommitmentMismatch.selector, arena.commitmentOf(1, miner, manifest, salt)
                )
        );
        vm.prank(miner);
        arena.reveal{value: terms.minerBond}(1, manifest, 800_000, salt, signature);
    }

    function testFuzz_report__anyTime__onlyInItsWindow(uint256 time) public {
        Times memory t = _revealed(false);
        bool inside = _expectWindow(_between(time, t.t3 - 3, t.t4 + 3), t.t3, t.t4);
        _report(1, 0, IPoUW.Verdict.Invalid, address(0));
        _equal(arena.rounds(1).voted, inside ? 1 : 0, "counted once");
    }

    function testFuzz_report__anyVotes__outcomeIsTheMajority(uint8[3] memory choices) public {
        Times memory t = _revealed(false);
        vm.warp(t.t3);
        uint256[4] memory count;
        for (uint256 i = 0; i < 3; ++i) {
            uint256 choice = choices[i] % 4;
            ++count[choice];
            if (choice < 2) _report(1, i, IPoUW.Verdict.Winner, _miner(choice));
            else _report(1, i, choice == 2 ? IPoUW.Verdict.NoTrueClaim : IPoUW.Verdict.Invalid, address(0));
        }
        IPoUW.Round memory round = arena.rounds(1);
        IPoUW.Verdict verdict = IPoUW.Verdict.None;
        for (uint256 i = 0; i < 4; ++i) {
            if (count[i] < 2) continue;
            verdict = i < 2 ? IPoUW.Verdict.Winner : i == 2 ? IPoUW.Verdict.NoTrueClaim : IPoUW.Verdict.Invalid;
            require(round.winner == (i < 2 ? _miner(i) : address(0)), "the one they named");
            uint256 voters = 0;
            for (uint256 j = 0; j < 3; ++j) {
                if (choices[j] % 4 == i) voters |= 1 << j;
            }
            _equal(round.voters, voters, "who voted for it");
        }
        require(round.verdict == verdict, "two equal votes decide");
        _equal(round.voted, 7, "who voted at all");
    }

    function testFuzz_challenge__anyTime__onlyInItsWindow(uint256 time) public {
        Times memory t = _revealed(false);
        vm.deal(stranger, terms.challengeBond);
        bool inside = _expectWindow(_between(time, t.t4 - 3, t.t5 + 3), t.t4, t.t5);
        vm.prank(stranger);
        arena.challenge{value: terms.challengeBond}(1);
        require(arena.rounds(1).challenged == inside, "once");
    }

    function testFuzz_rule__anyTime__onlyBeforeT6(uint256 time) public {
        Times memory t = _revealed(false);
        vm.deal(stranger, terms.challengeBond);
        vm.warp(t.t4);
        vm.prank(stranger);
        arena.challenge{value: terms.challengeBond}(1);
        bool inside = _expectWindow(_between(time, t.t4, t.t6 + 3), t.t4, t.t6);
        vm.prank(arbiter);
        arena.rule(1, IPoUW.Verdict.Invalid, address(0), EVIDENCE);
        require(arena.rounds(1).ruled == inside, "once");
    }

    function testFuzz_finalize__anyTime__onlyOnceDecided(uint256 time, bool opened, bool challenged, bool ruled)
        public
    {
        Times memory t = opened ? _revealed(false) : _begin(REWARD, false);
        uint256 from = opened ? t.t5 : t.t2;
        if (opened && challenged) {
            vm.deal(stranger, terms.challengeBond);
            vm.warp(t.t4);
            vm.prank(stranger);
            arena.challenge{value: terms.challengeBond}(1);
            from = t.t6;
            if (ruled) {
                vm.prank(arbiter);
                arena.rule(1, IPoUW.Verdict.Invalid, address(0), EVIDENCE);
                from = t.t4;
            }
        }
        time = _between(time, from < t.t4 + 3 && opened ? t.t4 : from - 3, from + 3);
        vm.warp(time);
        if (time < from) vm.expectRevert(abi.encodeWithSelector(IPoUW.NotDecided.selector, 1));
        arena.finalize();
        require((arena.rounds(1).header != 0) == (time >= from), "closed from then on");
    }

    function testFuzz_reclaim__anyClaimsTimesAndWinner__burnsExactlyAbove(
        uint8[5] memory claims,
        uint8[5] memory moments,
        uint8 winner,
        bool first
    ) public {
        Times memory t = _begin(REWARD, first);
        for (uint256 second = 0; second < 4; ++second) {
            vm.warp(t.t0 + second);
            for (uint256 i = 0; i < 5; ++i) {
                if (moments[i] % 4 == second) _commit(1, i);
            }
        }
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        for (uint256 i = 0; i < 5; ++i) {
            _reveal(1, i, 500_000 + claims[i] % 3);
        }
        winner %= 5;
        vm.warp(t.t3);
        _report(1, 0, IPoUW.Verdict.Winner, _miner(winner));
        _report(1, 1, IPoUW.Verdict.Winner, _miner(winner));
        vm.warp(t.t5);
        arena.finalize();
        uint256 burned = 0;
        for (uint256 i = 0; i < 5; ++i) {
            bool above = _key(claims[i], moments[i], i, first) < _key(claims[winner], moments[winner], winner, first);
            uint256 before = arena.credits(_miner(i));
            arena.reclaim(1, _miner(i));
            _equal(arena.credits(_miner(i)) - before, above ? 0 : terms.minerBond, "back unless above");
            if (above) burned += terms.minerBond;
        }
        _equal(arena.credits(address(0)), burned, "burned above");
    }

    /// @dev One number that is smaller the better a reveal ranks.
    function _key(uint8 claim, uint8 moment, uint256 i, bool first) private view returns (uint256) {
        uint256 worse = first ? 0 : 3 - claim % 3;
        return (worse << 200) | (uint256(moment % 4) << 160) | uint160(_miner(i));
    }

    function testFuzz_withdraw__anyRewards__paysTheSumOnce(uint96[4] memory rewards) public {
        _publish(publisher, REWARD, false, 0);
        uint256 sum = 0;
        for (uint64 i = 0; i < 4; ++i) {
            uint128 reward = 1000 + uint128(rewards[i]);
            uint64 taskId = _publish(publisher, reward, false, 0);
            vm.prank(publisher);
            arena.cancel(taskId);
            sum += reward + _bondOf(reward);
        }
        _equal(arena.credits(publisher), sum, "credits add up");
        vm.prank(publisher);
        _equal(arena.withdraw(stranger), sum, "the whole");
        _equal(stranger.balance, sum, "to the named");
        vm.expectRevert(abi.encodeWithSelector(IPoUW.NothingToWithdraw.selector, publisher));
        vm.prank(publisher);
        arena.withdraw(stranger);
    }

    /// @dev Miners 0 and 1 revealed 900,000 and 800,000.
    function _revealed(bool first) private returns (Times memory t) {
        t = _begin(REWARD, first);
        _commit(1, 0);
        _commit(1, 1);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        _reveal(1, 0, 900_000);
        _reveal(1, 1, 800_000);
    }
}
