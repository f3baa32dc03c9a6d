// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Capped} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Capped.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

import {IPoUW} from "./IPoUW.sol";

/// @title The block reward [4]
/// @notice Every closed round with a winner mints once, to the winner; anybody may ask for it. The reward halves every
/// `HALVING_ROUNDS` rounds of the arena, so that all rewards together stay below the cap.
/// @dev The token only reads the arena and the arena does not know it: a broken token harms nobody's escrow. It can be
/// farmed by who publishes a task to himself: the price is the committee's fee, and a committee that agrees.
contract PouwToken is ERC20Capped, ERC20Permit {
    IPoUW public immutable ARENA;
    /// @notice What the first rounds mint, in the token's smallest unit.
    uint256 public immutable FIRST_REWARD;
    /// @notice Rounds, with a winner or without, after which the reward halves.
    uint256 public immutable HALVING_ROUNDS;

    /// @notice Whether a round minted already.
    mapping(uint64 round => bool) public minted;

    /// @notice A round minted its reward.
    event BlockReward(uint64 indexed round, address indexed winner, uint256 amount);

    /// @notice The round is not closed, or closed without a winner.
    error NoWinner(uint64 round);
    /// @notice The round minted already.
    error AlreadyMinted(uint64 round);
    /// @notice So many halvings passed that nothing is left.
    error NothingLeft(uint64 round);

    constructor(IPoUW arena, uint256 firstReward, uint256 halvingRounds)
        ERC20("Proof of Useful Work", "POUW")
        ERC20Permit("Proof of Useful Work")
        ERC20Capped(2 * firstReward * halvingRounds)
    {
        (ARENA, FIRST_REWARD, HALVING_ROUNDS) = (arena, firstReward, halvingRounds);
    }

    /// @notice Mint a closed round's reward to its winner.
    ///
    /// Requirements:
    /// - the round is closed and has a winner;
    /// - it did not mint yet, and something is left to mint.
    function mint(uint64 round) external {
        IPoUW.Round memory r = ARENA.rounds(round);
        if (r.header == 0 || r.verdict != IPoUW.Verdict.Winner) revert NoWinner(round);
        if (minted[round]) revert AlreadyMinted(round);
        uint256 amount = rewardOf(round);
        if (amount == 0) revert NothingLeft(round);

        minted[round] = true;
        emit BlockReward(round, r.winner, amount);
        _mint(r.winner, amount);
    }

    /// @notice What a round mints if it has a winner; nothing for 0, since rounds are counted from 1.
    function rewardOf(uint64 round) public view returns (uint256) {
        if (round == 0) return 0;
        return FIRST_REWARD >> ((round - 1) / HALVING_ROUNDS);
    }

    function _update(address from, address to, uint256 amount) internal override(ERC20, ERC20Capped) {
        super._update(from, to, amount);
    }
}
