"""`pouw predict`: label maps of images without labels, the same as the scorers'."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from exploit import plant
from PIL import Image
from tiny_task import tiny_spec, write_tiny_set

from pouw.cli.main import main
from pouw.documents import TaskSpec
from pouw.ml.checkpoint import save_model
from pouw.ml.networks import build
from pouw.ml.requests import ScoringRequest
from pouw.ml.scoring import Scorer

# A child that is killed after it wrote its second label map, before that has its name.
DEATH = """
import os, signal, sys

def on_event(event, arguments):
    if event == "os.rename":
        renamed.append(arguments)
        if len(renamed) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

renamed = []
if "pouw.ml.prediction" in sys.orig_argv:
    sys.addaudithook(on_event)
"""
AFFINE = np.diag([0.5, 0.5, 3.0, 1.0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model beside its spec, and a data set."""
    monkeypatch.chdir(tmp_path)
    write_model(tiny_spec())
    write_tiny_set(tmp_path / "data", train=1, test=2)
    return tmp_path


def write_model(spec: TaskSpec) -> None:
    torch.manual_seed(1)
    network = build(
        spec.network, len(spec.channels), len(spec.labels), parameters_cap=spec.caps.parameters
    )
    save_model(Path("model.safetensors"), network)
    Path("spec.json").write_bytes(spec.encode())


def predict(images: str, *more: str, code: int = 0) -> None:
    words = ["predict", "model.safetensors", "--images", images, "--out", "labels", "--json"]
    assert main([*words, *more]) == code


def test_predict__nifti__is_what_scorers_compute_and_where_the_image_lies(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (folder / "data/imagesTs").iterdir():
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), AFFINE), path)

    predict("data/imagesTs")

    told = json.loads(capsys.readouterr().out)
    assert told["labels"] == ["background", "bright", "dark"]
    assert told["written"] == ["labels/test0.nii.gz", "labels/test1.nii.gz"]
    request = ScoringRequest(
        id="m",
        spec=tiny_spec(),
        data=folder / "data",
        model=folder / "model.safetensors",
        predictions=folder / "scored",
    )
    assert Scorer().answer(request).reason == "score"
    for name in ("test0", "test1"):
        predicted = nibabel.load(f"labels/{name}.nii.gz")
        assert np.array_equal(predicted.affine, AFFINE)
        assert predicted.get_data_dtype() == np.uint8
        expected = np.load(folder / f"scored/{name}.npy")
        assert np.array_equal(np.asarray(predicted.dataobj), expected)
        assert len(np.unique(expected)) > 1


def test_predict__colour_pictures__are_one_case_each(folder: Path) -> None:
    write_model(tiny_spec(channels=("red", "green", "blue")))
    (folder / "pictures").mkdir()
    pixels = np.random.Generator(np.random.Philox(4)).integers(0, 255, (20, 24, 3), np.uint8)
    for name in ("slide_0000.png", "slide_0001.png"):
        Image.fromarray(pixels).save(folder / "pictures" / name)
    predict("pictures")
    shapes = {path.name: nibabel.load(path).shape for path in (folder / "labels").iterdir()}
    assert shapes == {"slide_0000.nii.gz": (24, 20, 1), "slide_0001.nii.gz": (24, 20, 1)}


def test_predict__a_file_for_each_channel__is_one_case(folder: Path) -> None:
    write_model(tiny_spec(channels=("t1", "t2")))
    source = folder / "data/imagesTs"
    (source / "test1_0000.nii.gz").rename(source / "test0_0001.nii.gz")
    predict("data/imagesTs", "--spec", "spec.json")
    assert [path.name for path in (folder / "labels").iterdir()] == ["test0.nii.gz"]


@pytest.mark.parametrize(
    ("rename", "channels", "error"),
    [
        ("test2.txt", ("grey",), None),
        ("test0_0001.nii.gz", ("grey",), None),
        ("test0.nii.gz", ("grey",), "is the same case"),
        ("test2_0001.nii.gz", ("t1", "t2"), "test2 has no channel 0"),
        ("test0_0001.nii.gz", ("t1", "t2", "t3"), "has 2 channel(s), the spec 3"),
    ],
)
def test_predict__folder_that_does_not_fit__is_refused_by_name(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    rename: str,
    channels: tuple[str, ...],
    error: str | None,
) -> None:
    write_model(tiny_spec(channels=channels))
    (folder / "data/imagesTs/test1_0000.nii.gz").rename(folder / "data/imagesTs" / rename)
    predict("data/imagesTs", code=1 if error else 0)
    if error:
        assert error in json.loads(capsys.readouterr().out)["error"]
        assert not (folder / "labels").exists()


def test_predict__onto_the_ground_truth__is_refused_before_the_model_is_looked_at(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = {path.name: path.read_bytes() for path in (folder / "data/labelsTs").iterdir()}
    (folder / "spare").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").write_bytes(b"no model")
    predict("data/imagesTs", "--out", "data/labelsTs", code=1)
    told = json.loads(capsys.readouterr().out)
    assert told["error"] == "data/labelsTs/test0.nii.gz exists already (2 of 2 label maps)"
    assert "--overwrite" in told["hint"]
    assert truth == {path.name: path.read_bytes() for path in (folder / "data/labelsTs").iterdir()}

    (folder / "spare").rename(folder / "model.safetensors")
    predict("data/imagesTs", "--out", "data/labelsTs", "--overwrite")
    assert truth != {path.name: path.read_bytes() for path in (folder / "data/labelsTs").iterdir()}


def test_predict__where_an_uncompressed_label_map_is__is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "labels").mkdir()
    (folder / "labels/test1.nii").write_bytes(b"mine")
    predict("data/imagesTs", code=1)
    assert "labels/test1.nii exists already" in json.loads(capsys.readouterr().out)["error"]


def test_predict__before_the_first_window__says_that_it_starts(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pouw.cli.output.LINE_SECONDS", 0.01)
    predict("data/imagesTs")
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("starting, ")


def test_predict__no_image_or_no_spec__says_what_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict("data", code=1)
    assert "data: no image" in capsys.readouterr().err
    (folder / "spec.json").unlink()
    predict("data/imagesTs", code=1)
    shown = capsys.readouterr().err
    assert "spec.json is no file" in shown
    assert "--spec" in shown


class Harm:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._path),)


def test_predict__hostile_file__is_read_where_no_socket_and_no_program_can_be_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Harm(folder / "harm")))
    log = plant(folder, "pouw.ml.prediction")
    monkeypatch.setenv("PYTHONPATH", str(folder))

    predict("data/imagesTs", code=1)

    said = json.loads(capsys.readouterr().out)["error"]
    assert said.startswith("the model: the header claims")
    assert not (folder / "harm").exists()
    assert not (folder / "labels").exists()
    process, *attempts = log.read_text().split()
    assert int(process) != os.getpid()
    assert attempts == ["PermissionError"] * 3


def test_predict__model_beyond_the_caps_of_its_task__is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.truncate(1 << 40)
    predict("data/imagesTs", code=1)
    assert "bytes, at most" in json.loads(capsys.readouterr().out)["error"]


def test_predict__process_dies__says_of_what_and_leaves_whole_label_maps_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predict("data/imagesTs")
    wanted = {path.name: path.read_bytes() for path in (folder / "labels").iterdir()}
    for path in (folder / "labels").iterdir():
        path.unlink()
    capsys.readouterr()
    (folder / "sitecustomize.py").write_text(DEATH)
    monkeypatch.setenv("PYTHONPATH", str(folder))

    predict("data/imagesTs", code=1)

    told = json.loads(capsys.readouterr().out)
    assert "test1: the model's process ended by SIGKILL" in told["error"]
    assert "1 of 2 label maps are in labels" in told["hint"]
    (left,) = (folder / "labels").iterdir()
    assert left.name == "test0.nii.gz"
    assert left.read_bytes() == wanted[left.name]


def test_predict__label_maps_that_cannot_be_written__says_so_and_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict("data/imagesTs", "--out", "model.safetensors/labels", code=1)
    told = json.loads(capsys.readouterr().out)
    assert "cannot write model.safetensors/labels/test0.nii.gz: Not a directory" in told["error"]
    assert "--out" in told["hint"]


def test_predict__spec_that_is_too_large__is_refused_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "spec.json").open("ab") as file:
        file.truncate(1 << 40)
    predict("data/imagesTs", code=1)
    assert "at most" in capsys.readouterr().err
