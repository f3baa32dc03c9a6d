// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {PlainToken} from "../../contracts/test/PlainToken.sol";
import {vm} from "./Cheats.sol";

/// @title One arena with its actors
/// @notice Manifest, salt and signature follow from miner and round, so that nothing has to be remembered.
abstract contract Stage {
    uint256 internal constant MINERS = 5;
    uint256 internal constant ORACLES = 3;
    bytes32 internal constant TEST_KEY = keccak256("the publisher's secret");
    bytes32 internal constant DATA_KEY = keccak256(abi.encode(TEST_KEY));
    bytes32 internal constant KEY_HASH = keccak256(abi.encode(DATA_KEY));
    bytes32 internal constant SPEC = keccak256("spec");
    bytes32 internal constant EVIDENCE = keccak256("evidence");
    bytes32 internal constant COMMIT_TYPEHASH = keccak256(
        "Commit(uint256 chainId,address arena,uint64 round,address miner,bytes32 manifestDigest,bytes32 salt)"
    );
    bytes32 internal constant REVEAL_TYPEHASH =
        keccak256("Reveal(uint64 round,address miner,bytes32 manifestDigest,uint32 claimedScore)");

    IPoUW internal arena;
    PlainToken internal token;
    IPoUW.Parameters internal terms;
    address[] private _miners;
    address internal publisher = address(0xA11CE);
    address internal stranger = address(0x57A);
    address internal arbiter = address(0xA4B);

    struct Times {
        uint256 t0;
        uint256 t1;
        uint256 t2;
        uint256 t3;
        uint256 t4;
        uint256 t5;
        uint256 t6;
    }

    function _deploy(IPoUW.Parameters memory p) internal {
        for (uint256 i = 0; i < MINERS; ++i) {
            _miners.push(vm.addr(_minerKey(i)));
        }
        terms = p;
        token = PlainToken(p.asset);
        bytes memory code = abi.encodePacked(_arenaCode(), abi.encode(p));
        address deployed;
        assembly ("memory-safe") {
            deployed := create(0, add(code, 32), mload(code))
        }
        require(deployed != address(0), "deployed");
        arena = IPoUW(deployed);
    }

    /// @dev The compiled contract, or the bytecode in the file that ARENA_CODE names: a mutant.
    function _arenaCode() private view returns (bytes memory) {
        string memory path = vm.envOr("ARENA_CODE", string(""));
        return bytes(path).length == 0 ? vm.getCode("PoUW.sol:PoUW") : vm.parseBytes(vm.readFile(path));
    }

    /// @dev Windows of distinct lengths, three oracles of whom two decide, an arbiter.
    function _usual() internal view returns (IPoUW.Parameters memory p) {
        address[] memory oracles = new address[](ORACLES);
        for (uint256 i = 0; i < ORACLES; ++i) {
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
            arbiter: arbiter
        });
    }

    function _oracle(uint256 i) internal pure returns (address) {
        return address(uint160(0x0AC1E0 + i));
    }

    function _minerKey(uint256 i) internal pure returns (uint256) {
        return 0xBEEF + i;
    }

    function _miner(uint256 i) internal view returns (address) {
        return _miners[i];
    }

    function _timesOf(uint64 round) internal view returns (Times memory t) {
        t.t0 = arena.rounds(round).t0;
        t.t1 = t.t0 + terms.phase1;
        t.t2 = t.t1 + terms.keyWindow;
        t.t3 = t.t2 + terms.revealWindow;
        t.t4 = t.t3 + terms.reportWindow;
        t.t5 = t.t4 + terms.challengeWindow;
        t.t6 = t.t5 + terms.rulingWindow;
    }

    function _phase2() internal view returns (uint256) {
        return
            uint256(terms.keyWindow) + terms.revealWindow + terms.reportWindow + terms.challengeWindow
                + terms.rulingWindow;
    }

    function _bondOf(uint256 reward) internal view returns (uint256) {
        return reward * terms.publisherBondBps / 10_000;
    }

    function _feeOf(uint256 reward) internal view returns (uint256) {
        return reward * terms.oracleFeeBps / 10_000;
    }

    function _manifest(uint64 round, address miner) internal pure returns (bytes32) {
        return keccak256(abi.encode("manifest", round, miner));
    }

    function _salt(uint64 round, address miner) internal pure returns (bytes32) {
        return keccak256(abi.encode("salt", round, miner));
    }

    /// @dev After docs/protocol.md, not by asking the arena.
    function _commitment(uint64 round, address miner) internal view returns (bytes32) {
        return _commitmentTo(round, miner, _manifest(round, miner), _salt(round, miner));
    }

    function _commitmentTo(uint64 round, address miner, bytes32 manifest, bytes32 salt)
        internal
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(COMMIT_TYPEHASH, block.chainid, address(arena), round, miner, manifest, salt));
    }

    function _signature(uint64 round, uint256 i, uint32 claim) internal view returns (bytes memory) {
        address miner = _miner(i);
        bytes32 content = keccak256(abi.encode(REVEAL_TYPEHASH, round, miner, _manifest(round, miner), claim));
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(_minerKey(i), keccak256(abi.encodePacked(hex"1901", _domain(), content)));
        return abi.encodePacked(r, s, v);
    }

    function _domain() internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("PoUW"),
                keccak256("1"),
                block.chainid,
                address(arena)
            )
        );
    }

    /// @dev Gives `account` that much of the asset, and tells what to send along.
    function _fund(address account, uint256 amount) internal returns (uint256 value) {
        if (terms.asset == address(0)) {
            if (account.balance < amount) vm.deal(account, amount << 64);
            return amount;
        }
        if (token.balanceOf(account) < amount) token.mint(account, amount << 64);
        if (token.allowance(account, address(arena)) >= amount) return 0;
        vm.prank(account);
        token.approve(address(arena), type(uint256).max);
    }

    function _publish(address account, uint128 reward, bool first, uint64 hint) internal returns (uint64) {
        uint256 value = _fund(account, reward + _bondOf(reward));
        vm.prank(account);
        return arena.publish{value: value}(SPEC, KEY_HASH, 500_000, first, reward, hint);
    }

    function _commit(uint64 round, uint256 i) internal {
        address miner = _miner(i);
        bytes32 word = _commitment(round, miner);
        vm.prank(miner);
        arena.commit(round, word);
    }

    function _reveal(uint64 round, uint256 i, uint32 claim) internal {
        address miner = _miner(i);
        bytes memory signature = _signature(round, i, claim);
        uint256 value = _fund(miner, terms.minerBond);
        vm.prank(miner);
        arena.reveal{value: value}(round, _manifest(round, miner), claim, _salt(round, miner), signature);
    }

    function _report(uint64 round, uint256 i, IPoUW.Verdict verdict, address winner) internal {
        vm.prank(_oracle(i));
        arena.report(round, verdict, winner, EVIDENCE);
    }

    /// @dev Publishes into the idle arena and begins the round.
    function _begin(uint128 reward, bool first) internal returns (Times memory) {
        _publish(publisher, reward, first, 0);
        vm.warp(arena.arena().selectedAt + _phase2());
        arena.releaseDataKey(DATA_KEY);
        return _timesOf(arena.arena().rounds);
    }

    function _equal(uint256 left, uint256 right, string memory what) internal pure {
        require(left == right, what);
    }
}
