"""`pouw publisher model`: the model that was paid for, or what became of its task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from one_round import PARAMETERS, PUBLISHER, ROUND, TASK, WINNER, Stage
from tiny_task import tiny_spec

from pouw.chain.accounts import dev_account
from pouw.chain.devnet import Devnet
from pouw.chain.rpc import Endpoint
from pouw.cli.main import main
from pouw.documents import Manifest, ModelFile, Recipe, TaskSpec
from pouw.storage.local import LocalStore
from pouw.types import Verdict

CLAIM = 911_277
WEIGHTS = Random(3).randbytes(70_000)


@dataclass
class Scene:
    """A task whose round is to be played, and what the miner's manifest names."""

    stage: Stage
    store: LocalStore
    spec: TaskSpec
    manifest: Manifest

    def play(self, verdict: Verdict, claim: int | None = CLAIM) -> None:
        self.stage.play({WINNER: claim}, verdict, manifest=self.manifest.digest())


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.chdir(tmp_path)
    store, spec = LocalStore(tmp_path / "store"), tiny_spec()
    (tmp_path / "weights").write_bytes(WEIGHTS)
    stored = store.put_file(tmp_path / "weights")
    manifest = Manifest(
        task=TASK,
        round=ROUND,
        miner=dev_account(WINNER).address,
        network=spec.network,
        model=ModelFile(cid=stored.cid, bytes=stored.bytes, dtype="float32"),
        checkpoints=(),
        seed="0x" + "5a" * 32,
        recipe=Recipe(engine={}, settings={}),
        software="pouw",
        device="none",
    )
    for document in (spec, manifest):
        store.put_bytes(document.encode())
    with Devnet(tmp_path / "chain", port=0, block_seconds=0) as chain:
        endpoint = Endpoint.connect(chain.url)
        stage = Stage(endpoint, spec.digest())
        (tmp_path / "pouw.toml").write_text(
            f'rpc = "{chain.url}"\narena = "{stage.arena.address}"\nfrom_block = 0\n'
            'confirmations = 1\nstore = "store"\nhome = "home"\n'
        )
        yield Scene(stage, store, spec, manifest)
        endpoint.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def command(*words: str, code: int = 0) -> dict[str, Any]:
        assert main(["publisher", "model", *words, "--out", "won", "--json"]) == code
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    return command


@pytest.mark.parametrize("words", [(str(TASK),), (str(ROUND), "--round")])
def test_model__of_a_task_or_a_round__is_there_with_spec_and_manifest(
    scene: Scene, run: Callable[..., dict[str, Any]], words: tuple[str, ...]
) -> None:
    scene.play(Verdict.WINNER)

    assert (
        run(*words)
        == run(*words)
        == {
            "task": TASK,
            "round": ROUND,
            "title": scene.spec.title,
            "winner": scene.stage.address(WINNER),
            "claim_ppm": CLAIM,
            "model": "won/model.safetensors",
            "spec": "won/spec.json",
            "manifest": "won/manifest.json",
        }
    )

    assert Path("won/model.safetensors").read_bytes() == WEIGHTS
    assert TaskSpec.parse(Path("won/spec.json").read_bytes()) == scene.spec
    assert Manifest.parse(Path("won/manifest.json").read_bytes()) == scene.manifest
    assert sorted(path.name for path in Path("won").iterdir()) == [
        "manifest.json",
        "model.safetensors",
        "spec.json",
    ]


def test_model__in_words__names_winner_claim_and_files(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.play(Verdict.WINNER)
    assert main(["publisher", "model", str(TASK), "--out", "won"]) == 0
    shown = capsys.readouterr().out
    for words in (scene.stage.address(WINNER), "0.9112", "won/model.safetensors"):
        assert words in shown
    first = "next: `pouw predict won/model.safetensors --images SCANS --out LABELS`"
    assert shown.index(first) < shown.index("`pouw score won/model.safetensors FOLDER`")
    assert shown.index("pouw score") < shown.index("pouw data split")


def test_model__task_without_a_round__says_what_became_of_it(
    scene: Scene, run: Callable[..., dict[str, Any]]
) -> None:
    publisher = scene.stage.clients[PUBLISHER]
    assert "publishes a task 9" in run("9", code=1)["error"]
    assert "task 1 has no winner: it is selected" in run("1", code=1)["error"]
    publisher.publish(b"p" * 32, b"k" * 32, 1, 1)
    assert "task 2 has no winner: it waits in the pool" in run("2", code=1)["error"]
    publisher.cancel(2)
    assert "it was cancelled" in run("2", code=1)["error"]
    scene.stage.wait(PARAMETERS.phase2 + PARAMETERS.key_window)
    publisher.sync()
    assert "it was dropped: its data key" in run("1", code=1)["error"]
    assert not Path("won").exists()


@pytest.mark.parametrize(
    ("verdict", "claim", "why"),
    [(Verdict.NO_TRUE_CLAIM, CLAIM, "no claim was true"), (Verdict.NONE, None, "no model was")],
)
def test_model__round_without_a_winner__says_how_it_ended(
    scene: Scene,
    run: Callable[..., dict[str, Any]],
    verdict: Verdict,
    claim: int | None,
    why: str,
) -> None:
    assert "begins a round 1" in run("1", "--round", code=1)["error"]
    scene.play(verdict, claim)
    for words in ((str(TASK),), (str(ROUND), "--round")):
        refusal = run(*words, code=1)["error"]
        assert f"round 1 of task 1 ended without a winner: {why}" in refusal


def test_model__miner_not_named_in_store__says_whom_to_name(
    scene: Scene, run: Callable[..., dict[str, Any]]
) -> None:
    scene.play(Verdict.WINNER)
    scene.store.path_of(scene.manifest.model.cid).unlink()
    assert "http://MINER:8088" in run("1", code=1)["hint"]
    assert not Path("won/model.safetensors").exists()


def test_model__larger_than_the_task_allows__is_not_fetched(
    scene: Scene, run: Callable[..., dict[str, Any]]
) -> None:
    model = scene.manifest.model.model_copy(update={"bytes": scene.spec.caps.model_bytes + 1})
    scene.manifest = scene.manifest.model_copy(update={"model": model})
    scene.store.put_bytes(scene.manifest.encode())
    scene.play(Verdict.WINNER)
    assert "the task allows" in run("1", code=1)["error"]
    assert not Path("won").exists()
