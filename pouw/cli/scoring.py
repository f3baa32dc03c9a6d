"""``pouw score``: what anybody can do once a test set is open (paper, 4.3: the test API)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from pouw.cli.options import Call, example, settings_options
from pouw.cli.output import score as shown
from pouw.cli.output import waiting
from pouw.errors import ConfigError, MachineFailed, ModelError, ProcessError

if TYPE_CHECKING:
    from pouw.documents import TaskSpec
    from pouw.ml.requests import ScoringAnswer, ScoringRequest
    from pouw.roles.scorers import Scoring

_TICK_SECONDS = 0.5
_PATH = click.Path(path_type=Path, exists=True)


@click.command(
    epilog=example(
        "pouw score model.safetensors opened/test --spec spec.json",
        "pouw score demo/20251122-170000/rounds/1/models/miner-1.safetensors \\",
        "    demo/20251122-170000/rounds/1/test --predictions out",
    )
)
@settings_options()
@click.argument("model", type=_PATH)
@click.argument("data", type=_PATH)
@click.option(
    "--spec", type=_PATH, help="The TaskSpec (default: spec.json beside DATA or beside MODEL)."
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for one label map a case (NAME.npy).",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1, max=1024),
    default=1,
    help="Score the cases in so many processes.",
)
def score(
    call: Call,
    *,
    model: Path,
    data: Path,
    spec: Path | None,
    predictions: Path | None,
    processes: int,
) -> None:
    """Score MODEL (safetensors) on the labelled test cases of the folder DATA.

    The same code, recipe and arithmetic as the oracles': float32, integer Dice, floored to ppm. It
    runs in a process without sockets and with bounds on memory and CPU time, as theirs does.
    """
    from pouw.ml.requests import ScoringRequest

    task = read_spec(spec or _spec_beside(data, model))
    request = ScoringRequest(
        id="the model",
        spec=task,
        data=data.resolve(),
        model=model.absolute(),
        predictions=predictions and predictions.resolve(),
    )
    answer = _scored(request, processes)
    if answer.score_ppm is None:
        kind = ModelError if answer.reason in ("model", "caps") else ProcessError
        raise kind(f"{_shown(model)} was not scored ({answer.reason}): {answer.detail}")
    call.output.result(answer.model_dump(mode="json"), _lines(answer, task))


def _scored(request: ScoringRequest, processes: int) -> ScoringAnswer:
    """The answer of confined processes; ModelError where the model ends them, as for an oracle."""
    from pouw.roles.processes import ScoringProcess
    from pouw.roles.scorers import CRASHES, local_scoring

    with TemporaryDirectory(prefix="pouw-score-") as logs:
        scoring = local_scoring(processes, lambda log: ScoringProcess(log, 1, "cpu"), Path(logs))
        crashes = 0
        try:
            with waiting(f"scoring {_shown(request.model)}"):
                while True:
                    try:
                        return _answered(scoring, request)
                    except MachineFailed:
                        raise
                    except ProcessError as error:
                        crashes += 1 if processes == 1 else CRASHES  # a pool counts its own
                        if crashes >= CRASHES:
                            raise ModelError(
                                f"{_shown(request.model)} was not scored (model): {error}"
                            ) from error
        finally:
            scoring.end()


def _answered(scoring: Scoring, request: ScoringRequest) -> ScoringAnswer:
    scoring.ask(request)
    while (answer := scoring.answer(_TICK_SECONDS)) is None:
        pass
    return answer


def read_spec(path: Path) -> TaskSpec:
    """The TaskSpec in a file that a stranger may have made; ConfigError where it is no file."""
    from pouw.documents import TaskSpec
    from pouw.hashing import MAX_DOCUMENT_BYTES

    if not path.is_file():
        raise ConfigError(f"{_shown(path)} is no file", hint="name a TaskSpec: --spec spec.json")
    try:
        with path.open("rb") as file:
            return TaskSpec.parse(file.read(MAX_DOCUMENT_BYTES + 1))
    except OSError as error:
        raise ConfigError(f"cannot read {_shown(path)}: {error.strerror}") from error


def _shown(path: Path) -> str:
    """A file's name, which whoever made it chose, without what would move a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in path.name)


def _spec_beside(*paths: Path) -> Path:
    for path in paths:
        found = path.resolve().parent / "spec.json"
        if found.is_file():
            return found
    raise ConfigError(
        "which task is the model for?", hint="name its TaskSpec with --spec spec.json"
    )


def _lines(answer: ScoringAnswer, task: TaskSpec) -> str:
    from pouw.ml.dice import score_ppm

    lines = [f"Dice {shown(answer.score_ppm)} (mean of {len(answer.cases)} cases)"]
    for case in answer.cases:
        own = score_ppm([None if case.failed else case.counts])
        parts = " ".join(
            f"{label} TP {tp} FP {fp} FN {fn};"
            for label, (tp, fp, fn) in zip(task.labels[1:], case.counts, strict=False)
        )
        lines.append(f"  {case.name}: {shown(own)} {parts}")
    return "\n".join(lines)
