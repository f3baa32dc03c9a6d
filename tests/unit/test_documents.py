"""Documents: bytes and content determine each other, and nothing else is let in."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from pouw.documents import Document, Evidence, Manifest, TaskSpec
from pouw.errors import DocumentError
from pouw.hashing import canonical_json, raw_cid, sha256

CID = raw_cid(sha256(b"content"))
ADDRESS = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
WORD = "0x" + "ab" * 32

WINDOW = {
    "lower_milli": -100_000,
    "upper_milli": 300_000,
    "mean_milli": 40_000,
    "deviation_milli": 80_000,
}
SPEC: dict[str, Any] = {
    "schema": "pouw/task-spec/1",
    "title": "Brain tissue in T1 slices",
    "modality": "MRI-T1",
    "spatial_dims": 2,
    "channels": ["T1"],
    "labels": ["background", "grey", "white"],
    "network": {"name": "unet-2d", "arguments": {"channels": [8, 16], "residual": True, "n": 1}},
    "inference": {
        "spacing_um": [],
        "normalisation": "zscore",
        "windows": [],
        "patch": [192, 192],
        "overlap_ppm": 250_000,
        "blending": "gaussian",
        "dtype": "float32",
        "ties": "lowest-label",
    },
    "metric": {"name": "dice", "empty_class": "one"},
    "training_seconds": 45,
    "provenance": {"policy": "manifest", "segment_steps": 200, "segments": 3},
    "train": {"cid": CID, "bytes": 1000, "cases": 10},
    "test": {"cid": CID, "bytes": 500, "cases": 4},
    "caps": {"model_bytes": 1 << 24, "parameters": 10**7, "activation_bytes": 1 << 30},
    "licence": {"name": "MNI", "citation": "Fonov et al. 2009"},
    "retention_days": 30,
    "data_becomes_public": True,
}
NETWORK = SPEC["network"]
CHECKPOINT = {
    "step": 10,
    "milliseconds": 900,
    "cid": CID,
    "bytes": 100,
    "previous": None,
    "train_loss_ppm": 1_200_000,
    "validation_dice_ppm": 800_000,
}
MANIFEST: dict[str, Any] = {
    "schema": "pouw/manifest/1",
    "task": 1,
    "round": 1,
    "miner": ADDRESS,
    "network": NETWORK,
    "model": {"cid": CID, "bytes": 100, "dtype": "float32"},
    "checkpoints": [CHECKPOINT, CHECKPOINT | {"step": 20, "previous": CID}],
    "seed": WORD,
    "recipe": {
        "engine": {"device": "cpu", "threads": 1, "compiled": False},
        "settings": {"batch_size": None, "learning_rate_ppm": 10_000},
    },
    "software": "pouw 0.1.0",
    "device": "cpu",
}
EVIDENCE: dict[str, Any] = {
    "schema": "pouw/evidence/1",
    "task": 1,
    "round": 1,
    "oracle": ADDRESS,
    "verdict": "winner",
    "winner": ADDRESS,
    "invalid_reason": "",
    "judged": [
        {
            "miner": ADDRESS,
            "manifest": WORD,
            "claim_ppm": 850_000,
            "score_ppm": 850_200,
            "true_claim": True,
            "reason": "score",
            "detail": "",
            "cases": [{"name": "case_1", "failed": False, "counts": [[10, 2, 3], [0, 0, 0]]}],
        }
    ],
    "judged_more": 0,
    "skipped_more": 0,
    "skipped": [
        {
            "miner": ADDRESS,
            "manifest": WORD,
            "claim_ppm": 800_000,
            "reason": "ranks-below-a-true-claim",
        }
    ],
    "provenance": [
        {
            "miner": ADDRESS,
            "manifest": WORD,
            "same_profile": False,
            "checkpoints": 2,
            "segments": [
                {
                    "begin_step": 10,
                    "end_step": 20,
                    "outcome": "close",
                    "layer": "network/model.0.conv.weight",
                    "deviation_ppb": 812,
                    "detail": "",
                    "milliseconds": 900,
                }
            ],
            "detail": "",
            "software": "pouw 0.1.0",
            "device": "cpu",
        }
    ],
    "software": "pouw 0.1.0",
    "device": "cpu",
}
KINDS: list[tuple[type[Document], dict[str, Any]]] = [
    (TaskSpec, SPEC),
    (Manifest, MANIFEST),
    (Evidence, EVIDENCE),
]
every_kind = pytest.mark.parametrize(("kind", "value"), KINDS, ids=["spec", "manifest", "evidence"])


def changed(value: dict[str, Any], path: str, new: Any) -> dict[str, Any]:
    """``value`` with the entry at the dotted ``path`` replaced."""
    value = copy.deepcopy(value)
    *parents, last = path.split(".")
    part: Any = value
    for parent in parents:
        part = part[int(parent) if parent.isdigit() else parent]
    part[last] = new
    return value


@every_kind
def test_parse__canonical_bytes__come_back(kind: type[Document], value: dict[str, Any]) -> None:
    data = canonical_json(value)
    document = kind.parse(data)
    assert document.encode() == data
    assert document.digest() == sha256(data)
    assert kind.parse(document.encode()) == document


@every_kind
def test_parse__document_of_another_kind__is_refused(
    kind: type[Document], value: dict[str, Any]
) -> None:
    for other, _ in KINDS:
        if other is not kind:
            with pytest.raises(DocumentError):
                other.parse(canonical_json(value))


NUMBER = re.compile(rb'("round"|"spatial_dims"):(\d+)')
FORMS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "spaces": lambda value: json.dumps(value, sort_keys=True).encode(),
    "keys out of order": lambda value: json.dumps(
        dict(sorted(value.items(), reverse=True)), separators=(",", ":")
    ).encode(),
    "line end": lambda value: canonical_json(value) + b"\n",
    "byte order mark": lambda value: b"\xef\xbb\xbf" + canonical_json(value),
    "utf-16": lambda value: canonical_json(value).decode().encode("utf-16"),
    "escaped letter": lambda value: canonical_json(value).replace(b"pouw/", b"\\u0070ouw/", 1),
    "repeated key": lambda value: b'{"device":"x",' + canonical_json(value)[1:],
    "two documents": lambda value: canonical_json(value) * 2,
    "cut off": lambda value: canonical_json(value)[:-1],
    "number with exponent": lambda value: NUMBER.sub(rb"\1:\2e0", canonical_json(value)),
    "number with point": lambda value: NUMBER.sub(rb"\1:\2.0", canonical_json(value)),
    "number as text": lambda value: NUMBER.sub(rb'\1:"\2"', canonical_json(value)),
    "unknown key": lambda value: canonical_json(value | {"zzz": 1}),
    "missing schema": lambda value: canonical_json(
        {key: item for key, item in value.items() if key != "schema"}
    ),
    "later schema": lambda value: canonical_json(value | {"schema": value["schema"][:-1] + "2"}),
    "list": lambda value: canonical_json([value]),
    "nothing": lambda value: b"",
    "deep nesting": lambda value: b'{"schema":' + b"[" * 100_000,
    "not utf-8": lambda value: canonical_json(value).replace(b"pouw/", b"p\xffuw/", 1),
}


@every_kind
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_parse__other_form__is_refused(
    kind: type[Document], value: dict[str, Any], form: Callable[[dict[str, Any]], bytes]
) -> None:
    data = form(value)
    assert data != canonical_json(value)
    with pytest.raises(DocumentError):
        kind.parse(data)


@every_kind
def test_parse__any_key_missing__is_refused(kind: type[Document], value: dict[str, Any]) -> None:
    for key in value:
        with pytest.raises(DocumentError):
            kind.parse(canonical_json({name: item for name, item in value.items() if name != key}))


WRONG: list[tuple[int, str, Any]] = [
    (0, "data_becomes_public", False),
    (0, "data_becomes_public", 1),
    (0, "retention_days", -1),
    (0, "spatial_dims", 4),
    (0, "spatial_dims", 3),  # the patch has two axes
    (0, "inference.patch", [192]),
    (0, "inference.patch", [192, 0]),
    (0, "inference.spacing_um", [1000]),
    (0, "inference.normalisation", "window"),
    (0, "inference.windows", [WINDOW]),
    (0, "inference.overlap_ppm", 900_001),
    (0, "inference.dtype", "bfloat16"),
    (0, "labels", ["background"]),
    (0, "labels", ["background", "a/b"]),
    (0, "channels", []),
    (0, "network.name", "../evil"),
    (0, "network.arguments", {"code": "import os; os.system('x')"}),
    (0, "network.arguments", {"nested": {"a": 1}}),
    (0, "network.arguments", {"size": [2**31 + 1]}),
    (0, "train.bytes", 0),
    (0, "train.bytes", -1),
    (0, "train.bytes", True),
    (0, "train.bytes", "1000"),
    (0, "train.bytes", 2**53 + 1),
    (0, "train.cid", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"),
    (0, "train.cid", CID + "\n"),
    (0, "train.cid", "../../etc/passwd"),
    (0, "title", ""),
    (0, "title", "x" * 4097),
    (0, "title", None),
    (0, "caps.parameters", 0),
    (0, "caps.extra", 1),
    (1, "miner", ADDRESS[:-1]),
    (1, "seed", WORD.upper()),
    (1, "model.dtype", "float16"),
    (1, "checkpoints.0.validation_dice_ppm", 1_000_001),
    (1, "checkpoints.0.milliseconds", -1),
    (1, "checkpoints.0.previous", ""),
    (1, "checkpoints", [CHECKPOINT] * 2049),
    (2, "verdict", "none"),
    (2, "judged.0.reason", "dislike"),
    (2, "judged.0.score_ppm", -1),
    (2, "judged.0.true_claim", 1),
    (2, "judged.0.cases.0.counts", [[1, 2]]),
    (2, "judged.0.cases.0.counts", [[1, 2, -3]]),
    (2, "skipped.0.reason", "score"),
]


@pytest.mark.parametrize(("index", "path", "new"), WRONG)
def test_parse__value_out_of_bounds__is_refused_and_named(index: int, path: str, new: Any) -> None:
    kind, value = KINDS[index]
    with pytest.raises(DocumentError, match=kind.__name__):
        kind.parse(canonical_json(changed(value, path, new)))


def test_parse__wrong_part__is_named_in_the_message() -> None:
    with pytest.raises(DocumentError, match=r"caps\.parameters: .*greater than or equal to 1"):
        TaskSpec.parse(canonical_json(changed(SPEC, "caps.parameters", 0)))


def test_parse__spec_from_before_there_was_a_cap_on_checkpoints__keeps_its_digest() -> None:
    old = canonical_json(SPEC)
    assert b"checkpoints_bytes" not in old
    assert TaskSpec.parse(old).digest() == sha256(old)
    new = canonical_json(changed(SPEC, "caps.checkpoints_bytes", 1 << 34))
    assert TaskSpec.parse(new).caps.checkpoints_bytes == 1 << 34
    assert TaskSpec.parse(new).digest() == sha256(new)
    for wrong in (None, 0, -1, 1.5):
        with pytest.raises(DocumentError):
            TaskSpec.parse(canonical_json(changed(SPEC, "caps.checkpoints_bytes", wrong)))


def test_parse__windows__are_one_for_each_channel() -> None:
    channels = len(SPEC["channels"])
    value = changed(SPEC, "inference.normalisation", "window")
    fitting = changed(value, "inference.windows", [WINDOW] * channels)
    assert len(TaskSpec.parse(canonical_json(fitting)).inference.windows) == channels
    with pytest.raises(DocumentError, match="one for each"):
        TaskSpec.parse(canonical_json(changed(value, "inference.windows", [WINDOW] * 9)))


def test_parse__three_axes__take_a_patch_of_three() -> None:
    value = changed(SPEC, "spatial_dims", 3)
    value = changed(value, "inference.patch", [64, 64, 16])
    value = changed(value, "inference.spacing_um", [1000, 1000, 1000])
    assert TaskSpec.parse(canonical_json(value)).inference.patch == (64, 64, 16)


def test_parse__above_one_mebibyte__is_refused_before_it_is_read() -> None:
    with pytest.raises(DocumentError, match="1048577 bytes"):
        TaskSpec.parse(b"[" * ((1 << 20) + 1))


def test_encode__above_one_mebibyte__is_refused() -> None:
    judged = EVIDENCE["judged"][0] | {"detail": "x" * 4096}
    evidence = Evidence.model_validate_json(
        canonical_json(EVIDENCE | {"judged": [judged] * 300}), strict=True
    )
    with pytest.raises(DocumentError, match="at most 1048576"):
        evidence.encode()


def test_document__once_made__does_not_change() -> None:
    spec = TaskSpec.parse(canonical_json(SPEC))
    with pytest.raises(ValueError, match="frozen"):
        spec.title = "another"


def test_digest__one_word_changed__differs() -> None:
    other = changed(SPEC, "title", SPEC["title"] + ".")
    assert (
        TaskSpec.parse(canonical_json(SPEC)).digest()
        != TaskSpec.parse(canonical_json(other)).digest()
    )
