"""``pouw data``: what is in a folder of images, before anything is published."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pouw.cli.options import Call, example, settings_options
from pouw.cli.output import is_terminal
from pouw.cli.values import SHARE
from pouw.errors import ModelError

if TYPE_CHECKING:
    from pouw.ml.examine import Examination
    from pouw.ml.recipe import Proposal

_FOLDER: Final = click.Path(path_type=Path, exists=True, file_okay=False)
_SHOWN: Final = 20


@click.group()
def data() -> None:
    """Look at images and labels before publishing them."""


@data.command(epilog=example("pouw data check scans"))
@settings_options()
@click.argument("folder", type=_FOLDER)
@click.option("--modality", help="Such as CT, where the folder does not tell.")
def check(call: Call, folder: Path, modality: str | None) -> int:
    """Say what FOLDER holds, what is wrong with it, and what would be planned for it.

    Every image and label is decoded once. The exit code is 1 where the folder cannot be published
    as it is.
    """
    from pouw.ml.recipe import Wishes, propose

    found = _examine(folder)
    proposal = None
    if not found.problems:
        try:
            wishes = Wishes(modality=modality or found.source.modality)
            dataset = found.source.dataset
            # As `publish` does: a plan is public before the folder's own test set is.
            planned_from = found.fingerprint_of(dataset.train or dataset.test)
            proposal = propose(dataset, planned_from, wishes)
        except ModelError as error:
            call.output.notice(f"no network was planned: {error}")
    call.output.result(_document(found, proposal), "\n".join(_lines(found, proposal, modality)))
    return 1 if found.problems else 0


@data.command(epilog=example("pouw data split scans scans-split --test 0.25 --seed 'my secret'"))
@settings_options()
@click.argument("folder", type=_FOLDER)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--test",
    "fraction",
    type=SHARE,
    default="0.25",
    show_default=True,
    help="Share of the labelled cases to test on.",
)
@click.option("--seed", help="Whoever knows it can foretell the choice (default: drawn, and told).")
def split(call: Call, folder: Path, out: Path, fraction: int, seed: str | None) -> None:
    """Write FOLDER to the new folder OUT in nnU-Net v2 layout, with a test set held out.

    Labelled test cases that FOLDER already has are kept as the test set. The same seed gives the
    same split; cases of one patient stay on one side where their names tell. `pouw publisher
    publish OUT` uses it as it is.
    """
    from pouw.ml.split import divide, refuse_full, split_into

    refuse_full(out)
    seed = secrets.token_hex(16) if seed is None else seed
    found = _examine(folder)
    found.usable()
    parts = divide(found.source.dataset, fraction, seed)
    with _progress("writing") as advance:
        split_into(found.source, parts, out, advance)
    names = {
        "train": [case.name for case in parts.train],
        "test": [case.name for case in parts.test],
    }
    call.output.result(
        {"out": str(out), "seed": seed, **names},
        f"{out}: {len(parts.train)} training and {len(parts.test)} test cases, nnU-Net v2 layout\n"
        f"the same again: --seed {shlex.quote(seed)}; whoever knows it knows the test set",
    )


def _examine(folder: Path) -> Examination:
    from pouw.ml.examine import examine
    from pouw.ml.readers import read_folder

    source = read_folder(folder)
    with _progress("reading") as advance:
        return examine(source, advance)


@contextmanager
def _progress(stage: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error where a person watches."""
    from rich.progress import Progress

    from pouw.cli.output import console

    with Progress(console=console(err=True), transient=True, disable=not is_terminal()) as bar:
        shown = bar.add_task(stage, total=None)
        yield lambda done, total: bar.update(shown, completed=done, total=total)


def _document(found: Examination, proposal: Proposal | None) -> dict[str, Any]:
    dataset, numbers = found.source.dataset, found.fingerprint
    plan = proposal and {
        "network": proposal.network.model_dump(mode="json"),
        "inference": proposal.inference.model_dump(mode="json"),
        "caps": proposal.caps.model_dump(mode="json"),
    }
    return {
        "folder": str(dataset.root),
        "format": found.source.format,
        "channels": list(dataset.channels),
        "labels": list(dataset.labels),
        "train": len(dataset.train),
        "test": len(dataset.test),
        "median_shape": numbers and list(numbers.median_shape),
        "median_spacing_um": numbers and list(numbers.median_spacing_um),
        "label_voxels": numbers and list(numbers.voxels),
        "problems": [{"problem": str(one), "hint": one.hint} for one in found.problems],
        "remarks": list(found.remarks),
        "plan": plan,
    }


def _lines(found: Examination, proposal: Proposal | None, modality: str | None) -> Iterator[str]:
    dataset, numbers = found.source.dataset, found.fingerprint
    yield f"{dataset.root}: {found.source.format}"
    yield f"  {len(dataset.train)} training and {len(dataset.test)} test cases"
    yield f"  channels: {', '.join(dataset.channels)}"
    if numbers:
        yield f"  labels: {found.shares}"
        size = " x ".join(map(str, numbers.median_shape))
        spacing = " x ".join(f"{one / 1000:g}" for one in numbers.median_spacing_um)
        yield f"  median image: {size} voxels of {spacing} mm"
    yield from (f"  note: {remark}" for remark in found.remarks[:_SHOWN])
    if proposal:
        recipe = proposal.inference
        patch = " x ".join(map(str, recipe.patch))
        yield f"  plan: {proposal.network.name}, patches of {patch}, {recipe.normalisation}"
    for number, problem in enumerate(found.problems[:_SHOWN], start=1):
        yield f"problem {number}: {problem}"
        if problem.hint:
            yield f"  hint: {problem.hint}"
    more = len(found.problems) - _SHOWN
    if more > 0:
        yield f"and {more} more (--json lists them all)"
    if found.problems:
        yield f"{len(found.problems)} problem(s): mend them before publishing"
    else:
        words = ["pouw", "publisher", "publish", str(dataset.root)]
        words += ["--modality", modality] if modality else []
        words += ["--reward", "1ether", "--minimum", "0.8", "--data-will-be-public"]
        yield f"no problem; next: {shlex.join(words)}"
