"""``pouw predict``: a model that was paid for, put to use."""

from __future__ import annotations

from pathlib import Path

import click

from pouw.cli.options import Call, example, settings_options
from pouw.cli.output import bar
from pouw.errors import ConfigError

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
def predict(call: Call, *, model: Path, spec: Path | None, images: Path, out: Path) -> None:
    """Segment images without labels by MODEL (safetensors), as its task's scorers would.

    `pouw publisher model` fetches the model that won a task, and its spec.
    """
    from pouw.documents import TaskSpec
    from pouw.ml.prediction import images_in, predict_images

    document = spec or model.parent / "spec.json"
    try:
        task = TaskSpec.parse(document.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read {document}: {error.strerror}", hint="name the TaskSpec: --spec spec.json"
        ) from error
    cases = images_in(images, len(task.channels))
    written = []
    with bar() as progress:
        for path in predict_images(model, task, cases, out):
            written.append(str(path))
            progress("segment", len(written), len(cases))
    names = ", ".join(f"{value} {label}" for value, label in enumerate(task.labels))
    call.output.result(
        {"labels": list(task.labels), "written": written},
        f"{len(written)} label map(s) in {out}: {names}",
    )
