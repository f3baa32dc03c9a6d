// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title The cheatcodes of forge that these tests use
interface Cheats {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    struct Gas {
        uint64 gasLimit;
        uint64 gasTotalUsed;
        uint64 gasMemoryUsed;
        int64 gasRefunded;
        uint64 gasRemaining;
    }

    function lastCallGas() external view returns (Gas memory);
    function warp(uint256 time) external;
    function deal(address account, uint256 balance) external;
    function prank(address sender) external;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function assume(bool condition) external pure;
    function expectRevert(bytes calldata data) external;
    function chainId(uint256 id) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function writeLine(string calldata path, string calldata line) external;
    function readFile(string calldata path) external view returns (string memory);
    function parseBytes(string calldata hexadecimal) external pure returns (bytes memory);
    function envOr(string calldata name, string calldata usual) external view returns (string memory);
    function getCode(string calldata artifact) external view returns (bytes memory);
    function toString(bytes calldata value) external pure returns (string memory);
    function snapshotState() external returns (uint256 id);
    function revertToStateAndDelete(uint256 id) external returns (bool);
}

Cheats constant vm = Cheats(address(uint160(uint256(keccak256("hevm cheat code")))));
