from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from tiny_task import SEED, tiny_spec
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch._inductor.utils import fresh_cache

from pouw.ml.autotune import synthetic_sampler, tune
from pouw.ml.checkpoint import CheckpointState
from pouw.ml.learner import Learner
from pouw.ml.networks import build
from pouw.ml.requests import Engine, Precision, TrainingSettings, TuningRequest
from pouw.ml.selftest import convolution_fault
from pouw.ml.training import now_ms

CPU = Engine(device="cpu")


def asked(tmp_path: Path, seconds: float = 300, spatial_dims: int = 2) -> TuningRequest:
    return TuningRequest(
        spec=tiny_spec(spatial_dims),
        settings=TrainingSettings(batch_size=2),
        engine=CPU,
        out=tmp_path / "engine.json",
        stop_at_ms=int((time.time() + seconds) * 1000),
    )


class WrongInBfloat16(nn.Conv2d):
    """A kernel as some builds had it: right in float32, off by a tenth in bfloat16."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        return outputs * 1.1 if outputs.dtype == torch.bfloat16 else outputs


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, inputs: Tensor) -> Tensor:
        return inputs.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0] * torch.nan


class WrongBackwardInBfloat16(nn.Conv2d):
    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        return WrongGradient.apply(outputs) if outputs.dtype == torch.bfloat16 else outputs


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_convolution_fault__this_machine__finds_none(spatial_dims: int) -> None:
    spec = tiny_spec(spatial_dims)
    network = build(spec.network, 1, 3, parameters_cap=10**6)
    assert convolution_fault(network, torch.zeros((2, 1, *spec.inference.patch))) is None


@pytest.mark.parametrize("broken", [WrongInBfloat16, WrongBackwardInBfloat16])
def test_convolution_fault__one_wrong_kernel__is_named(broken: type[nn.Conv2d]) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), broken(4, 3, 1))
    fault = convolution_fault(network, torch.zeros((2, 1, 16, 16)))
    assert fault is not None
    assert fault.startswith(f"{broken.__name__}(4, 3")


def test_tune__time_enough__chooses_what_was_fastest(tmp_path: Path) -> None:
    tuned = tune(asked(tmp_path), now_ms)
    assert [(trial.engine.precision, trial.engine.channels_last) for trial in tuned.trials] == [
        ("float32", False),
        ("float32", True),
        ("bfloat16", False),
        ("bfloat16", True),
    ]
    steps = {trial.engine: trial.step_microseconds for trial in tuned.trials if not trial.fault}
    plain = steps[tuned.trials[0].engine]
    chosen = steps[tuned.engine]
    assert plain is not None
    assert chosen is not None
    assert tuned.engine == CPU or chosen == min(filter(None, steps.values())) < plain


def test_tune__no_time__keeps_plain_float32(tmp_path: Path) -> None:
    tuned = tune(asked(tmp_path, seconds=-1), now_ms)
    assert tuned.engine == CPU
    assert len(tuned.trials) == 1


def _state(step: int) -> CheckpointState:
    return CheckpointState(
        step=step, loss_ppm=0, schedule_ppm=(300_000,) * step, previous="", previous_sha256=""
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_learner__any_engine__learns_and_goes_on_bit_by_bit(
    tmp_path: Path, precision: Precision, channels_last: bool
) -> None:
    request = asked(tmp_path)
    engine = Engine(device="cpu", precision=precision, channels_last=channels_last)
    sampler = synthetic_sampler(request)
    whole = Learner(request.spec, bytes.fromhex(SEED[2:]), request.settings, engine)
    losses = [whole.step([sampler.batch(0)], 300_000)]
    from_start = tmp_path / "checkpoint.safetensors"
    for step in range(1, 6):
        if step == 3:
            whole.save(tmp_path / "model.safetensors", from_start, _state(step))
        losses.append(whole.step([sampler.batch(0 if step < 5 else 5)], 300_000))
    assert losses[4] < losses[0]

    again = Learner(request.spec, bytes(32), request.settings, engine)
    assert again.load(from_start).step == 3
    for step in range(3, 6):
        again.step([sampler.batch(0 if step < 5 else 5)], 300_000)
    for one, other in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_tune__compiler_that_is_not_there__compiled_engines_are_faults_and_the_trial_goes_on(
    tmp_path: Path,
) -> None:
    request = asked(tmp_path, seconds=3600)
    request = request.model_copy(
        update={"engine": request.engine.model_copy(update={"compiled": True})}
    )
    with fresh_cache(dir=str(tmp_path)), inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):
        tuned = tune(request, now_ms)
    assert [trial.fault for trial in tuned.trials if not trial.engine.compiled] == [""] * 4
    faults = [trial.fault for trial in tuned.trials if trial.engine.compiled]
    assert len(faults) == 4
    assert all(fault.startswith("does not run: ") for fault in faults)
    assert not tuned.engine.compiled
