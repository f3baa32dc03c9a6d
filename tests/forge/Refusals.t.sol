// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Puppet} from "../../contracts/test/Puppet.sol";
import {vm} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title Every refusal that is not about a window's edge, with its values
/// @notice A call is refused by the very bytes of the error, and accepted right beside it.
contract RefusalsTest is Stage {
    uint128 private constant REWARD = 100_003;
    bytes32 private constant OTHER = keccak256("other");

    function setUp() public {
        vm.warp(1_800_000_000);
        _deploy(_usual());
    }

    function test_publish__rewardScoreOrPayment__isRefused() public {
        _refuses(publisher, 1098, _publishing(999, 0), IPoUW.RewardTooSmall.selector, abi.encode(999, 1000));
        _refuses(publisher, 1100, _publishing(1000, 1_000_001), IPoUW.InvalidScore.selector, abi.encode(1_000_001));
        _refuses(publisher, 1099, _publishing(1000, 0), IPoUW.WrongPayment.selector, abi.encode(1099, 1100));
        _refuses(publisher, 1101, _publishing(1000, 0), IPoUW.WrongPayment.selector, abi.encode(1101, 1100));
        _accepts(publisher, 1100, _publishing(1000, 1_000_000));
    }

    function test_topUp__notPooledNotOwnNothingOrWronglyPaid__isRefused() public {
        _publish(publisher, REWARD, false, 0);
        _publish(publisher, 2005, false, 0);
        _refuses(publisher, 0, abi.encodeCall(IPoUW.topUp, (1, 7, 0)), IPoUW.TaskNotPooled.selector, abi.encode(1));
        _refuses(publisher, 0, abi.encodeCall(IPoUW.topUp, (3, 7, 0)), IPoUW.TaskNotPooled.selector, abi.encode(3));
        bytes memory topUp = abi.encodeCall(IPoUW.topUp, (2, 7, 0));
        _refuses(stranger, 8, topUp, IPoUW.NotPublisher.selector, abi.encode(2, stranger));
        _refuses(publisher, 0, abi.encodeCall(IPoUW.topUp, (2, 0, 0)), IPoUW.NothingToAdd.selector, "");
        _refuses(publisher, 7, topUp, IPoUW.WrongPayment.selector, abi.encode(7, 8));
        _refuses(publisher, 9, topUp, IPoUW.WrongPayment.selector, abi.encode(9, 8));
        _accepts(publisher, 8, topUp);
        _accepts(publisher, 1, abi.encodeCall(IPoUW.topUp, (2, 1, 0)));
    }

    function test_cancel__notPooledOrNotOwn__isRefused() public {
        _publish(publisher, REWARD, false, 0);
        _publish(publisher, 2005, false, 0);
        bytes memory cancel = abi.encodeCall(IPoUW.cancel, (2));
        _refuses(publisher, 0, abi.encodeCall(IPoUW.cancel, (1)), IPoUW.TaskNotPooled.selector, abi.encode(1));
        _refuses(stranger, 0, cancel, IPoUW.NotPublisher.selector, abi.encode(2, stranger));
        _accepts(publisher, 0, cancel);
        _refuses(publisher, 0, cancel, IPoUW.TaskNotPooled.selector, abi.encode(2));
    }

    function test_changes__ofTheTaskThatIsOwedTheSelection__areRefused() public {
        Times memory t = _begin(REWARD, false);
        _publish(publisher, 2005, false, 0);
        vm.warp(t.t1);
        bytes memory topUp = abi.encodeCall(IPoUW.topUp, (2, 5, 0));
        _refuses(publisher, 6, topUp, IPoUW.TaskNotPooled.selector, abi.encode(2));
        bytes memory cancel = abi.encodeCall(IPoUW.cancel, (2));
        _refuses(publisher, 0, cancel, IPoUW.TaskNotPooled.selector, abi.encode(2));
        vm.warp(t.t1 - 1);
        _accepts(publisher, 0, cancel);
    }

    function test_releaseDataKey__nothingSelectedOrWrongKey__isRefused() public {
        bytes memory release = abi.encodeCall(IPoUW.releaseDataKey, (DATA_KEY));
        _refuses(publisher, 0, release, IPoUW.NothingSelected.selector, "");
        _publish(publisher, REWARD, false, 0);
        vm.warp(block.timestamp + _phase2());
        _refuses(
            publisher, 0, abi.encodeCall(IPoUW.releaseDataKey, (OTHER)), IPoUW.WrongKey.selector, abi.encode(OTHER)
        );
        _accepts(stranger, 0, release);
        _refuses(publisher, 0, release, IPoUW.NothingSelected.selector, "");
    }

    function test_commit__noSuchRound__isRefused() public {
        _refuses(_miner(0), 0, abi.encodeCall(IPoUW.commit, (1, OTHER)), IPoUW.NotLive.selector, abi.encode(1));
        _begin(REWARD, false);
        _refuses(_miner(0), 0, abi.encodeCall(IPoUW.commit, (2, OTHER)), IPoUW.NotLive.selector, abi.encode(2));
        _accepts(_miner(0), 0, abi.encodeCall(IPoUW.commit, (1, OTHER)));
    }

    function test_openTest__notLiveOpenOrWrongKey__isRefused() public {
        bytes memory open = abi.encodeCall(IPoUW.openTest, (TEST_KEY));
        _refuses(publisher, 0, open, IPoUW.NotLive.selector, abi.encode(0));
        Times memory t = _begin(REWARD, false);
        _publish(publisher, 2005, false, 0);
        vm.warp(t.t1);
        _refuses(publisher, 0, abi.encodeCall(IPoUW.openTest, (OTHER)), IPoUW.WrongKey.selector, abi.encode(OTHER));
        _accepts(stranger, 0, open);
        _refuses(publisher, 0, open, IPoUW.TestAlreadyOpen.selector, abi.encode(1));
        vm.warp(t.t5);
        arena.finalize();
        _refuses(publisher, 0, open, IPoUW.NotLive.selector, abi.encode(1));
    }

    function test_reveal__notOpenNotCommittedOrNotMatching__isRefused() public {
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        vm.warp(t.t1);
        _refuses(_miner(0), 50, _revealing(0, 800_000), IPoUW.TestNotOpen.selector, abi.encode(1));
        arena.openTest(TEST_KEY);
        _refuses(_miner(1), 50, _revealing(1, 800_000), IPoUW.NothingCommitted.selector, abi.encode(1, _miner(1)));
        bytes memory data =
            abi.encodeCall(IPoUW.reveal, (1, OTHER, 800_000, _salt(1, _miner(0)), _signature(1, 0, 800_000)));
        bytes32 computed = arena.commitmentOf(1, _miner(0), OTHER, _salt(1, _miner(0)));
        _refuses(_miner(0), 50, data, IPoUW.CommitmentMismatch.selector, abi.encode(computed));
    }

    function test_reveal__claimSignatureOrPayment__isRefused() public {
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        _commit(1, 1);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        address miner = _miner(0);
        _refuses(miner, 50, _revealing(0, 499_999), IPoUW.ClaimTooLow.selector, abi.encode(499_999, 500_000));
        _refuses(miner, 50, _revealing(0, 1_000_001), IPoUW.InvalidScore.selector, abi.encode(1_000_001));
        bytes memory forged =
            abi.encodeCall(IPoUW.reveal, (1, _manifest(1, miner), 800_000, _salt(1, miner), _signature(1, 0, 800_001)));
        _refuses(miner, 50, forged, IPoUW.InvalidSignature.selector, abi.encode(miner));
        _refuses(miner, 49, _revealing(0, 500_000), IPoUW.WrongPayment.selector, abi.encode(49, 50));
        _refuses(miner, 51, _revealing(0, 500_000), IPoUW.WrongPayment.selector, abi.encode(51, 50));
        _accepts(miner, 50, _revealing(0, 500_000));
        _refuses(miner, 50, _revealing(0, 500_000), IPoUW.NothingCommitted.selector, abi.encode(1, miner));
        _accepts(_miner(1), 50, _revealing(1, 1_000_000));
    }

    function test_report__notOracleNotOpenOrTwice__isRefused() public {
        Times memory t = _begin(REWARD, false);
        vm.warp(t.t3);
        bytes memory invalid = _reporting(IPoUW.Verdict.Invalid, address(0));
        _refuses(stranger, 0, invalid, IPoUW.NotOracle.selector, abi.encode(stranger));
        _refuses(_oracle(2), 0, invalid, IPoUW.TestNotOpen.selector, abi.encode(1));
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        vm.warp(t.t3);
        _accepts(_oracle(2), 0, invalid);
        _refuses(_oracle(2), 0, invalid, IPoUW.AlreadyVoted.selector, abi.encode(1, _oracle(2)));
    }

    function test_report__verdictThatDoesNotFit__isRefused() public {
        _revealed();
        _refusesVerdict(IPoUW.Verdict.None, address(0));
        _refusesVerdict(IPoUW.Verdict.None, _miner(0));
        _refusesVerdict(IPoUW.Verdict.Winner, address(0));
        _refusesVerdict(IPoUW.Verdict.Winner, _miner(1));
        _refusesVerdict(IPoUW.Verdict.NoTrueClaim, _miner(0));
        _refusesVerdict(IPoUW.Verdict.Invalid, _miner(0));
        _accepts(_oracle(0), 0, _reporting(IPoUW.Verdict.NoTrueClaim, address(0)));
        _accepts(_oracle(1), 0, _reporting(IPoUW.Verdict.Winner, _miner(0)));
    }

    function test_report__noTrueClaimWithoutReveal__isRefused() public {
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        vm.warp(t.t3);
        _refusesVerdict(IPoUW.Verdict.NoTrueClaim, address(0));
        _refusesVerdict(IPoUW.Verdict.Winner, _miner(0));
        _accepts(_oracle(0), 0, _reporting(IPoUW.Verdict.Invalid, address(0)));
    }

    function test_challenge__notOpenTwiceOrWronglyPaid__isRefused() public {
        bytes memory challenge = abi.encodeCall(IPoUW.challenge, (1));
        Times memory t = _begin(REWARD, false);
        vm.warp(t.t4);
        _refuses(stranger, 70, challenge, IPoUW.TestNotOpen.selector, abi.encode(1));
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        vm.warp(t.t4);
        _refuses(stranger, 69, challenge, IPoUW.WrongPayment.selector, abi.encode(69, 70));
        _refuses(stranger, 71, challenge, IPoUW.WrongPayment.selector, abi.encode(71, 70));
        _accepts(stranger, 70, challenge);
        _refuses(publisher, 70, challenge, IPoUW.NotChallengeable.selector, abi.encode(1));
    }

    function test_challenge__noArbiter__isRefused() public {
        IPoUW.Parameters memory p = _usual();
        (p.arbiter, p.challengeWindow, p.rulingWindow) = (address(0), 0, 0);
        _deploy(p);
        Times memory t = _revealed();
        bytes memory challenge = abi.encodeCall(IPoUW.challenge, (1));
        for (uint256 time = t.t4 - 1; time <= t.t4 + 1; ++time) {
            vm.warp(time);
            _refuses(stranger, 70, challenge, IPoUW.NotChallengeable.selector, abi.encode(1));
        }
        _refuses(address(0), 0, _ruling(IPoUW.Verdict.Invalid, address(0)), IPoUW.NotRulable.selector, abi.encode(1));
    }

    function test_rule__notArbiterNotChallengedOrTwice__isRefused() public {
        Times memory t = _revealed();
        _report(1, 0, IPoUW.Verdict.Winner, _miner(0));
        _report(1, 1, IPoUW.Verdict.Winner, _miner(0));
        vm.warp(t.t4);
        bytes memory rule = _ruling(IPoUW.Verdict.Winner, _miner(0));
        _refuses(stranger, 0, rule, IPoUW.NotArbiter.selector, abi.encode(stranger));
        _refuses(arbiter, 0, rule, IPoUW.NotRulable.selector, abi.encode(1));
        _accepts(stranger, 70, abi.encodeCall(IPoUW.challenge, (1)));
        _refuses(stranger, 0, rule, IPoUW.NotArbiter.selector, abi.encode(stranger));
        bytes memory unfit = _ruling(IPoUW.Verdict.Winner, _miner(1));
        _refuses(arbiter, 0, unfit, IPoUW.InvalidVerdict.selector, abi.encode(IPoUW.Verdict.Winner, _miner(1)));
        _accepts(arbiter, 0, rule);
        _refuses(arbiter, 0, rule, IPoUW.NotRulable.selector, abi.encode(1));
    }

    function test_finalize__notLive__isRefused() public {
        bytes memory finalize = abi.encodeCall(IPoUW.finalize, ());
        _refuses(stranger, 0, finalize, IPoUW.NotLive.selector, abi.encode(0));
        Times memory t = _begin(REWARD, false);
        _publish(publisher, 2005, false, 0);
        vm.warp(t.t2);
        _accepts(stranger, 0, finalize);
        _refuses(stranger, 0, finalize, IPoUW.NotLive.selector, abi.encode(1));
    }

    function test_reclaim__notClosedNotRevealedOrTwice__isRefused() public {
        Times memory t = _revealed();
        bytes memory reclaim = abi.encodeCall(IPoUW.reclaim, (1, _miner(0)));
        bytes memory silent = abi.encodeCall(IPoUW.reclaim, (1, _miner(1)));
        vm.warp(t.t5);
        _refuses(stranger, 0, reclaim, IPoUW.NotClosed.selector, abi.encode(1));
        arena.finalize();
        _refuses(stranger, 0, silent, IPoUW.NothingToReclaim.selector, abi.encode(1, _miner(1)));
        _accepts(stranger, 0, reclaim);
        _refuses(stranger, 0, reclaim, IPoUW.NothingToReclaim.selector, abi.encode(1, _miner(0)));
        _equal(arena.credits(_miner(0)), 50, "the bond");
    }

    function test_withdraw__nobodyNothingOrRefusedThere__isRefused() public {
        _publish(publisher, REWARD, false, 0);
        _publish(publisher, 2005, false, 0);
        vm.prank(publisher);
        arena.cancel(2);
        Puppet puppet = new Puppet();
        puppet.meetMoney(Puppet.Manner.Refuse, address(0), "");
        bytes memory toNobody = abi.encodeCall(IPoUW.withdraw, (address(0)));
        bytes memory toPuppet = abi.encodeCall(IPoUW.withdraw, (address(puppet)));
        _refuses(publisher, 0, toNobody, IPoUW.InvalidReceiver.selector, "");
        _refuses(stranger, 0, toPuppet, IPoUW.NothingToWithdraw.selector, abi.encode(stranger));
        _refuses(publisher, 0, toPuppet, IPoUW.PaymentFailed.selector, abi.encode(address(puppet), 2205));
        _accepts(publisher, 0, abi.encodeCall(IPoUW.withdraw, (stranger)));
        _equal(stranger.balance, 2205, "paid");
    }

    function test_pool__afterATaskThatDoesNotWait__isRefused() public {
        _publish(publisher, REWARD, false, 0);
        _refuses(stranger, 0, abi.encodeCall(IPoUW.pool, (1, 5)), IPoUW.TaskNotPooled.selector, abi.encode(1));
        _refuses(stranger, 0, abi.encodeCall(IPoUW.pool, (9, 5)), IPoUW.TaskNotPooled.selector, abi.encode(9));
        _accepts(stranger, 0, abi.encodeCall(IPoUW.pool, (0, 5)));
    }

    /// @dev Miner 0 committed and revealed, miner 1 only committed; the reports have begun.
    function _revealed() private returns (Times memory t) {
        t = _begin(REWARD, false);
        _commit(1, 0);
        _commit(1, 1);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        _reveal(1, 0, 800_000);
        vm.warp(t.t3);
    }

    function _publishing(uint128 reward, uint32 minScore) private pure returns (bytes memory) {
        return abi.encodeCall(IPoUW.publish, (SPEC, KEY_HASH, minScore, false, reward, 0));
    }

    function _revealing(uint256 i, uint32 claim) private view returns (bytes memory) {
        address miner = _miner(i);
        return abi.encodeCall(IPoUW.reveal, (1, _manifest(1, miner), claim, _salt(1, miner), _signature(1, i, claim)));
    }

    function _reporting(IPoUW.Verdict verdict, address winner) private pure returns (bytes memory) {
        return abi.encodeCall(IPoUW.report, (1, verdict, winner, EVIDENCE));
    }

    function _ruling(IPoUW.Verdict verdict, address winner) private pure returns (bytes memory) {
        return abi.encodeCall(IPoUW.rule, (1, verdict, winner, EVIDENCE));
    }

    function _refusesVerdict(IPoUW.Verdict verdict, address winner) private {
        bytes memory values = abi.encode(verdict, winner);
        _refuses(_oracle(0), 0, _reporting(verdict, winner), IPoUW.InvalidVerdict.selector, values);
    }

    /// @dev The call must revert with exactly this error and these values.
    function _refuses(address from, uint256 value, bytes memory data, bytes4 why, bytes memory values) private {
        (bool done, bytes memory returned) = _call(from, value, data);
        require(!done, "went through");
        require(keccak256(returned) == keccak256(abi.encodePacked(why, values)), "another error, or other values");
    }

    function _accepts(address from, uint256 value, bytes memory data) private {
        (bool done,) = _call(from, value, data);
        require(done, "was refused");
    }

    function _call(address from, uint256 value, bytes memory data) private returns (bool, bytes memory) {
        vm.deal(from, value);
        vm.prank(from);
        return address(arena).call{value: value}(data);
    }
}
