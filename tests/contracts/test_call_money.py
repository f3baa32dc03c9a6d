"""reclaim and withdraw: bonds by rank, pull payments only."""

from __future__ import annotations

from typing import Any

import ape
import pytest
from scene import BOND, FEE, MINER_BOND, REWARD, Scene

from pouw.types import ZERO_ADDRESS, Deadlines, EntryState, Verdict

ACCEPT, REFUSE, ACT = range(3)


@pytest.fixture(scope="module")
def times(arena: Scene) -> Deadlines:
    """Five reveals: miner 3 of the higher claim; 1, 0, 2 and 4 tie and committed in that order.

    Miners 1 and 0 share a second less than the others: 1 at +10, then 0, 2 and 4 all at +20.
    """
    times = arena.begin()
    miners = arena.cast.miners
    arena.at(times.t0 + 10).commit(miners[1])
    same_second(arena, times.t0 + 20, [miners[0], miners[2], miners[4]])
    arena.at(times.t0 + 30).commit(miners[3])
    arena.at(times.t1).open_test()
    for miner in miners[:5]:
        arena.reveal(miner, 900_000 if miner is miners[3] else 800_000)
    return times


def same_second(scene: Scene, time: int, miners: list[Any]) -> None:
    """Commits in one block."""
    scene.at(time)
    tester = ape.chain.provider.tester.ethereum_tester
    tester.disable_auto_mine_transactions()
    for miner in miners:
        data = scene.contract.commit.encode_input(1, scene.commitment(miner))
        tester.send_transaction(
            {
                "from": miner.address,
                "to": scene.contract.address,
                "data": data.hex() if data.hex().startswith("0x") else "0x" + data.hex(),
                "gas": 200_000,
            }
        )
    tester.enable_auto_mine_transactions()
    times = {scene.contract.entries(1, miner).committedAt for miner in miners}
    assert times == {time}


@pytest.mark.parametrize(
    ("winner", "burned"),
    [(3, []), (1, [3]), (0, [1, 3]), (2, [0, 1, 3]), (4, [0, 1, 2, 3])],
)
def test_reclaim__rank_above_the_winner__burns(
    arena: Scene, times: Deadlines, winner: int, burned: list[int]
) -> None:
    """Higher claim, then earlier last commit, then lower address (miners are in that order)."""
    miners = arena.cast.miners[:5]
    arena.reports(times, Verdict.WINNER, miners[winner])
    arena.at(times.t5).finalize()
    result = [i for i, miner in enumerate(miners) if arena.reclaim(miner).events[0].burned]
    assert result == burned
    assert arena.contract.credits(ZERO_ADDRESS) == MINER_BOND * len(burned)


@pytest.mark.parametrize("winner", [3, 0])
def test_reclaim__first__claims_are_not_compared(arena: Scene, winner: int) -> None:
    fresh = Scene.deploy(arena.cast, arena.parameters)
    times = fresh.begin(first=True)
    miners = fresh.cast.miners
    fresh.reveals(times, {miners[1]: 600_000, miners[0]: 900_000, miners[3]: 700_000})
    fresh.reports(times, Verdict.WINNER, miners[winner])
    fresh.at(times.t5).finalize()
    above = {3: {1, 0}, 0: {1}}[winner]
    for place in (0, 1, 3):
        assert fresh.reclaim(miners[place]).events[0].burned == (place in above)


def test_reclaim__bond_back__goes_to_the_miner(arena: Scene, times: Deadlines) -> None:
    miner = arena.cast.miners[0]
    arena.at(times.t5).finalize()
    receipt = arena.reclaim(miner, sender=arena.cast.stranger)
    assert receipt.events == [
        arena.event("Reclaimed", round=1, miner=miner.address, burned=False),
        arena.credited(miner, MINER_BOND),
    ]
    assert arena.contract.entries(1, miner).state == EntryState.RECLAIMED


def test_reclaim__twice__reverts(arena: Scene, times: Deadlines) -> None:
    miner = arena.cast.miners[0]
    arena.at(times.t5).finalize()
    arena.reclaim(miner)
    with arena.reverts("NothingToReclaim", round=1, miner=miner.address):
        arena.reclaim(miner)


def test_reclaim__nothing_revealed__reverts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t5).finalize()
    for account in (arena.cast.miners[5], arena.cast.stranger):
        with arena.reverts("NothingToReclaim", round=1, miner=account.address):
            arena.reclaim(account)


def test_reclaim__committed_only__reverts(arena: Scene) -> None:
    fresh = Scene.deploy(arena.cast, arena.parameters)
    times = fresh.begin()
    miner = fresh.cast.miners[0]
    fresh.commit(miner)
    fresh.at(times.t2).finalize()
    with fresh.reverts("NothingToReclaim", round=1, miner=miner.address):
        fresh.reclaim(miner)


def test_reclaim__round_not_closed__reverts(arena: Scene, times: Deadlines) -> None:
    miner = arena.cast.miners[0]
    for moment in (times.t3, times.t5, times.t6):
        with arena.at(moment).reverts("NotClosed", round=1):
            arena.reclaim(miner)
    with arena.reverts("NotClosed", round=2):
        arena.reclaim(miner, 2)


def closed_for_the_publisher(scene: Scene, times: Deadlines) -> int:
    """Close without an outcome; what the publisher can withdraw."""
    scene.at(times.t5).finalize()
    return REWARD - FEE + BOND


def test_withdraw__credit__goes_whole_to_the_named(arena: Scene, times: Deadlines) -> None:
    amount = closed_for_the_publisher(arena, times)
    publisher, rival = arena.cast.publisher, arena.cast.rival
    before, held = rival.balance, arena.balance
    receipt = arena.withdraw(publisher, rival)
    assert receipt.events == [
        arena.event("Withdrawn", account=publisher.address, to=rival.address, amount=amount)
    ]
    assert rival.balance - before == amount == held - arena.balance
    assert arena.contract.credits(publisher) == 0


def test_withdraw__nothing__reverts(arena: Scene, times: Deadlines) -> None:
    closed_for_the_publisher(arena, times)
    arena.withdraw(arena.cast.publisher)
    for account in (arena.cast.publisher, arena.cast.stranger):
        with arena.reverts("NothingToWithdraw", account=account.address):
            arena.withdraw(account)


def test_withdraw__to_nobody__reverts(arena: Scene, times: Deadlines) -> None:
    closed_for_the_publisher(arena, times)
    with arena.reverts("InvalidReceiver"):
        arena.withdraw(arena.cast.publisher, ZERO_ADDRESS)


def test_withdraw__refusing_receiver__reverts_and_keeps_the_credit(
    arena: Scene, times: Deadlines
) -> None:
    amount = closed_for_the_publisher(arena, times)
    publisher = arena.cast.publisher
    puppet = ape.project.Puppet.deploy(sender=publisher)
    puppet.meetMoney(REFUSE, ZERO_ADDRESS, b"", sender=publisher)
    with arena.reverts("PaymentFailed", to=puppet.address, amount=amount):
        arena.withdraw(publisher, puppet)
    arena.withdraw(publisher)
    assert arena.contract.credits(publisher) == 0


def test_withdraw__reentering_receiver__gets_its_credit_once(
    arena: Scene, times: Deadlines
) -> None:
    """A puppet is the publisher; on being paid it withdraws again, for the others' money."""
    fresh = Scene.deploy(arena.cast, arena.parameters)
    stranger, contract = fresh.cast.stranger, fresh.contract
    puppet = ape.project.Puppet.deploy(sender=stranger)
    fresh.publish()
    due = 2_000 + 200
    publish = contract.publish.encode_input(b"\1" * 32, b"\2" * 32, 0, False, 2_000, 0)
    puppet.execute(contract, due, publish, sender=stranger, value=due)
    puppet.execute(contract, 0, contract.cancel.encode_input(2), sender=stranger)
    assert contract.credits(puppet) == due

    again = contract.withdraw.encode_input(puppet)
    puppet.meetMoney(ACT, contract, again, sender=stranger)
    with ape.reverts():
        puppet.execute(contract, 0, again, sender=stranger)
    assert contract.credits(puppet) == due
    puppet.meetMoney(ACCEPT, ZERO_ADDRESS, b"", sender=stranger)
    puppet.execute(contract, 0, again, sender=stranger)
    assert (puppet.balance, contract.credits(puppet)) == (due, 0)
    assert fresh.balance == REWARD + BOND


def test_withdraw__receiver_acts_on_the_arena__finds_it_settled(arena: Scene) -> None:
    """While it is paid a receiver may call back: its credit is gone already, the rest works."""
    fresh = Scene.deploy(arena.cast, arena.parameters)
    stranger, contract = fresh.cast.stranger, fresh.contract
    puppet = ape.project.Puppet.deploy(sender=stranger)
    fresh.publish()
    fresh.publish(3_000)
    fresh.cancel(2)
    puppet.meetMoney(ACT, contract, contract.sync.encode_input(), sender=stranger)
    fresh.withdraw(fresh.cast.publisher, puppet)
    assert puppet.balance == 3_300
    assert fresh.balance == REWARD + BOND


def test_receive__plain_ether__is_refused(arena: Scene, times: Deadlines) -> None:
    with ape.reverts():
        arena.cast.stranger.transfer(arena.contract, 1)


@pytest.mark.filterwarnings("ignore:SELFDESTRUCT opcode:DeprecationWarning")
def test_receive__forced_ether__changes_no_credit(arena: Scene, times: Deadlines) -> None:
    stranger = arena.cast.stranger
    puppet = ape.project.Puppet.deploy(sender=stranger)
    stranger.transfer(puppet, 777)
    before = arena.balance
    puppet.force(arena.contract, sender=stranger)
    assert arena.balance - before == 777
    amount = closed_for_the_publisher(arena, times)
    assert arena.contract.credits(arena.cast.publisher) == amount
