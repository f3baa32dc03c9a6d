"""From a folder of colour images to a score: sealed, opened, learnt and judged as in a round."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from tiny_task import write_tiny_set

from pouw.documents import TaskSpec
from pouw.errors import DataError, ModelTooLarge
from pouw.hashing import data_key_of, key_hash_of
from pouw.ml.cases import load_case
from pouw.ml.examine import examine
from pouw.ml.fingerprint import facts_of, fingerprint_of
from pouw.ml.layout import read_dataset
from pouw.ml.readers import read_folder
from pouw.ml.recipe import propose
from pouw.roles.content import open_archive
from pouw.roles.offer import PublishRequest, seal_offer
from pouw.storage.local import LocalStore

TEST_KEY = bytes(range(32))


def write_images(root: Path, count: int = 6) -> Path:
    """Discs that differ from the noise around them in the ratio of red to blue alone."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:40, :48]
    for number in range(count):
        a, b = random.integers(12, 28, 2)
        disc = (y - a) ** 2 + (x - b) ** 2 < 81
        light = random.integers(90, 160, (40, 48))
        image = np.stack([light + 60 * disc, light, light - 60 * disc], axis=-1)
        for folder, pixels in (("images", image), ("masks", disc * 7)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"i{number}.png")
    return root


def request_for(folder: Path) -> PublishRequest:
    return PublishRequest(
        folder=folder,
        title="discs",
        spatial_dims=None,
        reward_wei=1,
        min_score_ppm=1,
        training_seconds=60,
        modality=None,
        licence="CC0",
        citation="none",
    )


def seal(tmp_path: Path, request: PublishRequest, key: bytes = TEST_KEY) -> TaskSpec:
    scratch = tmp_path / f"scratch-{key.hex()[:8]}"
    scratch.mkdir()
    store = LocalStore(tmp_path / "store")
    return seal_offer(request, key, store, scratch, lambda _stage, _done, _total: None)


def test_seal_offer__of_colour_images__can_be_opened_learnt_and_scored(tmp_path: Path) -> None:
    requests = pytest.importorskip("pouw.ml.requests")
    training = pytest.importorskip("pouw.ml.training")
    scoring = pytest.importorskip("pouw.ml.scoring")
    spec = seal(tmp_path, request_for(write_images(tmp_path / "images")))
    assert spec.channels == ("red", "green", "blue")
    assert spec.inference.patch == (48, 40)
    assert (spec.train.cases, spec.test.cases) == (5, 1)
    keys = {"train": data_key_of(TEST_KEY), "test": TEST_KEY}
    opened = {}
    for kind in ("train", "test"):
        store = LocalStore(tmp_path / "store")
        hashed = key_hash_of(TEST_KEY)
        opened[kind] = open_archive(store, spec, kind, keys[kind], hashed, tmp_path / "open")
    request = requests.TrainingRequest(
        spec=spec,
        data=opened["train"],
        out=tmp_path / "run",
        seed="0x" + "5a" * 32,
        stop_at_ms=int(time.time() * 1000) + 300_000,
        max_steps=40,
        engine=requests.Engine(device="cpu"),
        settings=requests.TrainingSettings(batch_size=2),
    )
    training.Training(request, lambda: False).run()
    snapshot = requests.Snapshot.parse((tmp_path / "run" / "snapshots.jsonl").read_text())
    model = tmp_path / "run" / snapshot.model
    asked = requests.ScoringRequest(id="colour", spec=spec, data=opened["test"], model=model)
    answer = scoring.Scorer().answer(asked)
    assert answer.reason == "score"
    assert answer.score_ppm > 700_000


def test_seal_offer__planned_from_ct__tells_of_the_training_cases_alone(tmp_path: Path) -> None:
    folder, random = write_tiny_set(tmp_path / "images", 6, 0), np.random.default_rng(2)
    for number in range(6):  # every patient has a contrast of his own
        path = folder / f"imagesTr/train{number}_0000.nii.gz"
        label = np.asarray(nibabel.load(folder / f"labelsTr/train{number}.nii.gz").dataobj)
        noise = random.normal(0, 20, label.shape) + (label > 0) * 100 * number
        nibabel.save(nibabel.Nifti1Image(noise.astype(np.int16), np.eye(4)), path)
    request = dataclasses.replace(request_for(folder), modality="CT", spatial_dims=2)
    spec = seal(tmp_path, request)

    store, key = LocalStore(tmp_path / "store"), data_key_of(TEST_KEY)
    train = open_archive(store, spec, "train", key, key_hash_of(TEST_KEY), tmp_path / "open")
    facts = [facts_of(load_case(case, 3), 3) for case in read_dataset(train).train]

    assert (spec.train.cases, spec.test.cases) == (5, 1)
    assert spec.inference.windows == fingerprint_of(facts).windows


def test_seal_offer__with_another_key__hides_other_cases(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 8)
    hidden = set()
    for number in range(4):
        key = bytes([number]) * 32
        spec = seal(tmp_path, request_for(folder), key)
        out = tmp_path / f"open{number}"
        store = LocalStore(tmp_path / "store")
        test = open_archive(store, spec, "test", key, key_hash_of(key), out)
        hidden.add(tuple(case.name for case in read_dataset(test).test))
    assert len(hidden) > 1


@pytest.mark.parametrize(
    "cap", ["parameters", "model_bytes", "activation_bytes", "checkpoints_bytes"]
)
def test_seal_offer__of_a_network_past_its_own_caps__is_refused(tmp_path: Path, cap: str) -> None:
    folder = write_images(tmp_path / "images", 3)
    found = examine(read_folder(folder))
    proposal = propose(found.source.dataset, found.usable())
    small = dataclasses.replace(proposal, caps=proposal.caps.model_copy(update={cap: 1000}))
    with pytest.raises(ModelTooLarge):
        seal(tmp_path, dataclasses.replace(request_for(folder), proposal=small))
    assert not any((tmp_path / "store").rglob("*.sealed"))


def test_seal_offer__recipe_without_a_bound_on_checkpoints__the_spec_has_one(
    tmp_path: Path,
) -> None:
    folder = write_images(tmp_path / "images", 3)
    found = examine(read_folder(folder))
    proposal = propose(found.source.dataset, found.usable())
    assert seal(tmp_path, request_for(folder)).caps.checkpoints_bytes == 16 << 30
    caps = proposal.caps.model_copy(update={"checkpoints_bytes": None})
    without = dataclasses.replace(proposal, caps=caps)
    spec = seal(tmp_path, dataclasses.replace(request_for(folder), proposal=without), bytes(32))
    assert spec.caps.checkpoints_bytes == 64 * (4 * spec.caps.model_bytes + (4 << 20))


def test_seal_offer__of_a_damaged_folder__seals_nothing(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    (folder / "masks" / "i2.png").unlink()
    with pytest.raises(DataError, match=r"i2\.png: no mask i2") as caught:
        seal(tmp_path, request_for(folder))
    assert caught.value.hint is not None
    assert "pouw data check" in caught.value.hint
