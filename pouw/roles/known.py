"""Whether miners know, from an earlier task, what a new one would hide from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pouw.chain.arena import ArenaClient
from pouw.errors import ConfigError
from pouw.roles.asked import Asked
from pouw.roles.drafts import Draft, Drafts
from pouw.roles.offer import PublishRequest
from pouw.types import TaskId

_HINT: Final = (
    "hide new images: labelled cases in imagesTs and labelsTs are the test set, and only those "
    "must be new; to pay for a model that may have been trained on its own test set, add "
    "--miners-may-know-the-test-set"
)


def check_unknown(
    request: PublishRequest,
    asked: Asked,
    drafts: Drafts,
    arena: ArenaClient,
    landed: Mapping[bytes, TaskId],
) -> None:
    """ConfigError where an image that may be hidden was, or will be before, in an open archive.

    A task that waits counts: whichever is selected first shows the other's images. One that was
    taken back, or dropped before its key left, does not. An older
    release did not keep what a task held: its folder decides then. ``landed``: tasks of drafts that
    do not know of them, by the spec's digest.
    """
    for draft in drafts.all():
        images = drafts.images(draft)
        shared = None if images is None else len(asked.hidden & images)
        if shared == 0 or (shared is None and not draft.is_of(request)):
            continue
        where = _where(draft, arena, landed.get(draft.digest, draft.task_id), old=shared is None)
        if where is not None:
            held = "the images of this folder" if shared is None else f"{shared} of these images"
            raise ConfigError(
                f"{held} are known to miners with their labels, or will be, by {where}, sealed "
                f"{draft.origin}: a test set made of them hides nothing",
                hint=_HINT,
            )


def _where(draft: Draft, arena: ArenaClient, task_id: TaskId | None, *, old: bool) -> str | None:
    """The task whose data key is out or will be, in words; None where there is none."""
    if task_id is not None:
        task = arena.task(task_id)
        if (task.spec_digest, task.publisher) == (draft.digest, arena.sender.address):
            waits = task.pooled or arena.state().selected == task_id
            if waits or task.round or old:
                return f"task {task_id}"
    return "a task whose data key was sent" if draft.key_sent else None
