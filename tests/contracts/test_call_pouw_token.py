"""PouwToken: once per closed round with a winner, halving, capped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ape
import pytest
from eth_account.messages import encode_typed_data
from scene import Scene

from pouw.types import Deadlines, Verdict

FIRST = 50 * 10**18
HALVING = 2


@pytest.fixture(scope="module")
def times(arena: Scene) -> Deadlines:
    """Miner 0 revealed in round 1."""
    times = arena.begin()
    arena.reveals(times, {arena.cast.miners[0]: 900_000})
    return times


@pytest.fixture
def token(arena: Scene, times: Deadlines) -> Any:
    """A token of the arena: 50 for the first two rounds, 25 for the next two."""
    stranger = arena.cast.stranger
    return ape.project.PouwToken.deploy(arena.contract, FIRST, HALVING, sender=stranger)


@pytest.fixture
def win(arena: Scene, times: Deadlines) -> Callable[[], Any]:
    """Close round 1 with miner 0 as its winner."""

    def close() -> Any:
        winner = arena.cast.miners[0]
        arena.reports(times, Verdict.WINNER, winner)
        arena.at(times.t5).finalize()
        return winner

    return close


def test_mint__winner__gets_the_reward(arena: Scene, token: Any, win: Callable[[], Any]) -> None:
    winner = win()
    receipt = token.mint(1, sender=arena.cast.stranger)
    assert token.BlockReward(round=1, winner=winner.address, amount=FIRST) in receipt.events
    assert token.balanceOf(winner) == token.totalSupply() == FIRST
    assert token.minted(1)


def test_mint__again__reverts(arena: Scene, token: Any, win: Callable[[], Any]) -> None:
    win()
    token.mint(1, sender=arena.cast.stranger)
    with ape.reverts(token.AlreadyMinted, round=1):
        token.mint(1, sender=arena.cast.stranger)


def test_mint__round_not_closed__reverts(arena: Scene, times: Deadlines, token: Any) -> None:
    arena.reports(times, Verdict.WINNER, arena.cast.miners[0])
    for number in (0, 1, 2):
        with ape.reverts(token.NoWinner, round=number):
            token.mint(number, sender=arena.cast.stranger)


def test_mint__no_winner__reverts(arena: Scene, times: Deadlines, token: Any) -> None:
    arena.reports(times, Verdict.NO_TRUE_CLAIM)
    arena.at(times.t5).finalize()
    with ape.reverts(token.NoWinner, round=1):
        token.mint(1, sender=arena.cast.stranger)


def test_mint__nothing_left__reverts(arena: Scene, win: Callable[[], Any]) -> None:
    """A first reward of one unit is halved away at once where every round halves."""
    stranger = arena.cast.stranger
    win()
    later = arena.begin(reward=2_000)
    winner = arena.cast.miners[1]
    arena.commit(winner, 2)
    arena.at(later.t1).open_test()
    arena.reveal(winner, round_number=2)
    arena.at(later.t3)
    for oracle in arena.cast.oracles[:2]:
        arena.report(oracle, Verdict.WINNER, winner, 2)
    arena.at(later.t5).finalize()
    token = ape.project.PouwToken.deploy(arena.contract, 1, 1, sender=stranger)
    token.mint(1, sender=stranger)
    with ape.reverts(token.NothingLeft, round=2):
        token.mint(2, sender=stranger)


def test_mint__broken_token__harms_nobody(arena: Scene, times: Deadlines, token: Any) -> None:
    """The arena does not know its token: a round closes and pays whatever became of that."""
    arena.reports(times, Verdict.WINNER, arena.cast.miners[0])
    calls = {entry.name for entry in arena.contract.contract_type.mutable_methods}
    assert "mint" not in calls
    assert token.address[2:].lower() not in arena.contract.code.hex()
    arena.at(times.t5).finalize()
    assert arena.contract.credits(arena.cast.miners[0]) > 0


@pytest.mark.parametrize(
    ("number", "reward"), [(1, FIRST), (2, FIRST), (3, FIRST // 2), (5, FIRST // 4), (600, 0)]
)
def test_reward_of__rounds__halves(token: Any, number: int, reward: int) -> None:
    assert token.rewardOf(number) == reward


def test_reward_of__round_zero__is_nothing(token: Any) -> None:
    assert token.rewardOf(0) == 0


def test_reward_of__all_rounds__stay_below_the_cap(token: Any) -> None:
    halvings = (token.rewardOf(1 + HALVING * i) for i in range(70))
    total = HALVING * sum(halvings)
    assert total <= token.cap() == 2 * FIRST * HALVING
    assert token.cap() - total <= 2 * HALVING * 70, "and come near it"


@pytest.mark.parametrize(("first", "halving"), [(0, 2), (FIRST, 0)])
def test_token__nothing_to_mint__reverts(arena: Scene, first: int, halving: int) -> None:
    with ape.reverts():
        ape.project.PouwToken.deploy(arena.contract, first, halving, sender=arena.cast.stranger)


def test_permit__signature__approves(arena: Scene, token: Any) -> None:
    owner, spender = arena.cast.miners[0], arena.cast.stranger
    deadline = arena.now + 1_000
    message = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Permit": [
                {"name": "owner", "type": "address"},
                {"name": "spender", "type": "address"},
                {"name": "value", "type": "uint256"},
                {"name": "nonce", "type": "uint256"},
                {"name": "deadline", "type": "uint256"},
            ],
        },
        "primaryType": "Permit",
        "domain": {
            "name": "Proof of Useful Work",
            "version": "1",
            "chainId": 1337,
            "verifyingContract": token.address,
        },
        "message": {
            "owner": owner.address,
            "spender": spender.address,
            "value": 7,
            "nonce": 0,
            "deadline": deadline,
        },
    }
    signed = owner.sign_message(encode_typed_data(full_message=message))
    token.permit(owner, spender, 7, deadline, signed.v, signed.r, signed.s, sender=spender)
    assert token.allowance(owner, spender) == 7
