// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

import {HookToken} from "../../contracts/test/HookToken.sol";

/// @title A token that takes fees, lies and lets strangers act, as it is told before each transfer
contract HostileToken is HookToken {
    enum Manner {
        Honest,
        Fee,
        Lie
    }

    Manner private _manner;

    function behave(Manner manner) external {
        _manner = manner;
    }

    function _update(address from, address to, uint256 amount) internal override {
        bool minted = from == address(0);
        if (_manner == Manner.Fee && !minted && amount > 1) {
            ERC20._update(from, address(0), 1);
            amount -= 1;
        }
        if (_manner == Manner.Lie && !minted) return;
        super._update(from, to, amount);
    }
}
