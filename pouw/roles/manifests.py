"""The manifest of a snapshot: what a miner commits to."""

from __future__ import annotations

from pathlib import Path

from pouw.documents import Checkpoint, Manifest, ModelFile, Recipe, TaskSpec
from pouw.errors import ProcessError
from pouw.ml.requests import RUN_FILE, Run, Snapshot, TrainingRequest
from pouw.roles.processes import read_snapshots
from pouw.roles.rounds import kept
from pouw.storage.local import LocalStore
from pouw.types import Address, RoundNumber, Task


def build_manifest(
    private: LocalStore,
    out: Path,
    spec: TaskSpec,
    task: Task,
    number: RoundNumber,
    miner: Address,
    snapshot: Snapshot,
) -> Manifest:
    """The manifest of ``snapshot``, its files in the private store, where most are already.

    Checkpoints are listed up to the snapshot's own, each naming the one before; where the spec
    asks for no provenance, none is.
    """
    try:
        request = TrainingRequest.parse((out / "request.json").read_text())
        run = Run.parse((out / RUN_FILE).read_text())
    except FileNotFoundError as error:
        raise ProcessError(f"training left no record in {out}") from error
    model = kept(private, out / snapshot.model, snapshot)
    chain: list[Checkpoint] = []
    entries = read_snapshots(out)
    if snapshot not in entries:
        raise ProcessError(f"training took the snapshot of step {snapshot.step} back")
    if spec.provenance.policy != "none":
        for entry in entries:
            if entry.step > snapshot.step:
                break
            stored = kept(private, out / entry.checkpoint, entry)
            chain.append(
                Checkpoint(
                    step=entry.step,
                    milliseconds=entry.milliseconds,
                    cid=stored.cid,
                    bytes=stored.bytes,
                    previous=chain[-1].cid if chain else None,
                    train_loss_ppm=entry.train_loss_ppm,
                    validation_dice_ppm=entry.validation_dice_ppm,
                )
            )
    return Manifest(
        task=task.task_id,
        round=number,
        miner=miner,
        network=spec.network,
        model=ModelFile(cid=model.cid, bytes=model.bytes, dtype=snapshot.dtype),
        checkpoints=tuple(chain),
        seed=request.seed,
        recipe=Recipe(
            engine=run.engine.model_dump(mode="json"),
            settings=request.settings.model_dump(mode="json"),
        ),
        software=run.software,
        device=run.device,
    )
