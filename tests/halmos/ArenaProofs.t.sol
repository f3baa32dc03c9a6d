// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {PoUW} from "../../contracts/PoUW.sol";

/// @title The cheatcodes of halmos that these proofs use
interface Cheats {
    function warp(uint256 time) external;
    function deal(address account, uint256 balance) external;
    function prank(address sender) external;
    function chainId(uint256 id) external;
}

/// @title An arena of the usual parameters
abstract contract Deployed {
    Cheats internal constant vm = Cheats(address(uint160(uint256(keccak256("hevm cheat code")))));
    address internal constant PUBLISHER = address(0xA11CE);
    address internal constant STRANGER = address(0x57A);
    address internal constant ARBITER = address(0xA4B);
    uint256 internal constant START = 1_800_000_000;
    uint256 internal constant PHASE2 = 1500;
    bytes32 internal constant TEST_KEY = bytes32(uint256(7));

    PoUW internal arena;

    function setUp() public {
        vm.warp(START);
        arena = new PoUW(_usual());
    }

    function _usual() internal pure returns (IPoUW.Parameters memory p) {
        address[] memory oracles = new address[](3);
        for (uint256 i = 0; i < 3; ++i) {
            oracles[i] = _oracle(i);
        }
        p = IPoUW.Parameters({
            asset: address(0),
            phase1: 1000,
            keyWindow: 100,
            revealWindow: 200,
            reportWindow: 300,
            challengeWindow: 400,
            rulingWindow: 500,
            minReward: 1000,
            publisherBondBps: 1000,
            oracleFeeBps: 500,
            minerBond: 50,
            challengeBond: 70,
            oracles: oracles,
            threshold: 2,
            arbiter: ARBITER
        });
    }

    function _oracle(uint256 i) internal pure returns (address) {
        return address(uint160(0x0AC1E0 + i));
    }

    function _keyHash() internal pure returns (bytes32) {
        return keccak256(abi.encode(keccak256(abi.encode(TEST_KEY))));
    }

    function _bondOf(uint256 reward) internal pure returns (uint256) {
        return reward * 1000 / 10_000;
    }

    function _publish(uint128 reward) internal returns (uint64) {
        uint256 value = uint256(reward) + _bondOf(reward);
        vm.deal(PUBLISHER, value);
        vm.prank(PUBLISHER);
        return arena.publish{value: value}(bytes32(uint256(1)), _keyHash(), 0, false, reward, 0);
    }

    /// @dev What the arena owes to everybody who can be owed something here, burned money included.
    function _credited() internal view returns (uint256 sum) {
        sum = arena.credits(address(0)) + arena.credits(PUBLISHER) + arena.credits(STRANGER) + arena.credits(ARBITER);
        for (uint256 i = 0; i < 3; ++i) {
            sum += arena.credits(_oracle(i));
        }
    }
}

/// @title What a commitment binds
/// @notice Halmos takes keccak256 for injective on inputs of equal length: a collision would be the only exception.
contract BindingProofs is Deployed {
    function check_commitment__equal__opensToOneThingOnly(
        uint64[2] calldata round,
        address[2] calldata miner,
        bytes32[2] calldata manifest,
        bytes32[2] calldata salt
    ) external view {
        bytes32 one = arena.commitmentOf(round[0], miner[0], manifest[0], salt[0]);
        bytes32 other = arena.commitmentOf(round[1], miner[1], manifest[1], salt[1]);
        if (one != other) return;
        assert(round[0] == round[1] && miner[0] == miner[1] && manifest[0] == manifest[1] && salt[0] == salt[1]);
    }

    function check_commitment__anotherArena__differs(uint64 round, address miner, bytes32 manifest, bytes32 salt)
        external
    {
        PoUW other = new PoUW(_usual());
        assert(arena.commitmentOf(round, miner, manifest, salt) != other.commitmentOf(round, miner, manifest, salt));
    }

    function check_commitment__anotherChain__differs(
        uint64 round,
        address miner,
        bytes32 manifest,
        bytes32 salt,
        uint64 chain
    ) external {
        if (chain == block.chainid) return;
        bytes32 here = arena.commitmentOf(round, miner, manifest, salt);
        vm.chainId(chain);
        assert(arena.commitmentOf(round, miner, manifest, salt) != here);
    }

    function check_commit__anyWord__keepsIts22Bytes(address miner, bytes32 word, uint16 later) external {
        _publish(1000);
        vm.warp(START + PHASE2);
        arena.releaseDataKey(keccak256(abi.encode(TEST_KEY)));
        vm.warp(START + PHASE2 + later);
        vm.prank(miner);
        try arena.commit(1, word) {
            assert(later < 1000 && arena.entries(1, miner).digest == bytes22(word));
            assert(arena.entries(1, miner).committedAt == START + PHASE2 + later);
        } catch {
            assert(later >= 1000);
        }
    }
}

/// @title No call loses or makes money
/// @notice After each call the contract holds exactly what is escrowed and what it owes, for all amounts.
contract ConservationProofs is Deployed {
    function check_publish__anyRewardAndPayment__holdsRewardAndBond(uint128 reward, uint256 paid) external {
        vm.deal(PUBLISHER, paid);
        vm.prank(PUBLISHER);
        try arena.publish{value: paid}(bytes32(0), _keyHash(), 0, false, reward, 0) {
            assert(reward >= 1000 && paid == uint256(reward) + _bondOf(reward));
            assert(address(arena).balance == paid && arena.tasks(1).reward == reward && _credited() == 0);
        } catch {
            assert(address(arena).balance == 0);
        }
    }

    /// @dev Bonds are taken of the rewards as they are stored, so that the solver has no division to compare.
    function check_topUp__anyAmountAndPayment__holdsRewardsAndBonds(uint64 amount, uint256 paid) external {
        _publish(1000);
        _publish(2005);
        uint256 held = address(arena).balance;
        vm.deal(PUBLISHER, paid);
        vm.prank(PUBLISHER);
        try arena.topUp{value: paid}(2, amount, 0) {
            uint128 grown = arena.tasks(2).reward;
            assert(grown == 2005 + uint256(amount) && amount != 0);
            assert(paid == amount + _bondOf(grown) - _bondOf(2005));
            assert(address(arena).balance == held + paid && _credited() == 0);
        } catch {
            assert(address(arena).balance == held);
        }
    }

    function check_cancel__anyReward__creditsRewardAndBond(uint128 reward) external {
        if (reward < 1000) return;
        _publish(1000);
        _publish(reward);
        vm.prank(PUBLISHER);
        arena.cancel(2);
        assert(arena.credits(PUBLISHER) == uint256(reward) + _bondOf(reward));
        assert(address(arena).balance == _credited() + 1100);
    }

    function check_drop__anyReward__creditsRewardAndBurnsBond(uint128 reward) external {
        if (reward < 1000) return;
        _publish(reward);
        vm.warp(START + PHASE2 + 100);
        arena.sync();
        assert(arena.credits(PUBLISHER) == reward && arena.credits(address(0)) == _bondOf(reward));
        assert(address(arena).balance == _credited());
    }

    function check_withdraw__anyCredit__paysItOnce(uint128 reward, address to) external {
        if (reward < 1000 || to == address(0) || to == address(arena) || to == address(this)) return;
        _publish(1000);
        _publish(reward);
        vm.prank(PUBLISHER);
        arena.cancel(2);
        uint256 before = address(arena).balance;
        vm.prank(PUBLISHER);
        try arena.withdraw(to) returns (uint256 amount) {
            assert(amount == uint256(reward) + _bondOf(reward));
            assert(address(arena).balance == before - amount && arena.credits(PUBLISHER) == 0);
        } catch {
            assert(address(arena).balance == before && arena.credits(PUBLISHER) != 0);
        }
    }

    /// @dev Rounds without reveals: opened or not, voted invalid by any oracles, disputed or not, ruled or not.
    function check_finalize__anyRewardVotesAndDispute__creditsAllOfIt(
        uint128 reward,
        bool opened,
        bool[3] calldata voting,
        bool challenged,
        bool ruled
    ) external {
        if (reward < 1000) return;
        _publish(reward);
        uint256 t0 = START + PHASE2;
        vm.warp(t0);
        arena.releaseDataKey(keccak256(abi.encode(TEST_KEY)));
        if (opened) _playOpened(t0, voting, challenged, ruled);
        vm.warp(t0 + 2500);
        uint256 held = address(arena).balance;
        arena.finalize();
        assert(address(arena).balance == held && held == _credited());
        assert(!arena.arena().live && arena.rounds(1).header != 0);
    }

    function _playOpened(uint256 t0, bool[3] calldata voting, bool challenged, bool ruled) private {
        vm.warp(t0 + 1000);
        arena.openTest(TEST_KEY);
        vm.warp(t0 + 1300);
        for (uint256 i = 0; i < 3; ++i) {
            if (!voting[i]) continue;
            vm.prank(_oracle(i));
            arena.report(1, IPoUW.Verdict.Invalid, address(0), bytes32(0));
        }
        if (!challenged) return;
        vm.warp(t0 + 1600);
        vm.deal(STRANGER, 70);
        vm.prank(STRANGER);
        arena.challenge{value: 70}(1);
        if (!ruled) return;
        vm.prank(ARBITER);
        arena.rule(1, IPoUW.Verdict.Invalid, address(0), bytes32(0));
    }
}
