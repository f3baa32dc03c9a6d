"""Links and replays on real trainings: what is honest passes, what is forged does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chains import (
    EVERY,
    LINKS,
    SPEC,
    Chain,
    forge,
    interpolated,
    spliced,
    tensors_of,
    train,
    train_with_plain_kernels,
)
from safetensors.torch import save
from tiny_task import write_tiny_set

from pouw.documents import Network, Recipe
from pouw.ml.deviation import Deviation, deviation, deviation_bound_ppb
from pouw.ml.provenance import check_link, replay
from pouw.ml.replays import ReplayAnswer, max_checkpoint_bytes
from pouw.ml.requests import Engine

ELSEWHERE = "another processor"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_set(tmp_path_factory.mktemp("boxes"))


@pytest.fixture(scope="module")
def honest(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return train(data, tmp_path_factory.mktemp("runs") / "honest")


@pytest.fixture(scope="module")
def stranger(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A training on the same data by another miner."""
    return train(data, tmp_path_factory.mktemp("runs") / "stranger", "0x" + "77" * 32)


def faults(chain: Chain) -> list[str]:
    answers = [check_link(chain.link(index)) for index in range(LINKS)]
    return [answer.fault for answer in answers if answer.fault is not None]


def outcomes(chain: Chain, device: str | None = None) -> list[str]:
    changes = {} if device is None else {"device": device}
    return [replay(chain.segment(index, **changes)).segment.outcome for index in range(LINKS)]


def test_chain__honest_on_an_equal_machine__linked_and_exact(honest: Chain) -> None:
    assert faults(honest) == []
    answers = [replay(honest.segment(index)) for index in range(LINKS)]
    assert [answer.segment.outcome for answer in answers] == ["exact"] * LINKS
    assert [answer.segment.deviation_ppb for answer in answers] == [0] * LINKS
    assert all(answer.same_profile for answer in answers)


def test_chain__honest_with_other_arithmetic__close(
    data: Path, honest: Chain, tmp_path: Path
) -> None:
    """What another machine would round otherwise, made by another memory layout here."""
    layout = honest.engine.model_copy(update={"channels_last": True})
    other = train(data, tmp_path / "other", engine=layout)
    claimed = replace(other, engine=honest.engine)
    found = [replay(claimed.segment(index, device=ELSEWHERE)) for index in range(LINKS)]
    assert [answer.segment.outcome for answer in found] == ["close"] * LINKS
    assert not any(answer.same_profile for answer in found)
    worst = max(answer.segment.deviation_ppb or 0 for answer in found)
    assert 0 < worst < deviation_bound_ppb(EVERY)


def test_chain__honest_but_too_sensitive_for_another_machine__undecided_and_never_unlike(
    data: Path, tmp_path: Path
) -> None:
    arguments = {
        "spatial_dims": 2,
        "filters": (8, 16, 32),
        "kernels": (3,) * 6,
        "strides": (1, 1, 2, 2, 2, 2),
        "residual": False,
        "norm": "instance",
    }
    spec = SPEC.model_copy(update={"network": Network(name="dynunet", arguments=arguments)})
    engine = Engine(device="cpu", precision="bfloat16")
    chain = train_with_plain_kernels(data, tmp_path / "there", engine, spec)
    found = [replay(chain.segment(index, device=ELSEWHERE)).segment for index in range(LINKS)]
    bound = deviation_bound_ppb(EVERY)
    assert max(one.deviation_ppb or 0 for one in found) > bound
    for one in found:
        assert one.deviation_ppb is not None
        far = one.deviation_ppb > bound
        assert one.outcome == ("undecided" if far else "close"), one
        assert ("this machine itself ends" in one.detail) == far


def test_chain__same_profile_and_one_bit_off__unlike(honest: Chain, tmp_path: Path) -> None:
    tensors, _ = tensors_of(honest.checkpoints[1])
    name = next(name for name in tensors if name.startswith("network/"))
    tensors[name].view(torch.int32).view(-1)[0] ^= 1
    states = [tensors_of(path)[0] for path in honest.checkpoints]
    touched = forge(honest, tmp_path / "touched", [states[0], tensors, *states[2:]])
    assert replay(touched.segment(1)).segment.outcome == "unlike"
    assert replay(touched.segment(1, device=ELSEWHERE)).segment.outcome == "close"


def test_chain__two_processes__repeated_by_one(data: Path, tmp_path: Path) -> None:
    pair = train(data, tmp_path / "pair", engine=Engine(device="cpu", processes=2))
    assert outcomes(pair) == ["exact"] * LINKS
    alone = replace(pair, engine=pair.engine.model_copy(update={"processes": 1}))
    assert "unlike" in outcomes(alone, ELSEWHERE)


def test_chain__spliced_without_relinking__not_linked(honest: Chain, stranger: Chain) -> None:
    checkpoints = (*honest.checkpoints[:2], *stranger.checkpoints[2:])
    chain = replace(honest, checkpoints=checkpoints, model=stranger.model)
    (fault,) = faults(chain)
    assert "does not name the checkpoint before" in fault


@pytest.mark.parametrize("device", [None, ELSEWHERE])
def test_chain__spliced_and_relinked__the_splice_is_unlike(
    honest: Chain, stranger: Chain, tmp_path: Path, device: str | None
) -> None:
    chain = spliced(honest, stranger, tmp_path / "spliced", 2)
    assert faults(chain) == []
    found = outcomes(chain, device)
    assert found == ["exact"] * 2 + ["unlike"] * 2


def test_chain__final_model_from_elsewhere__is_not_the_average(
    honest: Chain, stranger: Chain
) -> None:
    (fault,) = faults(replace(honest, model=stranger.model))
    assert "not the average" in fault


def test_chain__final_model_in_bfloat16__is_the_average_rounded(
    honest: Chain, tmp_path: Path
) -> None:
    tensors, _ = tensors_of(honest.model)
    model = tmp_path / "model"
    model.write_bytes(save({name: one.to(torch.bfloat16) for name, one in tensors.items()}))
    assert faults(replace(honest, model=model)) == []


@pytest.mark.parametrize("device", [None, ELSEWHERE])
def test_chain__final_model_from_elsewhere_put_into_the_last_checkpoint__unlike(
    honest: Chain, stranger: Chain, tmp_path: Path, device: str | None
) -> None:
    states = [tensors_of(path)[0] for path in honest.checkpoints]
    foreign, _ = tensors_of(stranger.checkpoints[-1])
    states[-1] |= {name: one for name, one in foreign.items() if name.startswith("average/")}
    chain = forge(honest, tmp_path / "planted", states)
    assert faults(chain) == []
    found = replay(chain.segment(LINKS - 1, **({"device": device} if device else {}))).segment
    assert found.outcome == "unlike"
    assert found.layer.startswith("average/")


@pytest.mark.parametrize("device", [None, ELSEWHERE])
def test_chain__trained_on_other_data__unlike_everywhere(
    honest: Chain, tmp_path: Path, device: str | None
) -> None:
    other = write_tiny_set(tmp_path / "other", train=5)
    chain = replace(train(other, tmp_path / "run"), data=honest.data)
    assert faults(chain) == []
    assert outcomes(chain, device) == ["unlike"] * LINKS


@pytest.mark.parametrize("device", [None, ELSEWHERE])
def test_chain__trained_in_another_order__unlike_everywhere(
    honest: Chain, stranger: Chain, device: str | None
) -> None:
    chain = replace(stranger, seed=honest.seed)
    assert outcomes(chain, device) == ["unlike"] * LINKS


@pytest.mark.parametrize("device", [None, ELSEWHERE])
def test_chain__interpolated_checkpoints__unlike(
    honest: Chain, tmp_path: Path, device: str | None
) -> None:
    chain = interpolated(honest, tmp_path / "line")
    assert faults(chain) == []
    assert outcomes(chain, device)[1:] == ["unlike"] * (LINKS - 1)


def unusable(answer: ReplayAnswer) -> str:
    assert answer.segment.outcome == "unusable"
    assert answer.segment.deviation_ppb is None
    return answer.segment.detail


@pytest.mark.parametrize(
    ("part", "entry", "expected"),
    [
        ("settings", {"learning_rate_ppm": -1}, "recipe"),
        ("settings", {"momentum_ppm": 1}, "recipe"),
        ("engine", {"device": "abacus"}, "recipe"),
        ("engine", {"device": "auto"}, "device"),
        ("engine", {"processes": 65}, "recipe"),
    ],
)
def test_replay__recipe_that_cannot_be_followed__unusable(
    honest: Chain, part: str, entry: dict[str, int | str], expected: str
) -> None:
    recipe = honest.recipe()
    changed: Recipe = recipe.model_copy(update={part: getattr(recipe, part) | entry})
    assert expected in unusable(replay(honest.segment(0, recipe=changed)))


def test_replay__more_steps_than_the_task_asks_for__only_on_an_equal_machine(
    honest: Chain,
) -> None:
    provenance = SPEC.provenance.model_copy(update={"segment_steps": EVERY - 1})
    spec = SPEC.model_copy(update={"provenance": provenance})
    assert replay(honest.segment(1, spec=spec)).segment.outcome == "exact"
    elsewhere = replay(honest.segment(1, spec=spec, device=ELSEWHERE)).segment
    assert elsewhere.outcome == "undecided"
    assert f"the task asks for {EVERY - 1}" in elsewhere.detail


def test_replay__more_memory_than_the_caps_allow__unusable(honest: Chain) -> None:
    recipe = honest.recipe()
    huge = recipe.model_copy(update={"settings": recipe.settings | {"batch_size": 1024}})
    spec = SPEC.model_copy(
        update={"inference": SPEC.inference.model_copy(update={"patch": (1024, 1024)})}
    )
    assert "bytes of memory" in unusable(replay(honest.segment(0, recipe=huge, spec=spec)))


def test_replay__weights_that_diverge__unusable(honest: Chain, tmp_path: Path) -> None:
    states = [tensors_of(path)[0] for path in honest.checkpoints]
    states[0] = {
        name: one * 1e30 if name.startswith("network/") else one for name, one in states[0].items()
    }
    chain = forge(honest, tmp_path / "wild", states)
    assert "diverged" in unusable(replay(chain.segment(1)))


def test_replay__out_of_time__undecided(honest: Chain) -> None:
    found = replay(honest.segment(0, stop_at_ms=1)).segment
    assert (found.outcome, found.deviation_ppb) == ("undecided", None)
    assert f"0 of {EVERY} steps" in found.detail


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can repeat it")
def test_replay__trained_on_a_gpu_and_none_here__undecided(honest: Chain) -> None:
    recipe = honest.recipe()
    cuda = recipe.model_copy(update={"engine": recipe.engine | {"device": "cuda"}})
    assert replay(honest.segment(0, recipe=cuda)).segment.outcome == "undecided"


def test_replay__training_data_unreadable__not_the_miners_fault(
    honest: Chain, tmp_path: Path
) -> None:
    found = replay(honest.segment(0, data=tmp_path)).segment
    assert found.outcome == "undecided"


def test_link__values_that_are_not_finite__fault(honest: Chain, tmp_path: Path) -> None:
    states = [tensors_of(path)[0] for path in honest.checkpoints]
    name = next(name for name in states[0] if name.startswith("exp_avg_sq/"))
    states[0][name] = torch.full_like(states[0][name], torch.inf)
    (fault,) = faults(forge(honest, tmp_path / "inf", states))
    assert "not finite" in fault


def test_link__this_machine_cannot_read_it__is_its_own_fault(honest: Chain, tmp_path: Path) -> None:
    request = honest.link(1)
    link = request.link.model_copy(update={"path": tmp_path / "absent"})
    with pytest.raises(FileNotFoundError):
        check_link(request.model_copy(update={"link": link}))


def test_link__not_the_steps_of_the_manifest__fault(honest: Chain) -> None:
    request = honest.link(1)
    for change in ({"begin_step": 0}, {"step": 2 * EVERY + 1}, {"begin_step": 2 * EVERY}):
        link = request.link.model_copy(update=change)
        assert check_link(request.model_copy(update={"link": link})).fault is not None


def test_link__schedule_outside_the_budget__fault(honest: Chain, tmp_path: Path) -> None:
    tensors, metadata = tensors_of(honest.checkpoints[0])
    tensors["schedule_ppm"][3] = -1
    path = tmp_path / "checkpoint"
    path.write_bytes(save(tensors, metadata))
    request = honest.link(0)
    link = request.link.model_copy(update={"path": path})
    assert "budget" in str(check_link(request.model_copy(update={"link": link})).fault)


@pytest.mark.parametrize("shape", [(), (1, EVERY), (EVERY, 1)])
def test_link__schedule_of_other_than_one_axis__fault(
    honest: Chain, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    tensors, metadata = tensors_of(honest.checkpoints[0])
    tensors["schedule_ppm"] = torch.zeros(shape)
    path = tmp_path / "checkpoint"
    path.write_bytes(save(tensors, metadata))
    request = honest.link(0)
    link = request.link.model_copy(update={"path": path})
    assert "has shape" in str(check_link(request.model_copy(update={"link": link})).fault)


def test_link__larger_than_the_caps_allow__fault_before_it_is_read(
    honest: Chain, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    with path.open("wb") as file:
        file.truncate(max_checkpoint_bytes(SPEC.caps, EVERY) + 1)
    request = honest.link(0)
    link = request.link.model_copy(update={"path": path})
    assert "at most" in str(check_link(request.model_copy(update={"link": link})).fault)


def test_link__moments_that_no_gradients_leave__fault(honest: Chain, tmp_path: Path) -> None:
    """A forger's way to anywhere: a large mean over a small square is one giant step."""
    for count, (kind, factor) in enumerate((("exp_avg", 100.0), ("exp_avg_sq", -1.0))):
        states = [tensors_of(path)[0] for path in honest.checkpoints]
        name = next(name for name in states[1] if name.startswith(f"{kind}/"))
        states[1][name] = states[1][name] * factor
        (fault,) = faults(forge(honest, tmp_path / f"thrown{count}", states))
        assert "moments" in fault


def test_deviation__weights__relative_to_the_movement_of_the_worst_layer() -> None:
    begin = {
        f"{kind}/{name}": torch.zeros(2, 2) for kind in ("network", "average") for name in "ab"
    }
    end = {name: torch.ones(2, 2) for name in begin}
    claimed = dict(end, **{"average/b": torch.ones(2, 2) * 1.5})
    found = deviation(begin, end, claimed)
    assert (found.layer, found.ppb, found.exact) == ("average/b", 500_000_000, False)
    assert deviation(begin, end, dict(end)) == Deviation("network/a", 0, exact=True)


def test_deviation__a_bias_alone__counts_within_the_whole() -> None:
    begin = {f"{kind}/{name}": torch.zeros(2) for kind in ("network", "average") for name in "ab"}
    begin |= {f"{kind}/kernel": torch.zeros(3, 2) for kind in ("network", "average")}
    end = {name: torch.ones_like(tensor) for name, tensor in begin.items()}
    found = deviation(begin, end, dict(end, **{"network/a": torch.zeros(2)}))
    assert found.layer == "network"
    assert found.ppb == round((2 / 10) ** 0.5 * 1e9)


def test_deviation_bound__more_steps__wider() -> None:
    assert deviation_bound_ppb(1) == 100_000_000
    assert deviation_bound_ppb(50) == 300_000_000


def test_requests__written_and_read__the_same(honest: Chain) -> None:
    request = honest.segment(1)
    assert json.loads(request.line())["kind"] == "replay"
    assert type(request).parse(request.line()) == request
