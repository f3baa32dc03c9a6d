"""ERC-20 arenas: a plain token works like ETH, any other kind harms nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ape
import pytest
from scene import (
    BOND,
    CHALLENGE_BOND,
    DATA_KEY,
    FEE,
    KEY_HASH,
    MINER_BOND,
    REWARD,
    SPEC,
    Cast,
    Scene,
    events_of,
    parameters_of,
)

from pouw.types import ZERO_ADDRESS, Address, Verdict

Deploy = Callable[[str], Scene]


@pytest.fixture
def deploy(cast: Cast) -> Deploy:
    """An arena whose asset is a fresh token of that kind."""

    def make(kind: str) -> Scene:
        token = getattr(ape.project, kind).deploy(sender=cast.stranger)
        parameters = replace(parameters_of(cast), asset=Address(token.address))
        scene = Scene.deploy(cast, parameters)
        scene.token = token
        return scene

    return make


def test_plain_token__whole_round__pays_to_the_last_unit(deploy: Deploy) -> None:
    scene = deploy("PlainToken")
    cast, token = scene.cast, scene.token
    winner, second = cast.miners[:2]
    times = scene.begin()
    assert scene.balance == REWARD + BOND
    scene.reveals(times, {winner: 900_000, second: 800_000})
    scene.reports(times, Verdict.WINNER, winner)
    scene.at(times.t4).challenge(cast.stranger)
    assert scene.balance == REWARD + BOND + 2 * MINER_BOND + CHALLENGE_BOND
    scene.rule(Verdict.WINNER, winner)
    receipt = scene.finalize()
    assert events_of(receipt, scene)[1:] == [
        scene.credited(cast.oracles[0], FEE // 2),
        scene.credited(cast.oracles[1], FEE // 2),
        scene.credited(winner, REWARD - FEE),
        scene.credited(cast.publisher, BOND),
        scene.credited(None, CHALLENGE_BOND),
    ]
    for miner in (winner, second):
        scene.reclaim(miner)
    paid = {
        winner: REWARD - FEE + MINER_BOND,
        second: MINER_BOND,
        cast.publisher: BOND,
        cast.oracles[0]: FEE // 2,
        cast.oracles[1]: FEE // 2,
    }
    for account, amount in paid.items():
        before = token.balanceOf(account)
        scene.withdraw(account)
        assert token.balanceOf(account) - before == amount
    assert scene.balance == CHALLENGE_BOND == scene.contract.credits(ZERO_ADDRESS)


def test_plain_token__topped_up_and_cancelled__returns_all(deploy: Deploy) -> None:
    scene = deploy("PlainToken")
    scene.publish()
    scene.publish(5_000)
    scene.top_up(2, 5_000)
    scene.cancel(2)
    assert scene.contract.credits(scene.cast.publisher) == 11_000
    scene.withdraw(scene.cast.publisher)
    assert scene.balance == REWARD + BOND


def test_token_arena__ether_sent_along__reverts(deploy: Deploy) -> None:
    scene = deploy("PlainToken")
    publisher = scene.cast.publisher
    scene.token.mint(publisher, REWARD + BOND, sender=publisher)
    scene.token.approve(scene.contract, REWARD + BOND, sender=publisher)
    token, scene.token = scene.token, None
    with scene.reverts("WrongPayment", sent=1, expected=0):
        scene.publish(value=1)
    scene.token = token
    scene.publish()


def test_token_arena__nothing_approved__reverts(deploy: Deploy) -> None:
    scene = deploy("PlainToken")
    with ape.reverts():
        scene.contract.publish(SPEC, KEY_HASH, 0, False, REWARD, 0, sender=scene.cast.publisher)


def test_fee_token__less_arrives__reverts(deploy: Deploy) -> None:
    scene = deploy("FeeToken")
    due = REWARD + BOND
    prepared(scene, scene.cast.publisher, due)
    with scene.reverts("WrongPayment", sent=due - due // 100, expected=due):
        scene.publish()


def test_lying_token__nothing_arrives__reverts(deploy: Deploy) -> None:
    scene = deploy("LyingToken")
    with scene.reverts("WrongPayment", sent=0, expected=REWARD + BOND):
        scene.publish()


def test_asset_without_code__nothing_works(cast: Cast) -> None:
    asset = Address(cast.stranger.address)
    scene = Scene.deploy(cast, replace(parameters_of(cast), asset=asset))
    with ape.reverts():
        scene.contract.publish(SPEC, KEY_HASH, 0, False, REWARD, 0, sender=cast.publisher)


def prepared(scene: Scene, account: Any, amount: int) -> None:
    """The account has that much and lets the arena take it."""
    scene.token.mint(account, amount, sender=account)
    scene.token.approve(scene.contract, amount, sender=account)


def puppet_with_credit(scene: Scene, reward: int) -> Any:
    """A puppet that cancelled a task and can withdraw reward and bond."""
    stranger, contract = scene.cast.stranger, scene.contract
    due = reward + reward // 10
    puppet = ape.project.Puppet.deploy(sender=stranger)
    scene.token.mint(puppet, 10 * due, sender=stranger)
    act(puppet, scene.token, scene.token.approve.encode_input(contract, 10 * due))
    publish = contract.publish.encode_input(SPEC, KEY_HASH, 0, False, reward, 0)
    act(puppet, contract, publish)
    act(puppet, contract, contract.cancel.encode_input(contract.arena().tasks))
    assert contract.credits(puppet) == due
    return puppet


def act(puppet: Any, target: Any, data: bytes) -> Any:
    return puppet.execute(target, 0, data, sender=ape.accounts.test_accounts[12])


def test_hook_token__withdraws_while_it_pays__reverts(deploy: Deploy) -> None:
    """The delivery is measured over the whole call: what leaves in its middle is missed."""
    scene = deploy("HookToken")
    stranger, contract = scene.cast.stranger, scene.contract
    scene.publish()
    puppet = puppet_with_credit(scene, 2_000)
    withdraw = contract.withdraw.encode_input(puppet)
    scene.token.arm(puppet, puppet.execute.encode_input(contract, 0, withdraw), sender=stranger)
    publish = contract.publish.encode_input(SPEC, KEY_HASH, 0, False, 2_000, 0)
    before = scene.balance
    with ape.reverts():
        act(puppet, contract, publish)
    assert scene.balance == before
    assert contract.credits(puppet) == 2_200


def test_hook_token__cancels_what_it_is_paying_for__reverts(deploy: Deploy) -> None:
    """Cancelled and withdrawn inside its own payment, a task would be paid by the others."""
    scene = deploy("HookToken")
    stranger, contract = scene.cast.stranger, scene.contract
    scene.publish()
    puppet = ape.project.Puppet.deploy(sender=stranger)
    thief = ape.project.Puppet.deploy(sender=stranger)
    scene.token.mint(puppet, 2_200, sender=stranger)
    act(puppet, scene.token, scene.token.approve.encode_input(contract, 2_200))
    both = [
        puppet.execute.encode_input(contract, 0, contract.cancel.encode_input(2)),
        puppet.execute.encode_input(contract, 0, contract.withdraw.encode_input(thief)),
    ]
    publish = contract.publish.encode_input(SPEC, KEY_HASH, 0, False, 2_000, 0)
    scene.token.arm(puppet, both[0], sender=stranger)
    act(puppet, contract, publish)
    assert contract.credits(puppet) == 2_200 == scene.balance - REWARD - BOND

    scene.token.mint(puppet, 2_200, sender=stranger)
    act(puppet, scene.token, scene.token.approve.encode_input(contract, 2_200))
    scene.token.arm(puppet, both[1], sender=stranger)
    with ape.reverts():
        act(puppet, contract, publish)
    assert scene.balance == REWARD + BOND + 2_200


def test_hook_token__publishes_while_it_pays__reverts(deploy: Deploy) -> None:
    """A delivery inside a delivery is measured twice by the outer one, and refused there."""
    scene = deploy("HookToken")
    stranger, contract = scene.cast.stranger, scene.contract
    scene.publish()
    puppet = puppet_with_credit(scene, 2_000)
    publish = contract.publish.encode_input(SPEC, KEY_HASH, 0, False, 2_000, 0)
    scene.token.arm(puppet, puppet.execute.encode_input(contract, 0, publish), sender=stranger)
    before = scene.balance
    with ape.reverts():
        act(puppet, contract, publish)
    assert scene.balance == before
    assert scene.pool() == []


def test_hook_token__acts_while_it_is_paid__finds_the_credit_gone(deploy: Deploy) -> None:
    scene = deploy("HookToken")
    stranger, contract = scene.cast.stranger, scene.contract
    scene.publish()
    puppet = puppet_with_credit(scene, 2_000)
    withdraw = contract.withdraw.encode_input(puppet)
    scene.token.arm(puppet, puppet.execute.encode_input(contract, 0, withdraw), sender=stranger)
    with ape.reverts():
        act(puppet, contract, withdraw)
    assert contract.credits(puppet) == 2_200
    scene.token.arm(ZERO_ADDRESS, b"", sender=stranger)
    act(puppet, contract, withdraw)
    assert contract.credits(puppet) == 0
    assert scene.balance == REWARD + BOND


def test_hook_token__other_calls_while_it_pays__change_nothing_owed(deploy: Deploy) -> None:
    """A key released in the middle of a publication: both happen, the money adds up."""
    scene = deploy("HookToken")
    stranger, contract = scene.cast.stranger, scene.contract
    selected_at = scene.publish().timestamp
    prepared(scene, scene.cast.publisher, 2_200)
    release = contract.releaseDataKey.encode_input(DATA_KEY)
    scene.token.arm(contract, release, sender=stranger)
    scene.at(selected_at + scene.parameters.phase2)
    contract.publish(SPEC, KEY_HASH, 0, False, 2_000, 0, sender=scene.cast.publisher)
    state = contract.arena()
    assert (state.rounds, state.live, scene.pool()) == (1, True, [2])
    assert scene.balance == REWARD + BOND + 2_200
