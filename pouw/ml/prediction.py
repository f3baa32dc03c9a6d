"""A model applied to images without labels: ``python -m pouw.ml.prediction``, once a command.

It reads one ``PredictionRequest`` from standard input and writes ``PredictionAnswer``s, a line
each, to standard output, nothing else; chatter goes to standard error. It is confined, and the
model bounded, as where strangers' models are scored (``pouw.ml.scoring``).
"""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TextIO

import nibabel
import numpy as np
import torch
from torch import nn

from pouw.errors import DataError, ModelError, PouwError
from pouw.files import atomic_file, of_machine
from pouw.ml.cases import Case, load_image
from pouw.ml.host import Host, MachineFault, TooSlow, run_confined
from pouw.ml.images import NIFTI
from pouw.ml.inference import predict_stored, prepare
from pouw.ml.layout import CaseFile
from pouw.ml.readers.rasters import read_pixels
from pouw.ml.requests import (
    DeviceName,
    PredictionAnswer,
    PredictionFault,
    PredictionRequest,
    Unlabelled,
)
from pouw.types import SCORE_ONE_PPM

_MAX_DETAIL: Final = 4096
_TELL_SECONDS: Final = 0.25


def predict_images(host: Host, request: PredictionRequest) -> Iterator[PredictionAnswer]:
    """Write each case's label map (X, Y, Z), on the grid of its image, and say how far it is.

    ModelError where the model is not one of the spec's network or cannot predict a case, TooSlow
    where it takes too long, DataError where an image cannot be used or has not its channels,
    MemoryError and OSError where this machine is in trouble.
    """
    host.rehearse(request.spec)
    network = host.load(request.model, request.spec)
    for done, unlabelled in enumerate(request.cases):
        yield from _predict(host, network, request, done, unlabelled)


def _predict(
    host: Host, network: nn.Module, request: PredictionRequest, done: int, unlabelled: Unlabelled
) -> Iterator[PredictionAnswer]:
    case, affine = _read(unlabelled)
    _, x, y, z = case.image.shape
    labels, predicted = np.empty((x, y, z), dtype=np.uint8), 0
    image = prepare(case, request.spec)
    bounds = host.bounded(case.name, image, request.spec)
    try:
        with bounds as check_time:
            for slab in predict_stored(network, image, request.spec, (x, y, z)):
                labels[slab.where] = slab.labels
                check_time()
                predicted += slab.labels.size
                # The whole is told once it is written.
                part_ppm = min(SCORE_ONE_PPM - 1, SCORE_ONE_PPM * predicted // labels.size)
                yield PredictionAnswer(done=done, part_ppm=part_ppm)
    except (ModelError, ValueError) as error:
        raise ModelError(f"case {case.name}: {error}") from error
    except (RuntimeError, MemoryError) as error:  # the former is torch's word for it
        raise MemoryError(f"case {case.name}: {error}") from error
    written = nibabel.Nifti1Image(labels, affine)  # type: ignore[no-untyped-call]
    with atomic_file(request.out / f"{done}.nii.gz") as file:
        file.write(gzip.compress(written.to_bytes(), mtime=0))
    yield PredictionAnswer(done=done, part_ppm=SCORE_ONE_PPM)


def _read(unlabelled: Unlabelled) -> tuple[Case, Any]:
    name, first = unlabelled.name, unlabelled.images[0]
    if first.name.lower().endswith(NIFTI):
        image, spacing_um = load_image(CaseFile(name, unlabelled.images, None))
        return Case(name, image, None, spacing_um), nibabel.load(first).affine  # type: ignore[attr-defined]
    pixels = read_pixels(first).astype(np.float32)
    return Case(name, pixels, None, (1000, 1000, 1000)), np.eye(4)


def _answers(host: Host, request: PredictionRequest) -> Iterator[PredictionAnswer]:
    """As ``predict_images``; whatever is wrong is the last answer, never raised."""
    done = 0

    def fault(reason: PredictionFault, error: BaseException) -> PredictionAnswer:
        hint = error.hint if isinstance(error, PouwError) else None
        detail = str(error)[:_MAX_DETAIL]
        return PredictionAnswer(done=done, part_ppm=0, fault=reason, detail=detail, hint=hint)

    try:
        for answer in predict_images(host, request):
            done = answer.done + (answer.part_ppm == SCORE_ONE_PPM)
            yield answer
    except (ModelError, TooSlow) as error:
        yield fault("model", error)
    except DataError as error:
        yield fault("local" if of_machine(error) else "data", error)
    except MemoryError as error:
        yield fault("local", MemoryError(f"this machine has not the memory: {error}"))
    except (MachineFault, OSError) as error:
        yield fault("local", error)


def serve(request: PredictionRequest, answers: TextIO, host: Host) -> None:
    """Write what comes of the request, at most some lines a second for each case."""
    told = 0.0
    for answer in _answers(host, request):
        under_way = answer.fault is None and answer.part_ppm < SCORE_ONE_PPM
        if under_way and time.monotonic() - told < _TELL_SECONDS:
            continue
        told = time.monotonic()
        answers.write(answer.line() + "\n")
        answers.flush()


def main(arguments: list[str]) -> int:
    """Do what the one request on standard input asks for."""

    def begin(device: DeviceName) -> Callable[[TextIO], None]:
        host = Host(device, torch.get_num_threads())
        return lambda answers: serve(PredictionRequest.parse(sys.stdin.readline()), answers, host)

    return run_confined("prediction", __doc__ or "", arguments, begin)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
