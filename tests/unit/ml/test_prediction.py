"""Predicting within bounds, told step by step."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
import torch
from tiny_task import tiny_spec, write_tiny_set

from pouw.documents import TaskSpec
from pouw.errors import ModelError
from pouw.ml.checkpoint import save_model
from pouw.ml.host import Host
from pouw.ml.images import images_in
from pouw.ml.networks import build
from pouw.ml.prediction import predict_images
from pouw.ml.requests import PredictionRequest, Unlabelled

LIMITS = (resource.RLIMIT_CPU, resource.RLIMIT_DATA)


def request(folder: Path, spec: TaskSpec, scale: float = 1.0) -> PredictionRequest:
    """For two images, by a model with weights ``scale`` times as large as fresh ones."""
    data = write_tiny_set(folder / "data", train=1, test=2)
    torch.manual_seed(1)
    network = build(spec.network, 1, 3, parameters_cap=spec.caps.parameters)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    save_model(folder / "m.safetensors", network)
    cases = images_in(data / "imagesTs", 1)
    return PredictionRequest(
        spec=spec,
        model=folder / "m.safetensors",
        cases=tuple(Unlabelled(name=case.name, images=case.images) for case in cases),
        out=folder / "out",
    )


def limits() -> list[int]:
    return [resource.getrlimit(limit)[0] for limit in LIMITS]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts private memory")
def test_predict_images__while_the_model_runs__memory_and_cpu_time_are_bounded(
    tmp_path: Path,
) -> None:
    before, told = limits(), []
    for answer in predict_images(Host("cpu", 1), request(tmp_path, tiny_spec())):
        told.append((answer.done, answer.part_ppm))
        if answer.part_ppm < 1_000_000:
            assert resource.RLIM_INFINITY not in limits()
        else:
            assert limits() == before
    assert told == sorted(told)
    assert [step for step in told if step[1] == 1_000_000] == [(0, 1_000_000), (1, 1_000_000)]
    assert len(told) > 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.nii.gz", "1.nii.gz"]


def test_predict_images__output_not_finite__names_the_case_and_writes_nothing(
    tmp_path: Path,
) -> None:
    with pytest.raises(ModelError, match="case test0: "):
        list(predict_images(Host("cpu", 1), request(tmp_path, tiny_spec(), 1e30)))
    assert not (tmp_path / "out").exists()
