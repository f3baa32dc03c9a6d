// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";
import {Puppet} from "../../contracts/test/Puppet.sol";
import {Books} from "./Books.sol";
import {vm} from "./Cheats.sol";
import {HostileToken} from "./HostileToken.sol";

/// @title How to make a move
/// @notice Actors, chance, the clock, and calls that must work or must be refused, entered into the books.
abstract contract Moves is Books {
    uint256 internal constant PUBLISHERS = 3;

    /// @notice A call went through, or was refused for another reason than `why`.
    error NotRefused(bytes4 why, bytes returned);

    Puppet internal puppet;
    bool internal hostile;
    uint256 internal _seed;

    constructor(IPoUW.Parameters memory p, bool hostileToken) {
        vm.warp(clock);
        hostile = hostileToken;
        if (hostileToken) p.asset = address(new HostileToken());
        _deploy(p);
        parent = _domain();
        puppet = new Puppet();
        _know(address(0));
        _know(address(puppet));
        _know(stranger);
        if (p.arbiter != address(0)) _know(p.arbiter);
        for (uint256 i = 0; i < p.oracles.length; ++i) {
            _know(p.oracles[i]);
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
        _seed = uint256(keccak256(abi.encode(_seed)));
        return _seed % bound;
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
        uint256 value = due == 0 ? 0 : _fund(from, due);
        vm.recordLogs();
        if (from.code.length != 0) {
            (done, returned) = address(puppet).call(abi.encodeCall(Puppet.execute, (address(arena), value, data)));
        } else {
            vm.prank(from);
            (done, returned) = address(arena).call{value: value}(data);
        }
        if (done) _enter(vm.getRecordedLogs(), from);
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

    /// @dev A call that must be refused with this error.
    function _refused(bytes4 why, address from, uint256 due, bytes memory data) internal {
        (bool done, bytes memory returned) = _send(from, due, data);
        if (done || bytes4(returned) != why) revert NotRefused(why, returned);
        _visit(bytes32(why));
    }

    function _owesSelection() internal view returns (bool) {
        if (pooled.length == 0) return false;
        if (selected != 0) return clock >= selectedAt + _phase2() + terms.keyWindow;
        return !live || clock >= roundBooks[begun].t0 + terms.phase1;
    }

    function _revealData(uint64 round, uint256 i, uint32 claim) internal view returns (bytes memory) {
        address miner = _miner(i);
        return abi.encodeCall(
            IPoUW.reveal, (round, _manifest(round, miner), claim, _salt(round, miner), _signature(round, i, claim))
        );
    }
}
