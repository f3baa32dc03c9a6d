from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from tiny_task import tiny_request, tiny_spec, write_tiny_set

from pouw.documents import Caps, TaskSpec
from pouw.ml.bound import in_hash_order
from pouw.ml.checkpoint import save_model
from pouw.ml.dice import case_dice, score_ppm
from pouw.ml.host import fast_layout
from pouw.ml.networks import activation_bytes, build
from pouw.ml.requests import ScoringAnswer, ScoringRequest, Share
from pouw.ml.sandbox import _private_bytes
from pouw.ml.scoring import Scorer, serve
from pouw.ml.training import Training

SPEC = tiny_spec()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_set(tmp_path_factory.mktemp("boxes"))


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    Training(tiny_request(data, out, max_steps=60), lambda: False).run()
    return next(out.glob("model-*.safetensors"))


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer()


def request(data: Path, model: Path | None, **changes: object) -> ScoringRequest:
    base = ScoringRequest(id="m", spec=SPEC, data=data, model=model)
    return base.model_copy(update=changes)


def untrained(path: Path, scale: float = 1.0, spec: TaskSpec = SPEC) -> Path:
    torch.manual_seed(1)
    network = build(spec.network, 1, 3, parameters_cap=spec.caps.parameters)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    save_model(path, network)
    return path


def test_score__trained_model__counts_and_pictures_agree(
    data: Path, model: Path, scorer: Scorer, tmp_path: Path
) -> None:
    answer = scorer.answer(request(data, model, predictions=tmp_path))
    assert answer.reason == "score"
    assert answer.score_ppm is not None
    assert answer.score_ppm > 600_000
    assert [case.name for case in answer.cases] == in_hash_order(["test0", "test1"], SPEC.digest())
    for case in answer.cases:
        picture = np.load(tmp_path / f"{case.name}.npy")
        truth = np.asarray(nibabel.load(data / "labelsTs" / f"{case.name}.nii.gz").dataobj)
        assert picture.dtype == np.uint8
        for label, (hits, false_positives, false_negatives) in enumerate(case.counts, start=1):
            assert hits == np.sum((picture == label) & (truth == label))
            assert false_positives == np.sum((picture == label) & (truth != label))
            assert false_negatives == np.sum((picture != label) & (truth == label))


def test_answer__again_and_from_memory__the_same(data: Path, model: Path, scorer: Scorer) -> None:
    first, again = (scorer.answer(request(data, model)) for _ in range(2))
    assert first.score_ppm is not None
    assert first.model_copy(update={"milliseconds": again.milliseconds}) == again


def test_answer__another_data_folder__is_not_answered_from_memory(
    data: Path, model: Path, scorer: Scorer, tmp_path: Path
) -> None:
    one = scorer.answer(request(data, model))
    other = scorer.answer(request(write_tiny_set(tmp_path, test=3), model))
    assert (len(one.cases), len(other.cases)) == (2, 3)


def test_answer__output_not_finite__cases_fail_and_score_zero(
    data: Path, scorer: Scorer, tmp_path: Path
) -> None:
    answer = scorer.answer(request(data, untrained(tmp_path / "m.safetensors", 1e30)))
    assert (answer.reason, answer.score_ppm) == ("score", 0)
    assert all(case.failed and not case.counts for case in answer.cases)


def test_answer__afterwards__the_process_computes_with_denormals_as_before(
    data: Path, model: Path, scorer: Scorer
) -> None:
    scorer.answer(request(data, model))
    assert float(torch.tensor([1e-40]) * 1) > 0


def test_answer__true_claim__is_scored_as_without_one(
    data: Path, model: Path, scorer: Scorer
) -> None:
    plain = scorer.answer(request(data, model))
    claimed = scorer.answer(request(data, model, claim_ppm=plain.score_ppm))
    assert claimed == plain.model_copy(update={"milliseconds": claimed.milliseconds})


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_answer__false_claim__ends_early_and_proves_it(
    data: Path, scorer: Scorer, tmp_path: Path, spatial_dims: int
) -> None:
    spec = tiny_spec(spatial_dims)
    window = activation_bytes(spec.network, 1, 3, spec.inference.patch)
    spec = tiny_spec(
        spatial_dims, caps=spec.caps.model_copy(update={"activation_bytes": window})
    )  # one window at a time
    path = untrained(tmp_path / "m.safetensors", spec=spec)
    whole = scorer.answer(request(data, path, spec=spec))
    answer = scorer.answer(request(data, path, spec=spec, claim_ppm=990_000))
    assert (answer.reason, answer.score_ppm) == ("bound", None)
    assert answer.best_ppm is not None
    assert whole.score_ppm is not None
    assert whole.score_ppm <= answer.best_ppm < 990_000
    # The last case was seen in part: as if its rest were perfect, and so no worse than it is.
    assert len(answer.cases) == 1
    seen, true = answer.cases[0].counts, whole.cases[0].counts
    for (hits, false_positives, missed), (all_hits, all_false, all_missed) in zip(
        seen, true, strict=True
    ):
        assert hits + missed == all_hits + all_missed
        assert (hits >= all_hits, false_positives <= all_false, missed <= all_missed) == (True,) * 3
    assert seen != true
    assert score_ppm([seen, *[((1, 0, 0), (1, 0, 0))] * (len(whole.cases) - 1)]) == answer.best_ppm


def test_answer__claim_one_ppm_too_high__is_refused_only_by_the_last_case(
    data: Path, model: Path, scorer: Scorer
) -> None:
    plain = scorer.answer(request(data, model))
    assert plain.score_ppm is not None
    answer = scorer.answer(request(data, model, claim_ppm=plain.score_ppm + 1))
    assert (answer.reason, answer.best_ppm) == ("bound", plain.score_ppm)
    assert [case.name for case in answer.cases] == [case.name for case in plain.cases]


def test_answer__share__counts_its_cases_and_is_bound_by_what_others_counted(
    data: Path, model: Path, scorer: Scorer
) -> None:
    plain = scorer.answer(request(data, model))
    first, second = plain.cases
    share = Share(cases=(second.name,), of=2)
    part = scorer.answer(request(data, model, share=share))
    assert (part.reason, part.score_ppm, part.cases) == ("score", None, (second,))
    assert plain.score_ppm is not None
    lost_ppb = int((1 - case_dice(first.counts)) * 10**9)
    known = share.model_copy(update={"lost_ppb": lost_ppb})
    claimed = scorer.answer(request(data, model, share=known, claim_ppm=plain.score_ppm))
    assert claimed.reason == "score"
    claimed = scorer.answer(request(data, model, share=known, claim_ppm=plain.score_ppm + 1))
    assert (claimed.reason, claimed.best_ppm) == ("bound", plain.score_ppm)
    absent = scorer.answer(request(data, model, share=Share(cases=("no such",), of=2)))
    assert absent.reason == "data"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "model"), (b"\xff" * 64, "model"), (bytes(2 << 20), "caps")],
)
def test_answer__hostile_file__has_the_reason(
    data: Path, scorer: Scorer, tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    answer = scorer.answer(request(data, path))
    assert (answer.reason, answer.score_ppm, answer.cases) == (reason, None, ())
    assert answer.detail


def test_answer__model_is_not_there_or_cannot_be_opened__concludes_nothing(
    data: Path, model: Path, scorer: Scorer, tmp_path: Path
) -> None:
    absent = scorer.answer(request(data, tmp_path / "absent"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        too_many = scorer.answer(request(data, model))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for answer in (absent, too_many):
        assert (answer.reason, answer.score_ppm, answer.cases) == ("local", None, ())
    assert "Too many open files" in too_many.detail


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds private memory")
@pytest.mark.parametrize(
    ("channels", "patch", "doing"),
    [((8, 1024, 1024), (16, 16), "loading"), ((8, 16), (1024, 1024), "case test")],
    ids=["loading", "predicting"],
)
def test_answer__machine_short_of_memory_for_a_moment__concludes_nothing(
    data: Path,
    scorer: Scorer,
    tmp_path: Path,
    channels: tuple[int, ...],
    patch: tuple[int, ...],
    doing: str,
) -> None:
    strides = (2,) * (len(channels) - 1)
    arguments = {**SPEC.network.arguments, "channels": channels, "strides": strides}
    spec = tiny_spec(
        network=SPEC.network.model_copy(update={"arguments": arguments}),
        inference=SPEC.inference.model_copy(update={"patch": patch}),
        caps=Caps(model_bytes=1 << 28, parameters=1 << 26, activation_bytes=1 << 30),
    )
    asked = request(data, untrained(tmp_path / "m.safetensors", spec=spec), spec=spec)
    before = scorer.answer(asked)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    private = _private_bytes()
    assert private is not None
    resource.setrlimit(resource.RLIMIT_DATA, (private + (1 << 18), limits[1]))
    try:
        short = scorer.answer(asked)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    assert (short.reason, short.score_ppm, short.cases) == ("local", None, ())
    assert doing in short.detail
    after = scorer.answer(asked)
    assert (after.reason, after.cases) == ("score", before.cases)


ONE_LABEL_A_GROUP = {
    **SPEC.network.arguments,
    "channels": (6, 12),
    "strides": (1,),
    "num_res_units": 1,
    "groups": 3,
}


@pytest.mark.parametrize(
    "spec",
    [
        tiny_spec(caps=SPEC.caps.model_copy(update={"activation_bytes": 1})),
        tiny_spec(caps=SPEC.caps.model_copy(update={"parameters": 1})),
        # Nothing but running it shows that this one cannot be run.
        tiny_spec(
            network=SPEC.network.model_copy(update={"arguments": ONE_LABEL_A_GROUP}),
            inference=SPEC.inference.model_copy(update={"patch": (1, 1)}),
        ),
    ],
    ids=["activations", "parameters", "single site"],
)
def test_answer__network_that_nobody_can_run__is_no_fault_of_the_model(
    data: Path, model: Path, scorer: Scorer, spec: TaskSpec
) -> None:
    for path in (model, None):
        answer = scorer.answer(request(data, path, spec=spec))
        assert (answer.reason, answer.score_ppm) == ("data", None)
        assert "nobody can run the task's network" in answer.detail


def test_answer__no_model__says_whether_every_case_can_be_used(
    data: Path, scorer: Scorer, tmp_path: Path
) -> None:
    assert scorer.answer(request(data, None)).reason == "usable"
    root = write_tiny_set(tmp_path / "set")
    last = in_hash_order(["test0", "test1"], SPEC.digest())[1]
    (root / "imagesTs" / f"{last}_0000.nii.gz").write_bytes(b"no image")
    answer = scorer.answer(request(root, None))
    assert (answer.reason, answer.score_ppm) == ("data", None)
    assert last in answer.detail


def test_answer__memory_is_refused_while_predicting__concludes_nothing(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer()
    assert scorer.answer(request(data, model)).reason == "score"
    monkeypatch.setattr("pouw.ml.host._predicting_bytes", lambda *_: 0)
    caps = SPEC.caps.model_copy(update={"activation_bytes": 1 << 30})
    recipe = SPEC.inference.model_copy(update={"patch": (512, 512)})
    answer = scorer.answer(request(data, model, spec=tiny_spec(caps=caps, inference=recipe)))
    assert (answer.reason, answer.score_ppm) == ("local", None)


def test_answer__test_set_unusable__is_no_fault_of_the_model(
    data: Path, model: Path, scorer: Scorer, tmp_path: Path
) -> None:
    root = write_tiny_set(tmp_path / "set")
    (root / "imagesTs" / "test1_0000.nii.gz").write_bytes(b"no image")
    train_only = write_tiny_set(tmp_path / "train", test=0)
    for folder in (root, train_only, tmp_path / "absent"):
        answer = scorer.answer(request(folder, model))
        assert (answer.reason, answer.score_ppm) == ("data", None)
    assert scorer.answer(request(data, model)).reason == "score"


def test_answer__past_the_deadline__concludes_nothing(
    data: Path, model: Path, scorer: Scorer
) -> None:
    answer = scorer.answer(request(data, model, stop_at_ms=1))
    assert (answer.reason, answer.score_ppm) == ("time", None)


def test_serve__line_that_is_no_request__is_refused_and_the_next_answered(
    data: Path, model: Path, scorer: Scorer
) -> None:
    answers = io.StringIO()
    serve(io.StringIO("nonsense\n" + request(data, model).line() + "\n"), answers, scorer)
    refused, answer = (ScoringAnswer.parse(line) for line in answers.getvalue().splitlines())
    assert (refused.id, refused.reason) == ("unknown", "local")
    assert answer.reason == "score"


def test_main__resident_child__answers_line_by_line_until_the_end_of_input(
    data: Path, model: Path, tmp_path: Path
) -> None:
    hostile = tmp_path / "m.safetensors"
    hostile.write_bytes((100_000).to_bytes(8, "little") + b'{"a":' + b"[" * 200_000)
    with subprocess.Popen(
        [sys.executable, "-m", "pouw.ml.scoring"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        reasons = []
        for path in (model, hostile, model):
            child.stdin.write(request(data, path).line() + "\n")
            child.stdin.flush()
            reasons.append(json.loads(child.stdout.readline())["reason"])
        child.stdin.close()
        assert child.stdout.read() == ""
        assert child.wait(90) == 0
    assert reasons == ["score", "model", "score"]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_fast_layout__every_kernel__is_channels_last_and_predicts_the_same(
    spatial_dims: int,
) -> None:
    spec = tiny_spec(spatial_dims)
    torch.manual_seed(1)
    network = build(spec.network, 1, 3, parameters_cap=100_000).eval()
    window = torch.randn((1, 1, *spec.inference.patch))
    with torch.no_grad():
        before = network(window)
        fast_layout(network, spatial_dims)
        torch.testing.assert_close(network(window), before, rtol=1e-4, atol=1e-5)
    kernels = [one for one in network.parameters() if one.dim() == spatial_dims + 2]
    assert kernels
    assert all(one.stride(1) == 1 and one.stride(-1) == one.shape[1] for one in kernels)
