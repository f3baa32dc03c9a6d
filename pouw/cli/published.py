"""What `pouw publisher publish` says at its end: where the money is, and what is due when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pouw.cli.output import moment
from pouw.config import Settings, is_folder
from pouw.types import TaskId

if TYPE_CHECKING:
    from pouw.roles.base import Setup


def published(setup: Setup, settings: Settings, task_id: TaskId) -> tuple[dict[str, Any], str]:
    """It as a document and as text; reward and bond in the smallest unit of the asset."""
    from pouw.roles.means import amount
    from pouw.roles.view import read_view

    arena = setup.arena
    view, reward_wei = read_view(arena, setup.confirmations), arena.task(task_id).reward
    bond_wei = view.parameters.bond_of(reward_wei)
    selected, window = view.state.selected == task_id, None
    if selected and view.opens is not None and view.closes is not None:
        window = view.opens, view.closes
    document = {
        "task": task_id,
        "reward_wei": str(reward_wei),
        "bond_wei": str(bond_wei),
        "account": arena.sender.address,
        "arena": arena.address,
        "chain_id": arena.chain_id,
        "selected": selected,
        "key_window": window,
    }
    escrow = f"{amount(arena, reward_wei)} and a bond of {amount(arena, bond_wei)}"
    lines = [f"{escrow} are in arena {arena.address} (chain {arena.chain_id})"]
    if window is not None:
        begins, ends = map(moment, window)
        lines.append(
            "it is selected and cannot be cancelled any more; its data key is due between "
            f"{begins} and {ends}, or the bond is lost"
        )
    elif selected:
        lines.append("it is selected and cannot be cancelled any more")
    else:
        lines.append(f"it waits in the pool; `pouw publisher cancel {task_id}` takes it back")
    lines.append(
        "next: keep `pouw publisher run` running, it releases the keys; they lie in "
        f"{settings.home}: keep a copy"
    )
    if is_folder(settings.store[0]):
        lines.append(
            "      keep `pouw store serve --host 0.0.0.0` running and tell miners and oracles its "
            "address: they fetch the images there"
        )
    return document, "\n".join(lines)
