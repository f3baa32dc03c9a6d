// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Puppet} from "../../contracts/test/Puppet.sol";
import {Checks} from "./Checks.sol";
import {vm} from "./Cheats.sol";
import {TaskBooks} from "./TaskBooks.sol";

/// @title How to make a move
/// @notice Actors, chance, the clock, and calls that must work or must be refused, entered into the books.
abstract contract Moves is Checks {
    uint256 internal constant PUBLISHERS = 3;

    /// @notice A call went through, or was refused for another reason than `why`.
    error NotRefused(bytes4 why, bytes returned);

    Puppet internal puppet;
    bool internal immutable HOSTILE;
    /// @dev Calls that somebody made on the arena, accepted or refused; views are not counted.
    uint256 internal calls;
    uint256 internal _seed;
    uint256 private _draws;

    constructor(IPoUW.Parameters memory p, bool hostile) TaskBooks(p) {
        vm.warp(clock);
        HOSTILE = hostile;
        _deploy(p);
        parent = _domain();
        puppet = new Puppet();
        _know(address(0));
        _know(address(puppet));
        _know(stranger);
        if (p.arbiter != address(0)) _know(p.arbiter);
        for (uint256 i = 0; i < SEATS; ++i) {
            _know(_oracle(i));
        }
        for (uint256 i = 0; i < MINERS; ++i) {
            _know(_miner(i));
        }
        for (uint256 i = 0; i < PUBLISHERS; ++i) {
            _know(_publisher(i));
        }
    }

    function _publisher(uint256 i) internal pure returns (address) {
        return address(uint160(0xA11CE0 + i));
    }

    /// @dev A fresh number below `bound`.
    function _pick(uint256 bound) internal returns (uint256) {
        uint256 left = _seed;
        if (left < 1 << 160) left = uint256(keccak256(abi.encode(left, ++_draws)));
        _seed = left / bound;
        return left % bound;
    }

    function _chance(uint256 percent) internal returns (bool) {
        return _pick(100) < percent;
    }

    /// @dev A moment in [opens, closed), mostly on an edge, not before now.
    function _moment(uint256 opens, uint256 closed) internal returns (uint256 moment) {
        uint256 choice = _pick(5);
        if (choice == 0) moment = opens;
        else if (choice == 1) moment = opens + 1;
        else if (choice == 2) moment = closed - 1;
        else moment = opens + _pick(closed - opens);
        if (moment >= closed) moment = closed - 1;
        if (moment < clock) moment = clock;
    }

    function _setClock(uint256 time) internal {
        clock = time;
        vm.warp(time);
    }

    /// @dev One call, entered into the books. Money is brought along where `due` is not 0.
    function _send(address from, uint256 due, bytes memory data) internal returns (bool done, bytes memory returned) {
        return _sendValue(from, due == 0 ? 0 : _fund(from, due), data);
    }

    function _sendValue(address from, uint256 value, bytes memory data)
        internal
        returns (bool done, bytes memory returned)
    {
        ++calls;
        if (from.code.length != 0) {
            (done, returned) = address(puppet).call(abi.encodeCall(Puppet.execute, (address(arena), value, data)));
        } else {
            vm.prank(from);
            (done, returned) = address(arena).call{value: value}(data);
        }
        if (!done) {
            vm.recordLogs();
            return (done, returned);
        }
        (bool ofPool, bool ofRounds) = _enter(vm.getRecordedLogs(), from);
        _checkMoney(calls);
        if (ofPool || ofRounds) _checkPlaces();
        if (ofPool) _checkPool();
        if (ofRounds) _checkHeaders();
    }

    function _must(bytes32 visit, address from, uint256 due, bytes memory data) internal {
        (bool done, bytes memory returned) = _send(from, due, data);
        if (!done) {
            assembly ("memory-safe") {
                revert(add(returned, 32), mload(returned))
            }
        }
        _visit(visit);
    }

    /// @dev A call that must be refused with this error; visits are counted by error and call.
    function _refused(bytes4 why, address from, uint256 due, bytes memory data) internal {
        (bool done, bytes memory returned) = _send(from, due, data);
        if (done || bytes4(returned) != why) revert NotRefused(why, returned);
        _visit(bytes32(abi.encodePacked(why, bytes4(data))));
    }

    /// @dev A call that brings a unit too much or too little, or ether into a token arena.
    function _refusedWrongMoney(address from, uint256 due, bytes memory data) internal {
        uint256 value = 1;
        if (ASSET == address(0)) value = _fund(from, due - 1 + 2 * _pick(2));
        else _fund(from, due);
        if (ASSET != address(0)) vm.deal(from, from.balance + 1);
        (bool done, bytes memory returned) = _sendValue(from, value, data);
        if (done || bytes4(returned) != IPoUW.WrongPayment.selector) {
            revert NotRefused(IPoUW.WrongPayment.selector, returned);
        }
        _visit(bytes32(abi.encodePacked(IPoUW.WrongPayment.selector, bytes4(data))));
    }

    function _owesSelection() internal view returns (bool) {
        if (pooled.length == 0) return false;
        if (selected != 0) return clock >= selectedAt + CLOSES;
        return !live || clock >= roundBooks[begun].t0 + T1;
    }

    function _revealData(uint64 round, uint256 i, uint32 claim) internal view returns (bytes memory) {
        address miner = _miner(i);
        return abi.encodeCall(
            IPoUW.reveal, (round, _manifest(round, miner), claim, _salt(round, miner), _signature(round, i, claim))
        );
    }

    function _reportData(IPoUW.Verdict verdict, address winner) internal view returns (bytes memory) {
        return abi.encodeCall(IPoUW.report, (begun, verdict, winner, EVIDENCE));
    }

    function _ruleData(IPoUW.Verdict verdict, address winner) internal view returns (bytes memory) {
        return abi.encodeCall(IPoUW.rule, (begun, verdict, winner, EVIDENCE));
    }

    function _challengeData() internal view returns (bytes memory) {
        return abi.encodeCall(IPoUW.challenge, (begun));
    }
}
