"""Dice against compute: real trainings of several seeds at several numbers of steps.

``python benchmarks/learning_curves.py --out FILE`` trains the built-in 2D brain-tissue task with
the product's own training, each run with a schedule of its own length, and scores every final model
on the test set with the product's own scoring. The points are what ``pouw simulate`` fits its
curve to. It may be killed and started again: runs that are in the file are not repeated. The last
line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.progress import track

from pouw.documents import Archive, Licence, Metric, Provenance, TaskSpec
from pouw.hashing import keccak, raw_cid
from pouw.ml.brain import LABELS, brain_proposal, threshold_baseline_ppm, write_brain_set
from pouw.ml.requests import Engine, ScoringRequest, TrainingRequest
from pouw.ml.runfolder import RunFolder
from pouw.ml.scoring import Scorer
from pouw.ml.training import Training, now_ms

SET_SEED = 2019
ONE_DAY_MS = 86_400_000


def brain_spec() -> TaskSpec:
    """The demo's 2D task; its archives are folders on disk here, so their CIDs are placeholders."""
    proposal = brain_proposal(2)
    archive = Archive(cid=raw_cid(bytes(32)), bytes=1, cases=1)
    return TaskSpec(
        title="Brain tissue, axial slices",
        modality="T1 MRI",
        spatial_dims=2,
        channels=("T1",),
        labels=LABELS,
        network=proposal.network,
        inference=proposal.inference,
        metric=Metric(name="dice", empty_class="one"),
        training_seconds=60,
        provenance=Provenance(policy="none"),
        train=archive,
        test=archive,
        caps=proposal.caps,
        licence=Licence(name="ICBM 152", citation="Fonov et al. 2009"),
        data_becomes_public=True,
    )


def measure(spec: TaskSpec, data: Path, scorer: Scorer, steps: int, seed: int) -> dict[str, Any]:
    """One training of ``steps`` steps and its score on the test set."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        request = TrainingRequest(
            spec=spec,
            data=data,
            out=out,
            seed="0x" + keccak(b"learning curve %d %d" % (steps, seed)).hex(),
            stop_at_ms=int(now_ms()) + ONE_DAY_MS,
            max_steps=steps,
            engine=Engine(device="cpu"),
        )
        begun = time.perf_counter()
        Training(request, lambda: False).run()
        seconds = time.perf_counter() - begun
        model = out / RunFolder(out).snapshots()[-1].model
        answer = scorer.answer(ScoringRequest(id="one", spec=spec, data=data, model=model))
    assert answer.score_ppm is not None, answer.detail
    return {
        "steps": steps,
        "seed": seed,
        "score_ppm": answer.score_ppm,
        "milliseconds": round(seconds * 1000),
    }


def main() -> int:
    """Measure what is missing and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--steps", default="16,32,64,128,256,512,1024")
    arguments = parser.parse_args()
    spec = brain_spec()
    points: list[dict[str, Any]] = []
    if arguments.out.exists():
        points = json.loads(arguments.out.read_text())["points"]
    done = {(point["steps"], point["seed"]) for point in points}
    wanted = [
        (int(steps), seed)
        for seed in range(arguments.seeds)
        for steps in arguments.steps.split(",")
        if (int(steps), seed) not in done
    ]
    with tempfile.TemporaryDirectory() as scratch:
        dataset = write_brain_set(Path(scratch) / "brain2d", 2, SET_SEED)
        baseline = threshold_baseline_ppm(dataset)
        scorer = Scorer("cpu")
        for steps, seed in track(wanted, "train", disable=not sys.stderr.isatty()):
            points.append(measure(spec, dataset.root, scorer, steps, seed))
            document = {
                "task": spec.title,
                "network": spec.network.name,
                "threshold_baseline_ppm": baseline,
                "points": sorted(points, key=lambda one: (one["steps"], one["seed"])),
            }
            arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    means = {
        steps: round(sum(scores) / len(scores))
        for steps in sorted({point["steps"] for point in points})
        if (scores := [one["score_ppm"] for one in points if one["steps"] == steps])
    }
    print(json.dumps({"benchmark": "learning-curves", "mean_score_ppm": means, "n": len(points)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
