"""A model that was paid for, put to use in a process that is confined as an oracle's scoring is."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from pouw.documents import TaskSpec
from pouw.errors import ConfigError, DataError, ModelError, PouwError, ProcessError
from pouw.files import advice, atomic_file
from pouw.ml.layout import CaseFile
from pouw.ml.requests import DeviceName, PredictionAnswer, PredictionRequest, Unlabelled
from pouw.ml.sandbox import cause_of_death
from pouw.parallel import usable_cores
from pouw.roles.processes import MODEL_SECONDS, child_environment, end_child, log_tail, pump, tell
from pouw.types import SCORE_ONE_PPM

_FAULTS: dict[str, type[PouwError]] = {
    "model": ModelError,
    "data": DataError,
    "local": ProcessError,
}


def predict_cases(
    model: Path,
    spec: TaskSpec,
    cases: list[CaseFile],
    out: Path,
    device: DeviceName,
    say: Callable[[int, int], None],
) -> list[Path]:
    """Write the label map of each case to ``out``; their files, NAME.nii.gz.

    Each appears whole, by a copy from where the process may write. ``say``: how much is done, of
    how much. ModelError where the model is at fault, DataError where an image is, ProcessError
    where the process dies or this machine fails; what is done by then stays.
    """
    written: list[Path] = []
    with TemporaryDirectory(prefix="pouw-predict-") as name:
        scratch = Path(name)
        request = PredictionRequest(
            spec=spec,
            model=model.absolute(),
            cases=tuple(
                Unlabelled(name=case.name, images=tuple(path.absolute() for path in case.images))
                for case in cases
            ),
            out=scratch,
        )
        try:
            for answer in _answers(request, scratch / "prediction.log", device):
                if answer.fault is not None:
                    whose = "the model: " if answer.fault == "model" else ""
                    raise _FAULTS[answer.fault](whose + answer.detail, hint=answer.hint)
                if answer.part_ppm == SCORE_ONE_PPM:
                    path = out / f"{cases[answer.done].name}.nii.gz"
                    _bring(scratch / f"{answer.done}.nii.gz", path)
                    written.append(path)
                say(answer.done * SCORE_ONE_PPM + answer.part_ppm, len(cases) * SCORE_ONE_PPM)
        except PouwError as error:
            if written and error.hint is None:
                error.hint = f"{len(written)} of {len(cases)} label maps are in {out}"
            raise
    return written


def refuse_overwriting(cases: list[CaseFile], out: Path) -> None:
    """ConfigError where the label map of a case is in ``out`` already: it may be the truth."""
    endings = (".nii.gz", ".nii")
    paths = ([out / f"{case.name}{ending}" for ending in endings] for case in cases)
    there = [next(filter(os.path.lexists, twins), None) for twins in paths]
    if taken := [path for path in there if path]:
        raise ConfigError(
            f"{taken[0]} exists already ({len(taken)} of {len(cases)} label maps)",
            hint="name another folder with --out, or add --overwrite",
        )


def _bring(source: Path, path: Path) -> None:
    try:
        with source.open("rb") as made, atomic_file(path) as file:
            shutil.copyfileobj(made, file)
        source.unlink()
    except OSError as error:
        raise ProcessError(
            f"cannot write {path}: {error.strerror}",
            hint=advice(error) or "name a folder that can be written: --out FOLDER",
        ) from error


def _answers(
    request: PredictionRequest, log: Path, device: DeviceName
) -> Iterator[PredictionAnswer]:
    """What a process of its own says of the request; ProcessError where it ends too early."""
    try:
        line = request.line() + "\n"
    except ValueError as error:
        raise ConfigError("the name of a file is not UTF-8", hint="rename it") from error
    with log.open("ab") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "pouw.ml.prediction", "--device", device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=child_environment(usable_cores()),
        )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=pump, args=(child.stdout, lines), daemon=True).start()
    done = 0
    try:
        tell(child.stdin, line)
        while (text := lines.get(timeout=MODEL_SECONDS)) is not None:
            answer = PredictionAnswer.parse(text)
            done = answer.done + (answer.part_ppm == SCORE_ONE_PPM)
            yield answer
            if answer.fault is not None or done == len(request.cases):
                return
        name = request.cases[done].name
        child.wait()
        raise ProcessError(
            f"{name}: the model's process ended by {cause_of_death(child.returncode)}: "
            f"{log_tail(log)}"
        )
    except queue.Empty:
        raise ProcessError(f"no sign of life from the model in {MODEL_SECONDS:.0f} s") from None
    finally:
        end_child(child)
