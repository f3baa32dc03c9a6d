"""Whoever cannot pay for what is due later hears of it while there is time to send some ether."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from one_round import ETHER, PARAMETERS, PUBLISHER, TASK, TEST_KEY, WINNER, Stage

from pouw.chain.rpc import Endpoint
from pouw.errors import ConfigError
from pouw.hashing import data_key_of
from pouw.journal import Journal
from pouw.roles.base import Notice, Setup
from pouw.roles.drafts import Draft, Drafts
from pouw.roles.miner import Miner, MinerOptions
from pouw.roles.publisher import Publisher, PublishRequest
from pouw.storage.local import LocalStore
from pouw.types import Verdict


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


@pytest.fixture
def publisher(stage: Stage, tmp_path: Path) -> Iterator[tuple[Publisher, list[Notice]]]:
    notices: list[Notice] = []
    with Journal(tmp_path / "journal.sqlite") as journal:
        Drafts(journal).add(Draft(b"d" * 32, TEST_KEY, "t", task_id=TASK, told_at=1, told=True), ())
        store = LocalStore(tmp_path / "store")
        setup = Setup(stage.clients[PUBLISHER], store, tmp_path, journal, 1, 0, notices.append)
        role = Publisher(setup, inline=True)
        yield role, notices
        role.close()


def give(stage: Stage, wei: int) -> None:
    stage.endpoint.request("anvil_setBalance", stage.address(PUBLISHER), hex(wei))


def test_publish__ether_for_the_publication_alone__is_refused_before_anything_is_read(
    stage: Stage, publisher: tuple[Publisher, list[Notice]], tmp_path: Path
) -> None:
    give(stage, ETHER * 11 // 10 + ETHER // 500)
    request = PublishRequest(
        folder=tmp_path / "absent",
        title="t",
        spatial_dims=None,
        reward_wei=ETHER,
        min_score_ppm=1,
        training_seconds=60,
        modality=None,
        licence="CC0",
        citation="none",
        data_will_be_public=True,
        again=True,
    )
    with pytest.raises(ConfigError, match=r"needs 1\.1 ether plus gas"):
        publisher[0].publish(request)
    assert stage.arena.state().tasks == 1


def test_publisher__cannot_pay_for_its_keys__is_warned_once_and_again_when_that_changes(
    stage: Stage, publisher: tuple[Publisher, list[Notice]], monkeypatch: pytest.MonkeyPatch
) -> None:
    role, notices = publisher
    monkeypatch.setattr("pouw.roles.means.LOOK_SECONDS", 0.0)
    role.run_once()
    assert not notices

    for wei in (10**13, 10**13, 10**12):
        give(stage, wei)
        role.run_once()

    assert [notice.level for notice in notices] == ["warning", "warning"]
    assert "0.00001 ether, the 3 call(s) to come" in notices[0].text
    assert notices[0].data["hint"] == "send it some ether now"


def test_publisher__task_is_over__nothing_is_needed(
    stage: Stage, publisher: tuple[Publisher, list[Notice]], monkeypatch: pytest.MonkeyPatch
) -> None:
    role, notices = publisher
    monkeypatch.setattr("pouw.roles.means.LOOK_SECONDS", 0.0)
    stage.play({}, Verdict.NONE)
    give(stage, 1)
    for _ in range(2):
        role.run_once()
    assert not [notice for notice in notices if "call(s) to come" in notice.text]
