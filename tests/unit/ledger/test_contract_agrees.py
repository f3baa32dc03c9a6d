from __future__ import annotations

import pytest
from contract_twin import Twin
from ledger_play import Play
from ledger_stage import ALICE, BOB, CAROL, Stage


@pytest.mark.parametrize("seed", range(6))
def test_model__random_play__contract_does_the_same(seed: int) -> None:
    twin = Twin()
    play = Play(Stage(twin.parameters, twin), seed)
    for _ in range(4):
        play.run(40)
        twin.agree()
    assert twin.compared > 15
    assert play.stage.replay().findings == ()


def test_replay__logs_of_the_contract__find_nothing() -> None:
    twin = Twin()
    stage = Stage(twin.parameters, twin)
    for reward in (1_000_003, 2_000, 30_000):
        stage.publish(reward)
    stage.run_round({ALICE: 900_000, BOB: 800_000, CAROL: 700_000}, BOB)
    stage.run_round({ALICE: 900_000}, ALICE)
    twin.agree()
    assert stage.replay().findings == ()
