// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Address} from "@openzeppelin/contracts/utils/Address.sol";

import {PlainToken} from "./PlainToken.sol";

/// @title Delivers, and lets a stranger act in the middle of one delivery
contract HookToken is PlainToken {
    address private _target;
    bytes private _data;

    /// @notice The next transfer calls `target` with `data` after moving the money.
    function arm(address target, bytes calldata data) external {
        (_target, _data) = (target, data);
    }

    function _update(address from, address to, uint256 amount) internal virtual override {
        super._update(from, to, amount);
        address target = _target;
        if (target == address(0)) return;
        _target = address(0);
        Address.functionCall(target, _data);
    }
}
