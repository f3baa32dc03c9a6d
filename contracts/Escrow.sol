// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IPoUW} from "./IPoUW.sol";

/// @title Money in and out
/// @notice What comes in is measured, what goes out was credited and is pulled by its creditor.
abstract contract Escrow is IPoUW {
    using SafeERC20 for IERC20;

    address private immutable ASSET;

    /// @inheritdoc IPoUW
    mapping(address account => uint256) public credits;

    constructor(address asset) {
        ASSET = asset;
    }

    /// @inheritdoc IPoUW
    function withdraw(address to) external returns (uint256 amount) {
        if (to == address(0)) revert InvalidReceiver();
        amount = credits[msg.sender];
        if (amount == 0) revert NothingToWithdraw(msg.sender);

        credits[msg.sender] = 0;
        emit Withdrawn(msg.sender, to, amount);

        if (ASSET == address(0)) {
            (bool sent,) = to.call{value: amount}("");
            if (!sent) revert PaymentFailed(to, amount);
        } else {
            IERC20(ASSET).safeTransfer(to, amount);
        }
    }

    function _credit(address account, uint256 amount) internal {
        if (amount == 0) return;
        credits[account] += amount;
        emit Credited(account, amount);
    }

    /// @dev The last step of every call that brings money. A token that delivers less, or more, than it was told
    /// to is refused, so that nobody's escrow pays for it.
    function _take(uint256 amount) internal {
        if (ASSET == address(0)) {
            if (msg.value != amount) revert WrongPayment(msg.value, amount);
            return;
        }
        if (msg.value != 0) revert WrongPayment(msg.value, 0);
        uint256 before = IERC20(ASSET).balanceOf(address(this));
        IERC20(ASSET).safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = IERC20(ASSET).balanceOf(address(this)) - before;
        if (received != amount) revert WrongPayment(received, amount);
    }
}
