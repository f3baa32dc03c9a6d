"""The data of the demo: ``python -m pouw.cli.demo.tasks FOLDER`` writes two brain-tissue sets.

Real MRI: the MNI152 template that nilearn carries, in blocks that never share a slice between
training, validation and test. Beside each set: its recipe, and what two thresholds reach on it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from pouw.ml.brain import brain_proposal, threshold_baseline_ppm, write_brain_set

SEED: Final = 2019
LICENCE: Final = "ICBM 152 licence (use, copy and distribution permitted)"
CITATION: Final = "Fonov et al., NeuroImage 47 (2009) S102: ICBM 152 nonlinear atlases version 2009"
MODALITY: Final = "T1 MRI"


def recipe_file(folder: Path, name: str) -> Path:
    """Network, inference recipe and caps of a set."""
    return folder / f"{name}.recipe.json"


def baseline_file(folder: Path, name: str) -> Path:
    """The threshold baseline of a set, in ppm."""
    return folder / f"{name}.baseline.json"


def main(folder: Path) -> None:
    """Write both sets, then both baselines (nobody waits for these)."""
    sets = []
    for dims in (2, 3):
        name = f"brain{dims}d"
        proposal = brain_proposal(dims)
        parts = {
            "network": proposal.network,
            "inference": proposal.inference,
            "caps": proposal.caps,
        }
        sets.append((name, write_brain_set(folder / name, dims, SEED)))
        document = {key: part.model_dump(mode="json") for key, part in parts.items()}
        fresh = folder / f".{name}.part"
        fresh.write_text(json.dumps(document, indent=2) + "\n")
        fresh.replace(recipe_file(folder, name))
    for name, dataset in sets:
        fresh = folder / f".{name}.part"
        fresh.write_text(json.dumps(threshold_baseline_ppm(dataset)) + "\n")
        fresh.replace(baseline_file(folder, name))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
