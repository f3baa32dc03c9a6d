"""The model and the real contract, called side by side and compared call by call."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from typing import Any

from ledger_evms import Evm, Revm
from ledger_stage import CHAIN_ID, PARAMETERS
from msgspec import structs

from pouw import hashing
from pouw.errors import Reverted
from pouw.events import Credited, Event
from pouw.ledger.history import History, RoundRecord, TaskState
from pouw.ledger.model import Arena, Call
from pouw.ledger.replay import replay
from pouw.types import ZERO_ADDRESS, ZERO_WORD, Address, EntryState, Parameters, Verdict


class Twin(Arena):
    """The model, which plays each call on the contract, too, and compares.

    ``hint`` goes along where the contract wants one; ``logs`` are the contract's own.
    """

    def __init__(self, parameters: Parameters = PARAMETERS, evm: type[Evm] = Revm) -> None:
        self.evm = evm(parameters)
        self.compared = 0
        self.hint = 0
        self.logs: list[Event] = []
        super().__init__(parameters, CHAIN_ID, self.evm.address)

    def compare(self, name: str, method: Any, call: Call, arguments: tuple[Any, ...]) -> Any:
        """Both refuse with the same error and arguments, or both log the same events."""
        held, before = self.books.balance, len(self.books.events)
        refusal: Reverted | None = None
        result = None
        try:
            result = method(call, *arguments)
        except Reverted as error:
            refusal = error
        value = call.payment
        if value is None:
            value = max(0, self.books.balance - held)
            if refusal is not None and name in ("publish", "topUp", "reveal", "challenge"):
                value = _meant(self, name, arguments)
        if name in ("publish", "topUp"):
            arguments = (*arguments, self.hint)
        refused: Reverted | None = None
        logs: list[Event] = []
        try:
            logs = self.evm.call(call.sender, call.time, name, arguments, value)
        except Reverted as error:
            refused = error
        assert str(refused) == str(refusal), f"{name}{arguments}: contract against model"
        if refusal is not None:
            raise refusal
        self.logs += logs
        assert _told(logs) == _told(self.books.events[before:]), f"{name}{arguments}: events"
        assert self.evm.balance() == self.books.balance, f"{name}{arguments}: balance"
        self.compared += 1
        return result

    def agree(self) -> None:
        """The contract's whole state is the model's."""
        assert self.evm.view("arena") == (astuple(self.state),)
        assert self.evm.view("poolHistory") == (self.pool_history,)
        assert self.evm.view("lastHeader") == (self.last_header,)
        assert self.evm.view("pool", 0, 1_000) == (tuple(self.pool),)
        for task_id in self.tasks:
            shown = astuple(self.task(task_id))[1:]
            assert _plain(self.evm.view("tasks", task_id)[0]) == _plain(shown)
        for number, this in self.rounds.items():
            assert _plain(self.evm.view("rounds", number)[0]) == _plain(astuple(this)[1:])
            for miner, entry in self.entries[number].items():
                assert self.evm.view("entries", number, miner)[0] == astuple(entry)
        for (number, verdict, winner), seats in self.votes.items():
            assert self.evm.view("votes", number, verdict, winner) == (seats,)
        for account in self.books.credits:
            assert self.evm.view("credits", account) == (self.books.credits[account],)
        assert self.evm.balance() == self.books.balance == self.owed()

    def rebuilt(self) -> History:
        """What the contract's logs alone tell; its storage is exactly that."""
        history = replay(self.logs, self.parameters, CHAIN_ID, self.evm.address)
        assert history.findings == ()
        view, selected = self.evm.view, history.selected
        assert view("arena") == (
            (
                len(history.tasks),
                len(history.rounds),
                selected.task_id if selected else 0,
                selected.selected_at if selected else 0,
                history.live is not None,
            ),
        )
        assert view("pool", 0, 1_000) == (history.pool,)
        assert view("poolHistory") == (history.pool_history,)
        assert view("lastHeader") == (history.last_header,)
        for task_id, task in history.tasks.items():
            stored = _plain(view("tasks", task_id)[0])
            if task.state is TaskState.CANCELLED:
                assert not any(int(str(word), 0) for word in stored[:8] if word is not False)
                continue
            pooled = task.state is TaskState.POOLED
            told = (task.publisher, task.min_score, task.round or 0, pooled, task.first)
            assert stored[:6] == _plain((*told, task.reward))
            assert stored[8:] == [task.spec_digest, task.key_hash]
        for number, record in history.rounds.items():
            told = _stored_round(record, self.parameters)
            assert _plain(view("rounds", number)[0]) == _plain(told)
            for miner in record.commitments:
                assert view("entries", number, miner)[0] == _stored_entry(record, miner)
        for account in {*self.books.credits, *history.credits}:
            assert view("credits", account) == (history.credits.get(account, 0),)
        return history


def _stored_round(record: RoundRecord, parameters: Parameters) -> tuple[Any, ...]:
    """The contract's Round as the logs of the round tell it."""
    seats = {oracle: 1 << seat for seat, oracle in enumerate(parameters.oracles)}
    votes: Counter[tuple[Verdict, Address]] = Counter()
    for vote in record.votes:
        votes[vote.verdict, vote.winner] += seats[vote.oracle]
    quorums = [each for each in votes.values() if each.bit_count() >= parameters.threshold]
    ruling = record.ruling
    return (
        record.task.task_id,
        record.t0,
        len(record.reveals),
        record.test_key is not None,
        record.challenger is not None,
        ruling is not None,
        ruling is not None and ruling.changed,
        record.verdict,
        sum(seats[vote.oracle] for vote in record.votes),
        sum(quorums),
        record.winner,
        record.challenger or ZERO_ADDRESS,
        record.selection.pool_history,
        record.evidence_digest,
        record.header_hash or ZERO_WORD,
    )


def _stored_entry(record: RoundRecord, miner: Address) -> tuple[Any, ...]:
    """The contract's Entry of a miner as the logs of the round tell it."""
    reveal = record.reveal_of(miner)
    if reveal is None:
        last = record.commitments[miner]
        return (last.committed_at, 0, EntryState.COMMITTED, last.commitment[:22])
    state = EntryState.RECLAIMED if miner in record.reclaimed else EntryState.REVEALED
    digest = hashing.reveal_digest(reveal.manifest_digest, reveal.signature)
    return (reveal.committed_at, reveal.claim, state, digest)


CALLS = {
    "publish": "publish",
    "top_up": "topUp",
    "cancel": "cancel",
    "release_data_key": "releaseDataKey",
    "commit": "commit",
    "open_test": "openTest",
    "reveal": "reveal",
    "report": "report",
    "challenge": "challenge",
    "rule": "rule",
    "finalize": "finalize",
    "sync": "sync",
    "reclaim": "reclaim",
    "withdraw": "withdraw",
}


def _mirrored(method_name: str, name: str) -> Any:
    def call_both(self: Twin, call: Call, *arguments: Any) -> Any:
        method = getattr(super(Twin, self), method_name)
        return self.compare(name, method, call, arguments)

    return call_both


for _method_name, _name in CALLS.items():
    setattr(Twin, _method_name, _mirrored(_method_name, _name))


def _meant(arena: Arena, name: str, arguments: tuple[Any, ...]) -> int:
    """What a refused caller would have had to pay."""
    p = arena.parameters
    if name == "publish":
        return arguments[4] + p.bond_of(arguments[4])
    if name == "topUp":
        task = arena.tasks.get(arguments[0])
        before = task.reward if task else 0
        return arguments[1] + p.bond_of(before + arguments[1]) - p.bond_of(before)
    return p.miner_bond if name == "reveal" else p.challenge_bond


def _told(logs: list[Event]) -> tuple[list[Any], Counter[Address]]:
    """Events but for where they stand; credits summed by account, their order is free."""
    credited: Counter[Address] = Counter()
    others = []
    for event in logs:
        if isinstance(event, Credited):
            credited[event.account] += event.amount
        else:
            others.append((type(event), structs.astuple(event)[4:]))
    return others, credited


def _plain(values: tuple[Any, ...]) -> list[Any]:
    """Addresses in one spelling."""
    return [each.lower() if isinstance(each, str) else each for each in values]
