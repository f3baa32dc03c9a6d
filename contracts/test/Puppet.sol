// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Address} from "@openzeppelin/contracts/utils/Address.sol";

/// @title An account with code: does what it is told, and meets incoming money as it was told
contract Puppet {
    enum Manner {
        Accept,
        Refuse,
        Act
    }

    Manner private _manner;
    address private _target;
    bytes private _data;

    error Refused();

    /// @notice Calls `_target` with `_data` on incoming money, or refuses it.
    receive() external payable {
        if (_manner == Manner.Refuse) revert Refused();
        if (_manner == Manner.Act) Address.functionCall(_target, _data);
    }

    /// @notice How to meet incoming money from now on.
    function meetMoney(Manner manner, address target, bytes calldata data) external {
        (_manner, _target, _data) = (manner, target, data);
    }

    /// @notice Calls `target` as this account.
    function execute(address target, uint256 value, bytes calldata data) external payable returns (bytes memory) {
        return Address.functionCallWithValue(target, data, value);
    }

    /// @notice Forces the balance onto `to`, whatever its code says.
    function force(address payable to) external {
        selfdestruct(to);
    }
}
