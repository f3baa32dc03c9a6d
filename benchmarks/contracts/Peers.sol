// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Comparators} from "@openzeppelin/contracts/utils/Comparators.sol";
import {Heap} from "@openzeppelin/contracts/utils/structs/Heap.sol";

/// @title The pool as OpenZeppelin's heap: only its order, without escrow, history or events
contract HeapPool {
    using Heap for Heap.Uint256Heap;

    Heap.Uint256Heap private _heap;

    function fill(uint256 count, uint256 value) external {
        for (uint256 i = 0; i < count; ++i) {
            _heap.insert(value - i, Comparators.gt);
        }
    }

    function insert(uint256 value) external {
        _heap.insert(value, Comparators.gt);
    }

    function pop() external {
        _heap.pop(Comparators.gt);
    }
}

/// @title A commitment as ENS's registrar keeps it: one word, no event, no round
contract EnsCommit {
    uint256 private constant MAX_AGE = 86_400;

    mapping(bytes32 commitment => uint256 time) public commitments;

    error UnexpiredCommitmentExists(bytes32 commitment);

    function commit(bytes32 commitment) external {
        if (commitments[commitment] + MAX_AGE >= block.timestamp) revert UnexpiredCommitmentExists(commitment);
        commitments[commitment] = block.timestamp;
    }
}
