"""What the demo leaves to look at: ``python -m pouw.cli.demo.pictures`` in its folder.

For every closed round, below ``rounds/N``: the spec, the manifests, the evidence, the opened test
set, the revealed models, their scores, overlays of image, truth and the winner's prediction, and
training curves. All but the loss curves comes from the chain and the store.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pouw.cli.adapters import observer_for
from pouw.cli.demo.cast import PEOPLE_FILE
from pouw.cli.demo.summary import SCORES_FILE
from pouw.config import read_settings
from pouw.documents import Evidence, Manifest
from pouw.errors import PouwError
from pouw.hashing import raw_cid
from pouw.ledger.history import RoundRecord
from pouw.ml.data import load_case, read_dataset
from pouw.ml.requests import PROGRESS_FILE, Progress, ScoringRequest
from pouw.ml.scoring import Scorer
from pouw.roles.base import Observer
from pouw.roles.content import fetch_manifest, fetch_spec, open_archive
from pouw.roles.follow import read_history
from pouw.types import SCORE_ONE_PPM, Address, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = ((0.0, 0.0, 0.0, 0.0), (0.90, 0.62, 0.0, 0.55), (0.34, 0.71, 0.91, 0.55))


def main() -> None:
    """Write everything about all closed rounds below ``rounds``."""
    settings = read_settings({}, os.environ, Path.cwd())
    people = json.loads((Path("roles") / PEOPLE_FILE).read_text())
    names = {address: name for name, address in people.items()}
    scorer = Scorer()
    node = observer_for(settings)
    for record in read_history(node).rounds.values():
        if record.closed:
            _RoundFolder(node, record, names, scorer).write()


class _RoundFolder:
    def __init__(
        self, node: Observer, record: RoundRecord, names: dict[str, str], scorer: Scorer
    ) -> None:
        self._store = node.store
        self._record = record
        self._names = names
        self._scorer = scorer
        self._folder = Path("rounds") / str(record.number)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._spec = fetch_spec(node.store, record.task.spec_digest)
        self._manifests = {
            reveal.miner: fetch_manifest(node.store, reveal.manifest_digest)
            for reveal in record.reveals
        }

    def write(self) -> None:
        """Documents, models, scores and pictures of the round."""
        self._documents()
        data = self._test_set()
        scores = {miner: self._score(miner, data) for miner in self._manifests}
        text = json.dumps(scores, indent=2, sort_keys=True) + "\n"
        (self._folder / SCORES_FILE).write_text(text)
        if self._record.verdict is Verdict.WINNER:
            self._overlays(data, scores[self._record.winner])
        self._curves()

    def _documents(self) -> None:
        folder = self._folder
        (folder / "spec.json").write_bytes(self._spec.encode())
        for miner, manifest in self._manifests.items():
            (folder / f"manifest-{self._name(miner)}.json").write_bytes(manifest.encode())
        for vote in self._record.votes:
            evidence = Evidence.parse(self._store.get_bytes(raw_cid(vote.evidence_digest)))
            name = self._name(vote.oracle)
            (folder / f"evidence-{name}.json").write_bytes(evidence.encode())

    def _test_set(self) -> Path:
        key, spec = self._record.test_key, self._spec
        if key is None:
            raise PouwError(f"the test set of round {self._record.number} was never opened")
        key_hash = self._record.task.key_hash
        return open_archive(self._store, spec, "test", key, key_hash, self._folder)

    def _score(self, miner: Address, data: Path) -> int | None:
        manifest = self._manifests[miner]
        model = self._folder / "models" / f"{self._name(miner)}.safetensors"
        model.parent.mkdir(exist_ok=True)
        if not model.exists():
            self._store.get_file(manifest.model.cid, model, manifest.model.bytes)
        won = self._record.verdict is Verdict.WINNER and miner == self._record.winner
        answer = self._scorer.answer(
            ScoringRequest(
                id=self._name(miner),
                spec=self._spec,
                data=data,
                model=model,
                predictions=self._folder / "predictions" if won else None,
            )
        )
        return answer.score_ppm

    def _name(self, address: str) -> str:
        return self._names.get(address, address)

    def _overlays(self, data: Path, score_ppm: int | None) -> None:
        from matplotlib.colors import ListedColormap
        from matplotlib.figure import Figure

        files = read_dataset(data).test
        figure = Figure(figsize=(9, 3.6 * len(files)), layout="constrained")
        axes = np.atleast_2d(figure.subplots(len(files), 3, squeeze=False))
        colours = ListedColormap(_COLOURS[: len(self._spec.labels)])
        for row, file in zip(axes, files, strict=True):
            case = load_case(file, len(self._spec.labels))
            predicted = np.load(
                self._folder / "predictions" / f"{file.name}.npy", allow_pickle=False
            )
            assert case.label is not None
            middle = case.image.shape[-1] // 2
            layers = (None, case.label[..., middle], predicted[..., middle])
            for axis, layer in zip(row, layers, strict=True):
                axis.imshow(case.image[0, ..., middle].T, cmap="gray", origin="lower")
                if layer is not None:
                    top = len(self._spec.labels) - 1
                    axis.imshow(
                        layer.T,
                        cmap=colours,
                        origin="lower",
                        vmin=0,
                        vmax=top,
                        interpolation="none",
                    )
                axis.set_axis_off()
            row[0].set_title(f"{file.name}, slice {middle}", fontsize=9)
        for axis, title in zip(axes[0][1:], ("truth", "prediction"), strict=True):
            axis.set_title(title, fontsize=9)
        dice = (score_ppm or 0) / SCORE_ONE_PPM
        winner = self._name(self._record.winner)
        figure.suptitle(f"{self._spec.title}: {winner}, mean Dice {dice:.4f}", fontsize=11)
        figure.savefig(self._folder / "overlay.png", dpi=110)

    def _curves(self) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        loss, dice = figure.subplots(1, 2)
        for miner, manifest in self._manifests.items():
            name = self._name(miner)
            self._loss(loss, name, manifest)
            points = [
                (one.milliseconds / 1000, one.validation_dice_ppm / SCORE_ONE_PPM)
                for one in manifest.checkpoints
            ]
            _plot(dice, points, name, marker="o")
        loss.set(xlabel="seconds of training", ylabel="training loss")
        dice.set(xlabel="seconds of training", ylabel="validation Dice")
        for axis in (loss, dice):
            axis.grid(visible=True, alpha=0.3)
        dice.legend(fontsize=8)
        figure.suptitle(f"round {self._record.number}: {self._spec.title}", fontsize=11)
        figure.savefig(self._folder / "curves.png", dpi=110)

    def _loss(self, axis: Axes, name: str, manifest: Manifest) -> None:
        """The miner's own log where it is on this machine, else the checkpoints' losses."""
        log = Path("roles") / name / "rounds" / str(self._record.number) / PROGRESS_FILE
        if log.exists():
            lines = log.read_text().splitlines(keepends=True)
            noted = [Progress.parse(line) for line in lines if line.endswith("\n")]
            points = [
                (one.milliseconds / 1000, one.train_loss_ppm / SCORE_ONE_PPM) for one in noted
            ]
        else:
            points = [
                (one.milliseconds / 1000, one.train_loss_ppm / SCORE_ONE_PPM)
                for one in manifest.checkpoints
            ]
        _plot(axis, points, name)


def _plot(axis: Any, points: Sequence[tuple[float, float]], name: str, **style: Any) -> None:
    axis.plot([x for x, _ in points], [y for _, y in points], label=name, **style)


if __name__ == "__main__":
    try:
        main()
    except PouwError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
