// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Fails
/// @notice The runner asserts that this failure fails: forge's npm wrappers exit 0 whatever happens.
contract CanaryTest {
    function test_canary__alwaysFails() public pure {
        require(false, "the canary sings");
    }
}
