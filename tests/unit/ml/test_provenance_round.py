"""From a miner's folder to an oracle's finding: real training, store and child process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tiny_task import tiny_spec, write_tiny_set

from pouw.documents import Manifest, Provenance
from pouw.errors import ContentNotFound, MachineFailed, ProcessError
from pouw.hashing import round_seed
from pouw.ml.replays import Link, LinkRequest, max_checkpoint_bytes
from pouw.ml.requests import Engine, TrainingRequest, TrainingSettings
from pouw.roles.manifests import build_manifest
from pouw.roles.processes import read_snapshots
from pouw.roles.provenance import (
    Claim,
    ReplayPlan,
    draw_segments,
    links_fault,
    recipe_fault,
    replay_segments,
)
from pouw.roles.replayer import Replayer
from pouw.storage.local import LocalStore
from pouw.types import ZERO_ADDRESS, ZERO_WORD, Address, RoundNumber, Task, TaskId

NUMBER = RoundNumber(3)
MINER = Address("0x2Fcb07a7a2E3bd9Dc044c8FCb3744de456AeBDF3")
DATA_KEY, TEST_KEY = b"\x01" * 32, b"\x02" * 32
SPEC = tiny_spec(provenance=Provenance(policy="replay", segment_steps=10, segments=2))
TASK = Task(
    task_id=TaskId(1),
    publisher=ZERO_ADDRESS,
    min_score=1,
    round=NUMBER,
    pooled=False,
    first=False,
    reward=1,
    above=TaskId(0),
    below=TaskId(0),
    spec_digest=ZERO_WORD,
    key_hash=ZERO_WORD,
)


@dataclass(frozen=True)
class Scene:
    store: LocalStore
    data: Path
    claim: Claim


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A miner's round of 35 steps, as its own training process and manifest leave it."""
    folder = tmp_path_factory.mktemp("round")
    data = write_tiny_set(folder / "data")
    request = TrainingRequest(
        spec=SPEC,
        data=data,
        out=folder / "out",
        seed="0x" + round_seed(DATA_KEY, NUMBER, MINER).hex(),
        stop_at_ms=int(time.time() * 1000) + 300_000,
        max_steps=35,
        engine=Engine(device="cpu"),
        settings=TrainingSettings(batch_size=2),
    )
    request.out.mkdir()
    (request.out / "request.json").write_text(request.line())
    subprocess.run(
        [sys.executable, "-m", "pouw.ml.training", str(request.out / "request.json")], check=True
    )
    store = LocalStore(folder / "store")
    last = read_snapshots(request.out)[-1]
    manifest = build_manifest(store, request.out, SPEC, TASK, NUMBER, MINER, last)
    assert Manifest.parse(manifest.encode()) == manifest
    return Scene(store, data, Claim(NUMBER, MINER, SPEC, manifest, manifest.digest()))


@pytest.fixture(scope="module")
def replayer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replayer]:
    replayer = Replayer(tmp_path_factory.mktemp("child") / "provenance.log")
    yield replayer
    replayer.end()


def with_manifest(claim: Claim, **changes: object) -> Claim:
    return replace(claim, manifest=claim.manifest.model_copy(update=changes))


def test_round__honest__linked_and_exact(scene: Scene, replayer: Replayer, tmp_path: Path) -> None:
    claim = scene.claim
    steps = [checkpoint.step for checkpoint in claim.manifest.checkpoints]
    assert steps == [10, 20, 30, 35]
    assert recipe_fault(claim, DATA_KEY) is None
    assert links_fault(claim, scene.store, replayer, tmp_path) is None
    drawn = draw_segments(TEST_KEY, NUMBER, MINER, len(steps), SPEC.provenance.segments)
    found = replay_segments(claim, ReplayPlan(scene.data, drawn), scene.store, replayer, tmp_path)
    assert found.same_profile
    assert [one.outcome for one in found.segments] == ["exact", "exact"]
    ends = [steps[index] for index in drawn]
    assert [one.end_step for one in found.segments] == ends
    assert not list(tmp_path.iterdir())


def test_round__checkpoint_swapped_for_another__not_linked(
    scene: Scene, replayer: Replayer, tmp_path: Path
) -> None:
    first, second, *rest = scene.claim.manifest.checkpoints
    same_file = second.model_copy(update={"cid": first.cid, "bytes": first.bytes})
    rest[0] = rest[0].model_copy(update={"previous": first.cid})
    claim = with_manifest(scene.claim, checkpoints=(first, same_file, *rest))
    assert recipe_fault(claim, DATA_KEY) is None
    fault = links_fault(claim, scene.store, replayer, tmp_path)
    assert fault is not None
    assert "the checkpoint of step 20" in fault


def test_round__checkpoint_that_cannot_be_had__missing(
    scene: Scene, replayer: Replayer, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "store")
    with pytest.raises(ContentNotFound):
        links_fault(scene.claim, store, replayer, tmp_path)


def test_recipe__seed_of_another_miner_or_round__fault(scene: Scene) -> None:
    assert recipe_fault(scene.claim, TEST_KEY) == "its seed is not the one of round and miner"
    other = replace(scene.claim, number=RoundNumber(4))
    assert recipe_fault(other, DATA_KEY) is not None


def test_recipe__checkpoint_larger_than_the_caps_allow__fault(scene: Scene) -> None:
    first, *rest = scene.claim.manifest.checkpoints
    huge = first.model_copy(update={"bytes": 1 << 40})
    fault = recipe_fault(with_manifest(scene.claim, checkpoints=(huge, *rest)), DATA_KEY)
    assert fault is not None
    assert "bytes" in fault


def test_recipe__checkpoints_together_larger_than_the_spec_allows__fault(scene: Scene) -> None:
    total = sum(each.bytes for each in scene.claim.manifest.checkpoints)
    allowed, less = (
        replace(
            scene.claim,
            spec=SPEC.model_copy(
                update={"caps": SPEC.caps.model_copy(update={"checkpoints_bytes": size})}
            ),
        )
        for size in (total, total - 1)
    )
    assert recipe_fault(allowed, DATA_KEY) is None
    fault = recipe_fault(less, DATA_KEY)
    assert fault == f"its checkpoints have {total} bytes together, {total - 1} allowed"


def test_recipe__spec_that_does_not_say__allows_64_of_the_largest(scene: Scene) -> None:
    largest = max_checkpoint_bytes(SPEC.caps, 0)
    first, *_ = scene.claim.manifest.checkpoints
    steps = range(10, 10 + 65)
    chain = [
        first.model_copy(update={"step": step, "bytes": largest, "previous": first.cid})
        for step in steps
    ]
    chain[0] = chain[0].model_copy(update={"previous": None})
    assert recipe_fault(with_manifest(scene.claim, checkpoints=tuple(chain[:64])), DATA_KEY) is None
    fault = recipe_fault(with_manifest(scene.claim, checkpoints=tuple(chain)), DATA_KEY)
    assert fault is not None
    assert f"{64 * largest} allowed" in fault


def test_recipe__no_checkpoint_or_steps_that_do_not_rise__fault(scene: Scene) -> None:
    assert "no checkpoint" in str(
        recipe_fault(with_manifest(scene.claim, checkpoints=()), DATA_KEY)
    )
    first, second, *rest = scene.claim.manifest.checkpoints
    for step in (0, first.step):
        stuck = second.model_copy(update={"step": step})
        claim = with_manifest(scene.claim, checkpoints=(first, stuck, *rest))
        assert "not linked" in str(recipe_fault(claim, DATA_KEY))


def test_draw_segments__by_test_key_round_and_miner__a_permutation_of_its_own() -> None:
    drawn = draw_segments(TEST_KEY, NUMBER, MINER, 100, 100)
    assert sorted(drawn) == list(range(100))
    assert drawn[:5] == draw_segments(TEST_KEY, NUMBER, MINER, 100, 5)
    others = [
        draw_segments(DATA_KEY, NUMBER, MINER, 100, 100),
        draw_segments(TEST_KEY, RoundNumber(4), MINER, 100, 100),
        draw_segments(TEST_KEY, NUMBER, ZERO_ADDRESS, 100, 100),
    ]
    assert all(drawn != other for other in others)


def test_draw_segments__over_many_keys__every_segment_alike() -> None:
    counts = [0] * 10
    for key in range(2_000):
        for index in draw_segments(key.to_bytes(32, "big"), NUMBER, MINER, 10, 3):
            counts[index] += 1
    # 600 expected, deviation 20.5: five of them.
    assert all(500 < count < 700 for count in counts)


def test_replayer__child_killed__says_so_and_answers_the_next(
    scene: Scene, replayer: Replayer, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    first = scene.claim.manifest.checkpoints[0]
    scene.store.get_file(first.cid, path, first.bytes)
    link = Link(path=path, begin_step=0, step=first.step, previous_sha256="")
    request = LinkRequest(id="first", spec=SPEC, link=link)
    assert replayer.link(request).fault is None
    assert replayer._child is not None
    replayer._child.kill()
    with pytest.raises(MachineFailed, match="ended the process"):
        replayer.link(request)
    assert replayer.link(request).fault is None


def test_replayer__ended__answers_no_more(tmp_path: Path) -> None:
    replayer = Replayer(tmp_path / "provenance.log")
    replayer.end()
    link = Link(path=tmp_path, begin_step=0, step=1, previous_sha256="")
    with pytest.raises(ProcessError, match="was ended"):
        replayer.link(LinkRequest(id="first", spec=SPEC, link=link))
