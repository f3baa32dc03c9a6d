// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "../../contracts/IPoUW.sol";

/// @title Many publishers at once
contract Crowd {
    /// @notice Publishes `count` tasks with a bond of a tenth, rewards rising by `step`, each with the one before as its
    /// hint.
    function publish(IPoUW arena, uint256 count, uint128 reward, uint128 step, uint64 hint) external payable {
        for (uint256 i = 0; i < count; ++i) {
            hint = arena.publish{value: reward + reward / 10}(bytes32(i + 1), bytes32(i + 1), 0, false, reward, hint);
            reward += step;
        }
    }
}
