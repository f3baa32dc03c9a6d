// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IPoUW} from "./IPoUW.sol";

/// @title What one deployment fixes
/// @notice The parameters of an arena, checked once, and what follows from them: deadlines, bonds, the committee.
abstract contract Terms is IPoUW {
    uint256 private constant BPS = 10_000;
    uint256 private constant MAX_ORACLES = 16;
    /// @dev Bounds every window, so that no sum of deadlines leaves 40 bits before the year 36,000.
    uint256 private constant MAX_WINDOW = 365 days;

    /// @dev Seconds from t0 to t1 … t6.
    uint256 internal immutable T1;
    uint256 internal immutable T2;
    uint256 internal immutable T3;
    uint256 internal immutable T4;
    uint256 internal immutable T5;
    uint256 internal immutable T6;
    /// @dev Seconds from `selectedAt` to `opens` and `closes`.
    uint256 internal immutable OPENS;
    uint256 internal immutable CLOSES;
    uint256 internal immutable MIN_REWARD;
    uint256 private immutable PUBLISHER_BOND_BPS;
    uint256 private immutable ORACLE_FEE_BPS;
    uint256 internal immutable MINER_BOND;
    uint256 internal immutable CHALLENGE_BOND;
    uint256 internal immutable THRESHOLD;
    address internal immutable ARBITER;

    Parameters private _parameters;
    /// @dev An oracle's bit in bitmaps of votes, after its place in `oracles`; 0: not of the committee.
    mapping(address oracle => uint16 bit) internal _bits;

    constructor(Parameters memory p) {
        _checkParameters(p);
        _parameters = p;
        T1 = p.phase1;
        T2 = T1 + p.keyWindow;
        T3 = T2 + p.revealWindow;
        T4 = T3 + p.reportWindow;
        T5 = T4 + p.challengeWindow;
        T6 = T5 + p.rulingWindow;
        OPENS = T6 - T1;
        CLOSES = OPENS + p.keyWindow;
        MIN_REWARD = p.minReward;
        PUBLISHER_BOND_BPS = p.publisherBondBps;
        ORACLE_FEE_BPS = p.oracleFeeBps;
        MINER_BOND = p.minerBond;
        CHALLENGE_BOND = p.challengeBond;
        THRESHOLD = p.threshold;
        ARBITER = p.arbiter;
        for (uint256 i = 0; i < p.oracles.length; ++i) {
            address oracle = p.oracles[i];
            _check(oracle != address(0) && _bits[oracle] == 0, "oracles");
            _bits[oracle] = uint16(1 << i);
        }
    }

    /// @inheritdoc IPoUW
    function parameters() external view returns (Parameters memory) {
        return _parameters;
    }

    function _oracleAt(uint256 place) internal view returns (address) {
        return _parameters.oracles[place];
    }

    function _bondOf(uint256 reward) internal view returns (uint256) {
        return reward * PUBLISHER_BOND_BPS / BPS;
    }

    function _feeOf(uint256 reward) internal view returns (uint256) {
        return reward * ORACLE_FEE_BPS / BPS;
    }

    function _requireFrom(uint256 opens) internal view {
        if (block.timestamp < opens) revert TooEarly(block.timestamp, opens);
    }

    function _requireBefore(uint256 closed) internal view {
        if (block.timestamp >= closed) revert TooLate(block.timestamp, closed);
    }

    function _checkParameters(Parameters memory p) private pure {
        uint256 members = p.oracles.length;
        bool ruled = p.arbiter != address(0);
        _check(p.phase1 != 0 && p.phase1 <= MAX_WINDOW, "phase1");
        _check(p.keyWindow != 0 && p.keyWindow <= MAX_WINDOW, "keyWindow");
        _check(p.revealWindow != 0 && p.revealWindow <= MAX_WINDOW, "revealWindow");
        _check(p.reportWindow != 0 && p.reportWindow <= MAX_WINDOW, "reportWindow");
        _check((p.challengeWindow != 0) == ruled && p.challengeWindow <= MAX_WINDOW, "challengeWindow");
        _check((p.rulingWindow != 0) == ruled && p.rulingWindow <= MAX_WINDOW, "rulingWindow");
        _check(p.minReward != 0, "minReward");
        _check(p.publisherBondBps <= BPS, "publisherBondBps");
        _check(p.oracleFeeBps <= BPS, "oracleFeeBps");
        _check(members != 0 && members <= MAX_ORACLES, "oracles");
        _check(p.threshold <= members && uint256(p.threshold) * 2 > members, "threshold");
    }

    function _check(bool sensible, string memory name) private pure {
        if (!sensible) revert InvalidParameter(name);
    }
}
