"""From a folder of colour images to a score: sealed, opened, learnt and judged as in a round."""

from __future__ import annotations

import dataclasses
import gzip
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
from pouw.ml.split import divide, patients_of
from pouw.roles.content import open_archive
from pouw.roles.offer import TEST_FRACTION_PPM, Offer, PublishRequest, seal_offer, split_seed
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


def offered(tmp_path: Path, request: PublishRequest, key: bytes = TEST_KEY) -> Offer:
    scratch = tmp_path / f"scratch-{key.hex()[:8]}"
    scratch.mkdir()
    store = LocalStore(tmp_path / "store")
    return seal_offer(request, key, store, scratch, lambda _stage, _done, _total: None)


def seal(tmp_path: Path, request: PublishRequest, key: bytes = TEST_KEY) -> TaskSpec:
    return offered(tmp_path, request, key).spec


def opened(tmp_path: Path, spec: TaskSpec) -> dict[str, Path]:
    """The folders that miners and oracles open."""
    store, hashed = LocalStore(tmp_path / "store"), key_hash_of(TEST_KEY)
    keys = {"train": data_key_of(TEST_KEY), "test": TEST_KEY}
    return {
        kind: open_archive(store, spec, kind, key, hashed, tmp_path / "open")
        for kind, key in keys.items()
    }


def write_scans(root: Path) -> Path:
    """Two slices of each of five patients, who are named in names and headers of the files."""
    random = np.random.default_rng(6)
    for patient in ("Mueller", "Meier", "Schmidt", "Weber", "Wagner"):
        for part in (1, 2):
            label = np.zeros((16, 16, 1), np.uint8)
            label[4:9, 3 + part : 10] = 1
            image = (300 * label + random.normal(0, 30, label.shape)).astype(np.int16)
            for folder, voxels in (("imagesTr", image), ("labelsTr", label)):
                made = nibabel.Nifti1Image(voxels, np.diag([0.5, 0.5, 3.0, 1.0]))
                made.header["descrip"] = f"{patient}^Hans 1961-03-04".encode()
                (root / folder).mkdir(parents=True, exist_ok=True)
                nibabel.save(made, root / folder / f"{patient}_slice_{part}.nii.gz")
    return root


def test_seal_offer__of_scans_that_name_patients__archives_name_nobody(tmp_path: Path) -> None:
    folder = write_scans(tmp_path / "scans")
    offer = offered(tmp_path, request_for(folder))
    archives = opened(tmp_path, offer.spec)
    for path in (path for one in archives.values() for path in one.rglob("*") if path.is_file()):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert path.name == "dataset.json" or path.name.startswith("sub-00")
        assert not any(word in data for word in (b"Hans", b"1961", b"slice"))
    published = [
        *read_dataset(archives["train"]).train,
        *read_dataset(archives["test"]).test,
    ]
    originals = {case.name: case for case in read_dataset(folder).train}
    assert sorted(offer.names.values()) == sorted(originals)
    for case in published:
        original = originals[offer.names[case.name]]
        for new, old in ((case.images[0], original.images[0]), (case.label, original.label)):
            assert np.array_equal(nibabel.load(new).get_fdata(), nibabel.load(old).get_fdata())
    whose = patients_of(published)
    for one, patient in whose.items():
        for other, same in whose.items():
            ours, theirs = (offer.names[name].split("_")[0] for name in (one, other))
            assert (patient == same) == (ours == theirs)


def test_seal_offer__test_set__is_what_anybody_recomputes_from_the_names_and_the_key(
    tmp_path: Path,
) -> None:
    spec = seal(tmp_path, request_for(write_scans(tmp_path / "scans")))
    archives = opened(tmp_path, spec)
    train, test = read_dataset(archives["train"]), read_dataset(archives["test"])
    whole = dataclasses.replace(train, train=(*train.train, *test.test))
    again = divide(whole, TEST_FRACTION_PPM, split_seed(TEST_KEY))
    assert {case.name for case in again.test} == {case.name for case in test.test}


def test_seal_offer__of_colour_images__can_be_opened_learnt_and_scored(tmp_path: Path) -> None:
    requests = pytest.importorskip("pouw.ml.requests")
    training = pytest.importorskip("pouw.ml.training")
    scoring = pytest.importorskip("pouw.ml.scoring")
    spec = seal(tmp_path, request_for(write_images(tmp_path / "images")))
    assert spec.channels == ("red", "green", "blue")
    assert spec.inference.patch == (48, 40)
    assert (spec.train.cases, spec.test.cases) == (5, 1)
    archives = opened(tmp_path, spec)
    request = requests.TrainingRequest(
        spec=spec,
        data=archives["train"],
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
    asked = requests.ScoringRequest(id="colour", spec=spec, data=archives["test"], model=model)
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


def test_seal_offer__of_images__says_what_check_says_before_anything_is_written(
    tmp_path: Path,
) -> None:
    folder = write_images(tmp_path / "images")
    found = examine(read_folder(folder))
    said: list[str] = []
    seal_offer(
        request_for(folder),
        TEST_KEY,
        LocalStore(tmp_path / "store"),
        tmp_path / "scratch",
        lambda stage, _done, _total: said.append(stage),
        said.append,
    )
    lines = [f"labels: {found.shares}", *(f"note: {remark}" for remark in found.remarks)]
    assert "note: masks: whatever is above 0 is foreground" in lines
    first = said.index(lines[0])
    assert said[first : first + len(lines)] == lines
    assert "write" not in said[:first]


def test_seal_offer__of_a_damaged_folder__seals_nothing(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    (folder / "masks" / "i2.png").unlink()
    with pytest.raises(DataError, match=r"i2\.png: no mask i2") as caught:
        seal(tmp_path, request_for(folder))
    assert caught.value.hint is not None
    assert "pouw data check" in caught.value.hint
