"""``pouw predict``: a model that was paid for, put to use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pouw.cli.options import Call, example, settings_options
from pouw.cli.output import bar
from pouw.cli.scoring import read_spec

if TYPE_CHECKING:
    from pouw.ml.requests import DeviceName

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(epilog=example("pouw predict won/model.safetensors --images scans --out labels"))
@settings_options()
@click.argument("model", type=_FILE)
@click.option("--spec", type=_FILE, help="The TaskSpec (default: spec.json beside MODEL).")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of NIfTI files (NAME_0000.nii.gz: one a channel), PNG, TIFF, BMP or JPEG.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for one label map a case (NAME.nii.gz).",
)
@click.option("--overwrite", is_flag=True, help="Write over label maps that are in OUT already.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto: CUDA where there is one.",
)
def predict(
    call: Call,
    *,
    model: Path,
    spec: Path | None,
    images: Path,
    out: Path,
    overwrite: bool,
    device: DeviceName,
) -> None:
    """Segment images without labels by MODEL (safetensors), as its task's scorers would.

    It runs as theirs: in a process without sockets, with bounds on memory and CPU time.
    `pouw publisher model` fetches the model that won a task, and its spec.
    """
    from pouw.ml.images import images_in
    from pouw.roles.predictor import predict_cases, refuse_overwriting

    task = read_spec(spec or model.parent / "spec.json")
    cases = images_in(images, len(task.channels))
    if not overwrite:
        refuse_overwriting(cases, out)
    with bar() as progress:
        progress("starting", 0, 0)
        written = predict_cases(
            model, task, cases, out, device, lambda done, of: progress("segment", done, of)
        )
    names = ", ".join(f"{value} {label}" for value, label in enumerate(task.labels))
    call.output.result(
        {"labels": list(task.labels), "written": [str(path) for path in written]},
        f"{len(written)} label map(s) in {out}: {names}",
    )
