// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {vm} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title Five thousand false reveals above the true one
contract CrowdsOfLiarsTest is Stage {
    uint128 private constant REWARD = 1_000_000;
    uint256 private constant LIARS = 5000;

    function setUp() public {
        vm.warp(1_800_000_000);
        _deploy(_usual());
    }

    function _gasOf(address from, bytes memory data) private returns (uint256) {
        vm.prank(from);
        (bool done,) = address(arena).call(data);
        require(done, "goes through");
        return vm.lastCallGas().gasTotalUsed;
    }

    /// @dev Gas of both deciding votes and of the closing, after `liars` reveals that rank above the winner's.
    function _gasUnder(uint256 liars) private returns (uint256[3] memory used) {
        uint256 snapshot = vm.snapshotState();
        Times memory t = _begin(REWARD, false);
        _commit(1, 0);
        address[] memory crowd = new address[](liars);
        for (uint256 i = 0; i < liars; ++i) {
            crowd[i] = vm.addr(_liarKey(i));
            bytes32 word = _commitment(1, crowd[i]);
            vm.prank(crowd[i]);
            arena.commit(1, word);
        }
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
        _reveal(1, 0, 800_000);
        for (uint256 i = 0; i < liars; ++i) {
            _lie(_liarKey(i), crowd[i]);
        }
        _equal(arena.rounds(1).reveals, liars + 1, "all revealed");
        bytes memory vote = abi.encodeCall(IPoUW.report, (1, IPoUW.Verdict.Winner, _miner(0), EVIDENCE));
        vm.warp(t.t3);
        used[0] = _gasOf(_oracle(0), vote);
        used[1] = _gasOf(_oracle(1), vote);
        vm.warp(t.t5);
        used[2] = _gasOf(stranger, abi.encodeCall(IPoUW.finalize, ()));
        _equal(arena.credits(_miner(0)), REWARD - 2 * (_feeOf(REWARD) / 2), "the true claim is paid");
        for (uint256 i = 0; i < liars; ++i) {
            arena.reclaim(1, crowd[i]);
        }
        _equal(arena.credits(address(0)), liars * terms.minerBond, "every lie burns its bond");
        require(vm.revertToStateAndDelete(snapshot), "taken back");
    }

    function _liarKey(uint256 i) private pure returns (uint256) {
        return 0xDEAD_0000 + i;
    }

    function _lie(uint256 key, address liar) private {
        bytes32 manifest = _manifest(1, liar);
        bytes32 content = keccak256(abi.encode(REVEAL_TYPEHASH, uint64(1), liar, manifest, uint32(1_000_000)));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, keccak256(abi.encodePacked(hex"1901", _domain(), content)));
        vm.deal(liar, terms.minerBond);
        vm.prank(liar);
        arena.reveal{value: terms.minerBond}(1, manifest, 1_000_000, _salt(1, liar), abi.encodePacked(r, s, v));
    }

    function test_falseReveals__thousands__voteAndCloseCostTheSame() public {
        uint256[3] memory few = _gasUnder(1);
        uint256[3] memory many = _gasUnder(LIARS);
        for (uint256 i = 0; i < 3; ++i) {
            require(few[i] > 1000, "something was counted");
            _equal(many[i], few[i], "constant gas");
        }
    }
}
