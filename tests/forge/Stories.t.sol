// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {PlainToken} from "../../contracts/test/PlainToken.sol";
import {vm} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title What a publisher may leave undone, what a thief may replay, what does not belong into a token arena
contract StoriesTest is Stage {
    uint128 private constant REWARD = 100_003;
    uint32 private constant CLAIM = 800_000;
    address private constant THERE = address(0xD0E);

    function setUp() public {
        vm.warp(1_800_000_000);
        _deploy(_usual());
    }

    /// @dev Everything that a miner shows when it reveals.
    struct Shown {
        address miner;
        bytes32 manifest;
        bytes32 salt;
        bytes signature;
    }

    function _shownBy(uint256 i, uint64 round) private view returns (Shown memory) {
        address miner = _miner(i);
        return Shown(miner, _manifest(round, miner), _salt(round, miner), _signature(round, i, CLAIM));
    }

    /// @dev `shown` is refused as miner's reveal in `round`.
    function _refuses(IPoUW where, address miner, uint64 round, Shown memory shown, bytes memory why) private {
        vm.deal(miner, terms.minerBond);
        bytes memory data = abi.encodeCall(IPoUW.reveal, (round, shown.manifest, CLAIM, shown.salt, shown.signature));
        vm.prank(miner);
        (bool done, bytes memory returned) = address(where).call{value: terms.minerBond}(data);
        require(!done && keccak256(returned) == keccak256(why), "refused for this");
        _equal(where.rounds(round).reveals, 0, "and nothing counts");
    }

    function _mismatch(IPoUW where, uint64 round, address miner, Shown memory shown)
        private
        view
        returns (bytes memory)
    {
        return abi.encodeWithSelector(
            IPoUW.CommitmentMismatch.selector, where.commitmentOf(round, miner, shown.manifest, shown.salt)
        );
    }

    function _notSigned(address miner) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IPoUW.InvalidSignature.selector, miner);
    }

    function test_publisher__neverOpens__losesBondAndFeeOnly() public {
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        vm.warp(t.t2);
        arena.finalize();
        _equal(arena.credits(publisher), REWARD - _feeOf(REWARD), "the reward less the fee");
        _equal(arena.credits(address(0)), _bondOf(REWARD) + _feeOf(REWARD), "bond and fee are burned");
        _equal(arena.credits(_miner(0)), 0, "a miner left nothing and lost nothing");
        vm.prank(publisher);
        arena.withdraw(THERE);
        _equal(THERE.balance, REWARD - _feeOf(REWARD), "paid out");
        _equal(address(arena).balance, arena.credits(address(0)), "only the burned is left");
    }

    function test_publisher__opensOneSecondBeforeT2__theRoundIsPlayedToTheEnd() public {
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        vm.warp(t.t2 - 1);
        arena.openTest(TEST_KEY);
        vm.warp(t.t2);
        vm.expectRevert(abi.encodeWithSelector(IPoUW.NotDecided.selector, uint64(1)));
        arena.finalize();
        vm.warp(t.t3 - 1);
        _reveal(1, 0, CLAIM);
        vm.warp(t.t3);
        _report(1, 0, IPoUW.Verdict.Winner, _miner(0));
        _report(1, 2, IPoUW.Verdict.Winner, _miner(0));
        vm.warp(t.t5);
        arena.finalize();
        uint256 share = _feeOf(REWARD) / 2;
        _equal(arena.credits(_miner(0)), REWARD - 2 * share, "the winner is paid");
        _equal(arena.credits(publisher), _bondOf(REWARD), "the bond is back");
        _equal(arena.credits(_oracle(0)) + arena.credits(_oracle(2)), 2 * share, "who voted for it share the fee");
        _equal(arena.credits(address(0)), 0, "nothing is burned");
    }

    function test_commit__copiedFromAnother__opensForNobodyButItsOwner() public {
        Times memory t = _begin(REWARD, false);
        bytes32 word = _commitment(1, _miner(0));
        _commit(1, 0);
        vm.prank(_miner(1));
        arena.commit(1, word);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        Shown memory shown = _shownBy(0, 1);
        _refuses(arena, _miner(1), 1, shown, _mismatch(arena, 1, _miner(1), shown));
        shown.signature = _signature(1, 1, CLAIM);
        _refuses(arena, _miner(1), 1, shown, _mismatch(arena, 1, _miner(1), shown));
        _reveal(1, 0, CLAIM);
        _equal(arena.rounds(1).reveals, 1, "its owner reveals");
    }

    /// @dev The same deployment on both sides of a fork: same address, same state, another chain id.
    function test_reveal__replayedOnAnotherChain__isRefused() public {
        Times memory t = _begin(REWARD, false);
        Shown memory shown = _shownBy(0, 1);
        _commit(1, 0);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        vm.chainId(block.chainid + 1);
        _refuses(arena, shown.miner, 1, shown, _mismatch(arena, 1, shown.miner, shown));
    }

    /// @dev Its owner committed to the same model on both chains: what was signed for one does not count on the other.
    function test_reveal__signedForAnotherChain__isRefused() public {
        Times memory t = _begin(REWARD, false);
        Shown memory shown = _shownBy(0, 1);
        vm.chainId(block.chainid + 1);
        _commit(1, 0);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        _refuses(arena, shown.miner, 1, shown, _notSigned(shown.miner));
        _reveal(1, 0, CLAIM);
    }

    function test_reveal__replayedOnAnotherArena__isRefused() public {
        Shown memory shown = _shownBy(0, 1);
        bytes32 word = _commitment(1, shown.miner);
        _deploy(_usual());
        Times memory t = _begin(REWARD, false);
        vm.prank(shown.miner);
        arena.commit(1, word);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        _refuses(arena, shown.miner, 1, shown, _mismatch(arena, 1, shown.miner, shown));
    }

    function test_reveal__signedForAnotherArena__isRefused() public {
        Shown memory shown = _shownBy(0, 1);
        _deploy(_usual());
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        _refuses(arena, shown.miner, 1, shown, _notSigned(shown.miner));
    }

    function test_reveal__replayedInAnotherRound__isRefused() public {
        Times memory t = _begin(REWARD, false);
        Shown memory shown = _shownBy(0, 1);
        bytes32 word = _commitment(1, shown.miner);
        vm.warp(t.t2);
        arena.finalize();
        t = _begin(REWARD, false);
        vm.prank(shown.miner);
        arena.commit(2, word);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        _refuses(arena, shown.miner, 2, shown, _mismatch(arena, 2, shown.miner, shown));
        _refuses(arena, shown.miner, 1, shown, abi.encodeWithSelector(IPoUW.TestNotOpen.selector, uint64(1)));
    }

    function test_reveal__signedForAnotherRound__isRefused() public {
        Times memory t = _begin(REWARD, false);
        bytes memory signature = _signature(1, 0, CLAIM);
        vm.warp(t.t2);
        arena.finalize();
        t = _begin(REWARD, false);
        _commit(2, 0);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        Shown memory shown = _shownBy(0, 2);
        shown.signature = signature;
        _refuses(arena, shown.miner, 2, shown, _notSigned(shown.miner));
        _reveal(2, 0, CLAIM);
    }

    /// @dev Each call that takes money, with a unit of ether along; then ether alone.
    function test_tokenArena__etherSent__isRefused() public {
        IPoUW.Parameters memory p = _usual();
        p.asset = address(new PlainToken());
        _deploy(p);
        vm.deal(publisher, 10);
        vm.deal(_miner(0), 10);
        vm.deal(stranger, 10);

        _fund(publisher, 10 * REWARD);
        bytes memory publish = abi.encodeCall(IPoUW.publish, (SPEC, KEY_HASH, 0, false, REWARD, 0));
        _refusesEther(publisher, publish);
        Times memory t = _begin(REWARD, false);
        _publish(publisher, REWARD, false, 0);
        _refusesEther(publisher, abi.encodeCall(IPoUW.topUp, (2, 1000, 0)));
        _commit(1, 0);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        _fund(_miner(0), terms.minerBond);
        Shown memory shown = _shownBy(0, 1);
        _refusesEther(
            shown.miner, abi.encodeCall(IPoUW.reveal, (1, shown.manifest, CLAIM, shown.salt, shown.signature))
        );
        vm.warp(t.t4);
        _fund(stranger, terms.challengeBond);
        _refusesEther(stranger, abi.encodeCall(IPoUW.challenge, (1)));

        vm.prank(stranger);
        (bool done,) = address(arena).call{value: 1}("");
        require(!done, "no plain ether");
        _equal(address(arena).balance, 0, "none came in");
    }

    /// @dev Refused with one unit of ether, accepted without.
    function _refusesEther(address from, bytes memory data) private {
        vm.prank(from);
        (bool done, bytes memory returned) = address(arena).call{value: 1}(data);
        bytes memory why = abi.encodeWithSelector(IPoUW.WrongPayment.selector, 1, 0);
        require(!done && keccak256(returned) == keccak256(why), "no ether");
        uint256 snapshot = vm.snapshotState();
        vm.prank(from);
        (done,) = address(arena).call(data);
        require(done, "without it, it works");
        require(vm.revertToStateAndDelete(snapshot), "taken back");
    }
}
