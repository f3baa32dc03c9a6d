"""How far a miner's training is, read from its private home by whoever may look there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pouw.ml.requests import PROGRESS_FILE, Progress
from pouw.roles.processes import read_finished, read_snapshots
from pouw.roles.rounds import folder_of, rounds_in
from pouw.types import RoundNumber

_TAIL_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The latest training of a home.

    ``dice_ppm`` is the last validation's, None before the first; ``fraction_ppm`` of the budget is
    over, ``ends_at_ms`` (Unix time) the projected finish. ``ended``: why it is over, if it is.
    """

    round: RoundNumber
    step: int
    fraction_ppm: int
    loss_ppm: int
    dice_ppm: int | None
    ends_at_ms: int
    ended: str | None


def read_training(home: Path) -> TrainingState | None:
    """The training of the latest round in ``home``; None where none has made a step."""
    for number in reversed(rounds_in(home)):
        out = folder_of(home, number)
        progress = _last_progress(out / PROGRESS_FILE)
        if progress is None:
            continue
        finished, snapshots = read_finished(out), read_snapshots(out)
        return TrainingState(
            round=number,
            step=finished.step if finished else progress.step,
            fraction_ppm=progress.fraction_ppm,
            loss_ppm=progress.train_loss_ppm,
            dice_ppm=snapshots[-1].validation_dice_ppm if snapshots else None,
            ends_at_ms=progress.ends_at_ms,
            ended=finished.reason if finished else None,
        )
    return None


def _last_progress(file: Path) -> Progress | None:
    """The last whole line; a line is far shorter than what is read."""
    if not file.exists():
        return None
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - _TAIL_BYTES))
        whole, _, _ = opened.read().rpartition(b"\n")
    return Progress.parse(whole.rpartition(b"\n")[2]) if whole else None
