"""``pouw data`` and ``pouw publisher publish`` on folders as they come, through the whole path."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from pouw.cli.main import cli, main
from pouw.ml.arguments import names
from pouw.ml.layout import read_dataset


def write_images(root: Path, count: int = 5) -> Path:
    """Purple discs on pink noise, with numbered masks."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:48, :64]
    for number in range(count):
        mask = np.zeros((48, 64), np.uint16)
        for disc, (a, b) in enumerate(random.integers(8, 40, (3, 2)), start=1):
            mask[(y - a) ** 2 + (x - b) ** 2 < 36] = 300 * disc
        image = random.normal((230, 180, 200), 10, (48, 64, 3))
        image[mask > 0] -= (130, 120, 40)
        for folder, pixels in (("images", image.clip(0, 255).astype(np.uint8)), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"case{number}.png")
    return root


def test_publish__offers_every_network_of_the_registry() -> None:
    group = cli.commands["publisher"]
    assert isinstance(group, click.Group)
    (option,) = (one for one in group.commands["publish"].params if one.name == "network")
    assert isinstance(option.type, click.Choice)
    assert sorted(option.type.choices) == list(names())


def test_check__of_a_good_folder__says_what_it_holds_and_what_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path)
    assert main(["data", "check", str(root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["train"] == 5
    assert document["channels"] == ["red", "green", "blue"]
    assert document["median_shape"] == [64, 48, 1]
    assert document["plan"]["network"]["name"] == "unet"
    assert document["plan"]["inference"]["patch"] == [64, 48]
    assert document["problems"] == []
    assert main(["data", "check", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "5 training and 0 test cases" in shown
    assert "no problem" in shown


def test_check__of_a_good_folder__names_a_publish_command_that_parses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images(tmp_path / "my scans")
    group = cli.commands["publisher"]
    assert isinstance(group, click.Group)
    given: dict[str, object] = {}
    monkeypatch.setattr(
        group.commands["publish"], "callback", lambda **options: given.update(options)
    )

    assert main(["data", "check", str(root), "--modality", "H&E"]) == 0
    program, *words = shlex.split(capsys.readouterr().out.rpartition("next: ")[2])

    assert program == "pouw"
    assert main(words) == 0
    assert given["folder"] == root
    assert given["modality"] == "H&E"
    assert given["reward"] == 10**18
    assert given["minimum"] == 800_000
    assert given["data_will_be_public"] is True


def test_check__of_a_damaged_folder__lists_every_problem_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path)
    (root / "masks" / "case1.png").unlink()
    (root / "images" / "case2.png").write_bytes(b"no image")
    assert main(["data", "check", str(root)]) == 1
    shown = capsys.readouterr().out
    assert "problem 1: " in shown
    assert "case1.png: no mask" in shown
    assert "case2.png: not a readable image" in shown
    assert "2 problem(s)" in shown
    assert main(["data", "check", str(root), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert len(document["problems"]) == 2
    assert document["plan"] is None


def test_check__masks_of_other_names__says_which_to_rename(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path, 12)
    for mask in (root / "masks").iterdir():
        mask.rename(mask.with_stem(f"{mask.stem}_mask"))
    assert main(["data", "check", str(root), "--json"]) == 1
    hints = {one["hint"] for one in json.loads(capsys.readouterr().out)["problems"]}
    for number in range(12):
        to = f"rename case{number}_mask.png to case{number}.png"
        assert f"masks bear the image's name: {to}" in hints


def test_check__images_without_masks__says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path)
    (root / "masks").rename(root / "annotations")
    assert main(["data", "check", str(root)]) == 1
    shown = capsys.readouterr().err
    assert "images/ without masks/" in shown
    assert "hint: put a mask of every image into masks/" in shown


@pytest.mark.parametrize("place", ["series/I0001", "images/slice.DCM"])
def test_check__dicom__says_to_convert_it(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "masks").mkdir()
    file = tmp_path / place
    file.parent.mkdir()
    file.write_bytes(bytes(128) + b"DICM" + bytes(100))
    assert main(["data", "check", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert f"{place}: a DICOM file" in shown
    assert "convert to NIfTI first" in shown


def test_split__share_that_is_none__is_not_called_a_dice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "split", str(tmp_path), "out", "--test", "1.5"]) == 2
    assert "'1.5' is no share" in capsys.readouterr().err
    assert main(["data", "split", "--help"]) == 0
    assert "--test SHARE" in capsys.readouterr().out


def test_split__with_a_seed__is_a_data_set_to_publish(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, words = write_images(tmp_path / "all"), ["--test", "0.4", "--seed", "x", "--json"]
    assert main(["data", "split", str(root), str(tmp_path / "a"), *words]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["data", "split", str(root), str(tmp_path / "b"), *words]) == 0
    second = json.loads(capsys.readouterr().out)
    assert (first["train"], first["test"]) == (second["train"], second["test"])
    assert len(first["test"]) == 2
    dataset = read_dataset(tmp_path / "a")
    assert [case.name for case in dataset.test] == first["test"]
    assert main(["data", "split", str(root), str(tmp_path / "a")]) == 1
    assert "not empty" in capsys.readouterr().err


def test_split__without_a_seed__draws_one_that_gives_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, made = write_images(tmp_path / "all", 12), []
    for number in range(4):
        assert main(["data", "split", str(root), str(tmp_path / f"s{number}"), "--json"]) == 0
        made.append(json.loads(capsys.readouterr().out))
    assert len({one["seed"] for one in made}) == 4
    assert len({tuple(one["test"]) for one in made}) > 1
    words = ["data", "split", str(root), str(tmp_path / "again"), "--seed", made[0]["seed"]]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"] == made[0]["test"]
    assert main(["data", "split", str(root), str(tmp_path / "told")]) == 0
    assert "--seed" in capsys.readouterr().out


def test_split__into_a_full_folder__is_refused_before_an_image_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path / "all")
    (root / "images" / "case0.png").write_bytes(b"no image")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert main(["data", "split", str(root), str(tmp_path / "full")]) == 1
    assert "not empty" in capsys.readouterr().err
