// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Logs whatever it is sent
/// @notice Calldata is a row of logs: one byte with the number of topics, two with the size of the data, the topics,
/// the data. So a history that was played elsewhere lies in the blocks of a real chain.
contract Echo {
    fallback() external {
        assembly ("memory-safe") {
            let at := 0
            for {} lt(at, calldatasize()) {} {
                let topics := shr(248, calldataload(at))
                let size := shr(240, calldataload(add(at, 1)))
                let first := add(at, 3)
                let data := add(first, mul(topics, 32))
                let to := mload(0x40)
                calldatacopy(to, data, size)
                let one := calldataload(first)
                let two := calldataload(add(first, 32))
                let three := calldataload(add(first, 64))
                switch topics
                case 1 { log1(to, size, one) }
                case 2 { log2(to, size, one, two) }
                case 3 { log3(to, size, one, two, three) }
                default { log4(to, size, one, two, three, calldataload(add(first, 96))) }
                at := add(data, size)
            }
        }
    }
}
