"""A miner whose account cannot pay hears of it while there is time to send it some ether."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from one_round import PARAMETERS, PUBLISHER, TEST_KEY, WINNER, Stage

from pouw.chain.rpc import Endpoint
from pouw.hashing import data_key_of
from pouw.journal import Journal
from pouw.roles.base import Notice, Setup
from pouw.roles.miner import Miner, MinerOptions
from pouw.storage.local import LocalStore


@pytest.fixture
def stage(anvil_url: str) -> Iterator[Stage]:
    endpoint = Endpoint.connect(anvil_url)
    yield Stage(endpoint)
    endpoint.close()


def test_miner__spent_its_ether_before_a_round__is_warned_once_when_the_round_begins(
    stage: Stage, tmp_path: Path
) -> None:
    notices: list[Notice] = []
    with Journal(tmp_path / "journal.sqlite") as journal:
        store = LocalStore(tmp_path / "store")
        setup = Setup(stage.clients[WINNER], store, tmp_path, journal, 1, 0, notices.append)
        miner = Miner(setup, MinerOptions(), inline=True)
        assert notices == []
        enough_for_the_bond_alone = PARAMETERS.miner_bond + 10**12
        stage.endpoint.request(
            "anvil_setBalance", stage.address(WINNER), hex(enough_for_the_bond_alone)
        )
        stage.wait(PARAMETERS.phase2)
        stage.clients[PUBLISHER].release_data_key(data_key_of(TEST_KEY))

        steps = [miner.run_once().doing for _ in range(2)]
        miner.close()

    assert steps == ["train", "train"]
    (warning,) = [notice for notice in notices if "plus gas" in notice.text]
    assert warning.level == "warning"
    assert warning.data["hint"] == "send it some ether"
