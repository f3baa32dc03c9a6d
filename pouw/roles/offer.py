"""From a folder of images to a sealed task: examined, planned, split, archived, sealed, stored."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pouw.archive import pack
from pouw.documents import Archive, Caps, InferenceRecipe, Licence, Metric, Provenance, TaskSpec
from pouw.hashing import data_key_of, sha256
from pouw.ml.arguments import check_caps
from pouw.ml.data import resampled_shape
from pouw.ml.examine import examine
from pouw.ml.fingerprint import Fingerprint
from pouw.ml.names import without_names
from pouw.ml.readers import Source, read_folder
from pouw.ml.recipe import Proposal, Wishes, propose
from pouw.ml.replays import max_checkpoints_bytes
from pouw.ml.split import Split, divide, write_split
from pouw.sealing import Sealing
from pouw.storage.store import Store

TEST_FRACTION_PPM = 250_000
_SHOWN_REMARKS = 20

Progress = Callable[[str, int, int], None]
"""Called with a stage, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """A task to publish from ``folder``, a data set of any kind that ``pouw data check`` knows.

    What is None is planned from the data; a ``proposal`` replaces all planning. ``modality`` None:
    what the folder's kind tells. ``again``: even where the same is in the pool already.
    ``test_set_may_be_known``: even where an earlier task shows miners the hidden images.
    """

    folder: Path
    title: str
    spatial_dims: Literal[2, 3] | None
    reward_wei: int
    min_score_ppm: int
    training_seconds: int
    modality: str | None
    licence: str
    citation: str
    first: bool = False
    provenance: Literal["none", "manifest", "replay"] = "manifest"
    proposal: Proposal | None = None
    network: str | None = None
    data_will_be_public: bool = False
    retention_days: int = 30
    again: bool = False
    test_set_may_be_known: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """A sealed task, and what each of its cases was called, by its name in the archives."""

    spec: TaskSpec
    names: Mapping[str, str]


def split_seed(test_key: bytes) -> str:
    """What decides, by the cases' names in the archives, who is in the test set."""
    return sha256(b"test split" + test_key).hex()


def seal_offer(
    request: PublishRequest,
    test_key: bytes,
    store: Store,
    scratch: Path,
    say: Progress,
    tell: Callable[[str], object] = lambda _line: None,
) -> Offer:
    """Everything but the transaction: the spec, whose archives are in ``store``, and the names.

    ``tell`` is told in words what was found in the folder, before anything is written.
    DataError where the folder cannot be used or an image would be too large at the recipe's
    spacing, ModelError where the network does not keep to the task's own caps: nobody could win
    such a task.
    """
    source = read_folder(request.folder)
    found = examine(source, lambda done, total: say("read", done, total))
    everything = found.usable()
    tell(f"labels: {found.shares}")
    for remark in found.remarks[:_SHOWN_REMARKS]:
        tell(f"note: {remark}")
    dataset, modality = source.dataset, request.modality or source.modality
    unnamed = without_names(dataset)
    # Who is in the test set follows from the test key, so none can tell.
    split = divide(unnamed.dataset, TEST_FRACTION_PPM, split_seed(test_key))
    wishes = Wishes(request.spatial_dims, request.network, modality)
    # The spec is public before the test set is: it must not tell what the hidden cases are like.
    proposal = request.proposal or propose(dataset, found.fingerprint_of(split.train), wishes)
    patch = proposal.inference.patch
    check_caps(proposal.network, len(dataset.channels), len(dataset.labels), patch, proposal.caps)
    _check_sizes(everything, proposal.inference, len(dataset.channels))
    published = replace(source, dataset=unnamed.dataset)
    train, test = _archives(published, split, test_key, store, scratch, say)
    spec = TaskSpec(
        title=request.title,
        modality=modality or "unknown",
        spatial_dims=2 if len(patch) == 2 else 3,
        channels=dataset.channels,
        labels=dataset.labels,
        network=proposal.network,
        inference=proposal.inference,
        metric=Metric(name="dice", empty_class="one"),
        training_seconds=request.training_seconds,
        provenance=Provenance(policy=request.provenance),
        train=train,
        test=test,
        caps=_whole(proposal.caps),
        licence=Licence(name=request.licence, citation=request.citation),
        retention_days=request.retention_days,
        data_becomes_public=True,
    )
    return Offer(spec, unnamed.names)


def _check_sizes(fingerprint: Fingerprint, recipe: InferenceRecipe, channels: int) -> None:
    if recipe.spacing_um:
        x, y, z = recipe.spacing_um
        for shape, spacing in zip(fingerprint.shapes, fingerprint.spacings_um, strict=True):
            resampled_shape(shape, spacing, (x, y, z), channels)


def _whole(caps: Caps) -> Caps:
    """``caps`` with every bound in words: a recipe may leave the one on checkpoints out."""
    return caps.model_copy(update={"checkpoints_bytes": max_checkpoints_bytes(caps)})


def _archives(
    source: Source, split: Split, test_key: bytes, store: Store, scratch: Path, say: Progress
) -> tuple[Archive, Archive]:
    folders = (scratch / "train", scratch / "test")
    write_split(source, split, folders, lambda done, total: say("write", done, total))
    return (
        _seal(folders[0], len(split.train), data_key_of(test_key), store, say),
        _seal(folders[1], len(split.test), test_key, store, say),
    )


def _seal(folder: Path, cases: int, key: bytes, store: Store, say: Progress) -> Archive:
    plain = folder.with_suffix(".tar")
    size = pack(folder, plain)
    shutil.rmtree(folder)
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        say(f"seal {folder.name}", done, size)

    with Sealing(plain, key, count) as sealing:
        stored = store.put_leaves(sealing)
    plain.unlink()
    return Archive(cid=stored.cid, bytes=stored.bytes, cases=cases)
