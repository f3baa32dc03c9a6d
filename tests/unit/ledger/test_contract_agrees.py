"""The contract does what the model of its rules says, and its events tell its whole state."""

from __future__ import annotations

import re
from ast import literal_eval
from dataclasses import replace

import pytest
from contract_twin import Twin
from histories import fresh, play
from hypothesis import reproduce_failure
from ledger_evms import Evm, PyEvm, Revm
from ledger_play import Play
from ledger_stage import ALICE, BOB, CAROL, Stage

from pouw.ledger.model import Call
from pouw.types import Task, TaskId

SEQUENCES = 500
CALLS = """
    publish top_up cancel release_data_key commit open_test reveal report challenge rule finalize
    sync reclaim withdraw dropped
"""
ENDINGS = ("winner", "no true claim", "invalid", "none", "not opened")
REPRODUCED = re.compile(r"@reproduce_failure\('([\d.]+)', (b'.*')\)")


class Careless(Twin):
    """A model with a planted mistake: anybody may take a pooled task back."""

    def _pooled_task_of(self, call: Call, task_id: TaskId) -> Task:
        task = self.tasks.get(task_id)
        return super()._pooled_task_of(
            call if task is None else replace(call, sender=task.publisher), task_id
        )


def test_histories__random__contract_and_model_end_in_the_same_state() -> None:
    machine = fresh(Revm)
    play(machine, SEQUENCES, seeded=True)
    reached = machine.reached
    assert reached["sequences"] >= SEQUENCES
    assert {name: reached[name] for name in CALLS.split() if reached[name] < 20} == {}
    endings = [name for name in reached if name.startswith("closed")]
    assert [each for each in ENDINGS if not any(each in name for name in endings)] == []
    for ruling in ("confirmed", "changed", "silent arbiter"):
        assert any(ruling in name for name in endings), ruling


def test_histories__on_the_embedded_evm__end_in_the_same_state() -> None:
    machine = fresh(PyEvm)
    play(machine, 10, seeded=True)
    assert machine.reached["calls compared"] > 50


def test_histories__model_with_a_mistake__shortest_one_is_shown_and_reproducible() -> None:
    machine = fresh(Revm, Careless)
    with pytest.raises(AssertionError, match="contract against model") as found:
        play(machine, SEQUENCES, seeded=True)
    told = "\n".join(found.value.__notes__)
    made = re.findall(r"^\+\d+ s: .*$", told, re.MULTILINE)
    assert len(made) <= 8  # four at best; how far it shrinks depends on what was found first
    assert made[-1].endswith("here they differ")

    version, blob = REPRODUCED.search(told).groups()
    again = fresh(Revm, Careless)
    with pytest.raises(AssertionError, match="contract against model"):
        play(reproduce_failure(version, literal_eval(blob))(again), SEQUENCES, seeded=True)
    assert again.reached["arena: usual"] == 1, "that one history, and no other"


@pytest.mark.parametrize("evm", [Revm, PyEvm])
def test_replay__logs_of_the_contract__rebuild_its_storage(evm: type[Evm]) -> None:
    twin = Twin(evm=evm)
    stage = Stage(twin.parameters, twin)
    for reward in (1_000_003, 2_000, 30_000):
        stage.publish(reward)
    stage.run_round({ALICE: 900_000, BOB: 800_000, CAROL: 700_000}, BOB)
    stage.run_round({ALICE: 900_000}, ALICE)
    twin.agree()
    history = twin.rebuilt()
    assert [header.winner for header in history.headers] == [BOB.address, ALICE.address]


def test_model__long_random_play__contract_does_the_same() -> None:
    twin = Twin()
    Play(Stage(twin.parameters, twin), 1).run(160)
    twin.agree()
    twin.rebuilt()
    assert twin.compared > 15
