// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {vm} from "./Cheats.sol";
import {Stage} from "./Stage.sol";

/// @title Every window one second before its edge, on it, and one second after
contract EdgesTest is Stage {
    uint128 private constant REWARD = 100_003;
    uint256 private constant LONG_AGO = 1_800_000_000;

    function setUp() public {
        vm.warp(LONG_AGO);
        _deploy(_usual());
        vm.deal(stranger, 1 ether);
        vm.deal(_miner(0), 1 ether);
    }

    /// @dev The call is TooEarly until `edge`, and works from there on.
    function _opensAt(uint256 edge, address from, uint256 value, bytes memory data) private {
        _try(edge - 1, from, value, data, abi.encodeWithSelector(IPoUW.TooEarly.selector, edge - 1, edge));
        _try(edge, from, value, data, "");
        _try(edge + 1, from, value, data, "");
    }

    /// @dev The call works until `edge`, and is TooLate from there on.
    function _closesAt(uint256 edge, address from, uint256 value, bytes memory data) private {
        _try(edge - 1, from, value, data, "");
        _try(edge, from, value, data, abi.encodeWithSelector(IPoUW.TooLate.selector, edge, edge));
        _try(edge + 1, from, value, data, abi.encodeWithSelector(IPoUW.TooLate.selector, edge + 1, edge));
    }

    /// @dev The round can be closed from `edge` on, not before.
    function _decidedAt(uint256 edge) private {
        bytes memory data = abi.encodeCall(IPoUW.finalize, ());
        _try(edge - 1, stranger, 0, data, abi.encodeWithSelector(IPoUW.NotDecided.selector, uint64(1)));
        _try(edge, stranger, 0, data, "");
        _try(edge + 1, stranger, 0, data, "");
    }

    /// @dev One call at `time`, which is taken back; it must fail with `why`, or work where `why` is empty.
    function _try(uint256 time, address from, uint256 value, bytes memory data, bytes memory why) private {
        uint256 snapshot = vm.snapshotState();
        vm.warp(time);
        vm.prank(from);
        (bool done, bytes memory returned) = address(arena).call{value: value}(data);
        require(done == (why.length == 0), done ? "should be refused" : "should work");
        require(done || keccak256(returned) == keccak256(why), "another error");
        require(vm.revertToStateAndDelete(snapshot), "taken back");
    }

    function _claim() private view returns (bytes memory) {
        bytes memory signature = _signature(1, 0, 800_000);
        address miner = _miner(0);
        return abi.encodeCall(IPoUW.reveal, (1, _manifest(1, miner), 800_000, _salt(1, miner), signature));
    }

    function _vote() private pure returns (bytes memory) {
        return abi.encodeCall(IPoUW.report, (1, IPoUW.Verdict.Invalid, address(0), EVIDENCE));
    }

    /// @dev Round 1 after a commit, its test set open.
    function _opened() private returns (Times memory t) {
        t = _begin(REWARD, false);
        _commit(1, 0);
        vm.warp(t.t1);
        arena.openTest(TEST_KEY);
    }

    function _challenged() private returns (Times memory t) {
        t = _opened();
        vm.warp(t.t4);
        vm.prank(stranger);
        arena.challenge{value: terms.challengeBond}(1);
    }

    function test_select__liveRound__fromT1() public {
        Times memory t = _begin(REWARD, false);
        _publish(publisher, REWARD, false, 0);
        for (uint256 time = t.t1 - 1; time <= t.t1 + 1; ++time) {
            uint256 snapshot = vm.snapshotState();
            vm.warp(time);
            arena.sync();
            require((arena.arena().selected == 2) == (time >= t.t1), "selected from t1 on");
            require(vm.revertToStateAndDelete(snapshot), "taken back");
        }
    }

    function test_releaseDataKey__edges() public {
        _publish(publisher, REWARD, false, 0);
        uint256 opens = LONG_AGO + _phase2();
        uint256 closes = opens + terms.keyWindow;
        bytes memory release = abi.encodeCall(IPoUW.releaseDataKey, (DATA_KEY));
        _opensAt(opens, stranger, 0, release);
        _try(closes - 1, stranger, 0, release, "");
        _try(closes, stranger, 0, release, abi.encodeWithSelector(IPoUW.NothingSelected.selector));
        _try(closes + 1, stranger, 0, release, abi.encodeWithSelector(IPoUW.NothingSelected.selector));
    }

    function test_drop__keyLate__fromCloses() public {
        _publish(publisher, REWARD, false, 0);
        uint256 closes = LONG_AGO + _phase2() + terms.keyWindow;
        for (uint256 time = closes - 1; time <= closes + 1; ++time) {
            uint256 snapshot = vm.snapshotState();
            vm.warp(time);
            arena.sync();
            _equal(arena.credits(publisher), time < closes ? 0 : REWARD, "dropped from there on");
            require(vm.revertToStateAndDelete(snapshot), "taken back");
        }
    }

    function test_commit__edge() public {
        Times memory t = _begin(REWARD, false);
        _closesAt(t.t1, _miner(0), 0, abi.encodeCall(IPoUW.commit, (1, SPEC)));
    }

    function test_openTest__edges() public {
        Times memory t = _begin(REWARD, false);
        bytes memory open = abi.encodeCall(IPoUW.openTest, (TEST_KEY));
        _opensAt(t.t1, stranger, 0, open);
        _closesAt(t.t2, stranger, 0, open);
    }

    function test_reveal__edge() public {
        Times memory t = _opened();
        _closesAt(t.t3, _miner(0), terms.minerBond, _claim());
    }

    function test_report__edges() public {
        Times memory t = _opened();
        _opensAt(t.t3, _oracle(0), 0, _vote());
        _closesAt(t.t4, _oracle(0), 0, _vote());
    }

    function test_challenge__edges() public {
        Times memory t = _opened();
        bytes memory challenge = abi.encodeCall(IPoUW.challenge, (1));
        _opensAt(t.t4, stranger, terms.challengeBond, challenge);
        _closesAt(t.t5, stranger, terms.challengeBond, challenge);
    }

    function test_rule__edge() public {
        Times memory t = _challenged();
        _closesAt(t.t6, arbiter, 0, abi.encodeCall(IPoUW.rule, (1, IPoUW.Verdict.Invalid, address(0), EVIDENCE)));
    }

    function test_finalize__notOpened__fromT2() public {
        _decidedAt(_begin(REWARD, false).t2);
    }

    function test_finalize__notChallenged__fromT5() public {
        _decidedAt(_opened().t5);
    }

    function test_finalize__silentArbiter__fromT6() public {
        _decidedAt(_challenged().t6);
    }

    function test_nextRound__begins__notBeforeT6() public {
        Times memory t = _opened();
        _publish(publisher, REWARD, false, 0);
        require(arena.arena().selected == 2, "selected at t1, the earliest moment");
        _opensAt(t.t6, stranger, 0, abi.encodeCall(IPoUW.releaseDataKey, (DATA_KEY)));
    }
}
