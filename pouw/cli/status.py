"""``pouw status``: the pool, the round, the time left, the own commitments, what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pouw.cli.adapters import address_of_keystore, local_store, open_reader
from pouw.cli.options import CHAIN, Call, example, settings_options
from pouw.cli.output import amount, duration, moment
from pouw.cli.output import score as shown
from pouw.errors import ContentError, DocumentError
from pouw.types import Address, Entry, EntryState, Phase

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pouw.chain.reading import ArenaReader
    from pouw.config import Settings
    from pouw.roles.view import View
    from pouw.types import Task

_POOL_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Own:
    """What the arena knows of one account; ``entry`` is that of the last round."""

    account: Address
    entry: Entry | None
    credit_wei: int
    is_oracle: bool


@click.command(epilog=example("pouw status --rpc http://127.0.0.1:8545 --arena 0x..."))
@settings_options(*CHAIN, "store", "keystore")
@click.option("--account", help="Whose commitments and credit (default: the keystore's account).")
def status(call: Call, account: str | None) -> None:
    """The arena now: pool, round, phase, time left, your commitments, what you can do next."""
    from pouw.cli.values import ADDRESS
    from pouw.roles.view import read_view

    settings = call.settings
    arena = open_reader(settings)
    view = read_view(arena, settings.confirmations)
    address = ADDRESS.convert(account, None, None) if account else address_of_keystore(settings)
    own = _own(arena, view, Address(address)) if address else None
    pooled = [arena.task(task_id) for task_id in arena.pool(limit=_POOL_SHOWN)]
    document = _document(settings, arena, view, own, pooled)
    call.output.result(document, lambda: _page(document))


def _own(arena: ArenaReader, view: View, account: Address) -> Own:
    entry = arena.entry(view.round.number, account) if view.round else None
    return Own(account, entry, arena.credit(account), account in view.parameters.oracles)


def _document(
    settings: Settings, arena: ArenaReader, view: View, own: Own | None, pooled: list[Task]
) -> dict[str, Any]:
    boundary = view.next_boundary()
    return {
        "arena": arena.address,
        "chain_id": arena.chain_id,
        "time": view.now,
        "phase": str(view.phase),
        "boundary": None
        if boundary is None
        else {"what": boundary[0], "at": boundary[1], "seconds_left": boundary[1] - view.now},
        "round": None
        if view.round is None
        else {
            "number": view.round.number,
            "task": view.round.task_id,
            "closed": view.round.closed,
            "test_open": view.round.opened,
            "reveals": view.round.reveals,
            "votes": view.round.voted.bit_count(),
            "verdict": view.round.verdict.name.lower().replace("_", "-"),
        },
        "selected": _task(settings, view.selected) if view.selected else None,
        "running": _task(settings, view.task) if view.live and view.task else None,
        "pool": [_task(settings, task) for task in pooled],
        "account": None
        if own is None
        else {
            "address": own.account,
            "credit_wei": str(own.credit_wei),
            "commitment": None if own.entry is None else own.entry.state.name.lower(),
            "committed_at": own.entry.committed_at or None if own.entry else None,
            "claim_ppm": own.entry.claim or None if own.entry else None,
            "oracle": own.is_oracle,
        },
        "next": next_step(view, own),
    }


def _task(settings: Settings, task: Task) -> dict[str, Any]:
    return {
        "task": task.task_id,
        "title": _title(settings, task),
        "reward_wei": str(task.reward),
        "min_score_ppm": task.min_score,
        "first": task.first,
    }


def _title(settings: Settings, task: Task) -> str | None:
    """The title in the task's spec, where this machine's store has it."""
    from pouw.documents import TaskSpec
    from pouw.hashing import raw_cid

    if not Path(settings.store[0]).is_dir():
        return None
    try:
        data = local_store(settings).get_bytes(raw_cid(task.spec_digest))
        return TaskSpec.parse(data).title
    except (ContentError, DocumentError):
        return None


def next_step(view: View, own: Own | None) -> str:
    """What the user can do next, in one sentence; what loses money comes first, then what pays."""
    duty = _duty(view, own.account) if own else None
    if duty:
        return duty
    state = own.entry.state if own and own.entry else EntryState.NONE
    live = view.live is not None
    if own and own.credit_wei:
        return f"`pouw withdraw` brings you {amount(own.credit_wei)}"
    if not live and view.round and state is EntryState.REVEALED:
        return f"`pouw reclaim {view.round.number}` settles your bond"
    if own and own.is_oracle:
        return "keep `pouw oracle run` running: it votes in the report window"
    match view.phase:
        case Phase.IDLE:
            return "publish a task: `pouw publisher publish FOLDER`; it is selected at once"
        case Phase.SELECTED:
            return "start `pouw miner run`: it fetches the sealed data before training begins"
        case Phase.KEY if view.closes is not None and view.now >= view.closes:
            return "`pouw sync` drops the selected task: its data key did not come in time"
        case Phase.KEY:
            return "wait for the publisher's data key; without it `pouw sync` drops the task"
        case Phase.PHASE1 if state is EntryState.COMMITTED:
            return "go on: `pouw miner run` commits again when its model is better"
        case Phase.PHASE1:
            return "`pouw miner run` can still train and commit"
        case Phase.OPEN | Phase.REVEAL if state is EntryState.COMMITTED:
            return "keep `pouw miner run` running: it reveals once the test set is open"
        case Phase.DECIDED:
            return "`pouw finalize` closes the round and credits everybody"
    return "nothing: wait for the next boundary"


def _duty(view: View, account: Address) -> str | None:
    """What the publisher of the selected or the live task must not miss; None for all others."""
    selected, task, at = view.selected, view.task, view.deadlines
    if selected and selected.publisher == account and view.opens and view.closes:
        what, begins, ends = "release the data key", view.opens, view.closes
    elif task and task.publisher == account and view.live and at and not view.live.opened:
        what, begins, ends = "open the test set", at.t1, at.t2
    else:
        return None
    if view.now >= ends:
        return None
    return (
        f"`pouw publisher run` must keep running: it must {what} between {moment(begins)} and "
        f"{moment(ends)}, or the bond is lost"
    )


def _page(document: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    facts.add_row("arena", f"{document['arena']} (chain {document['chain_id']})")
    facts.add_row("phase", _phase(document))
    if document["round"]:
        facts.add_row("round", _round(document["round"]))
    if document["account"]:
        facts.add_row("you", _account(document["account"]))
    tasks = Table("task", "where", "reward", "minimum", "title")
    for where in ("running", "selected"):
        if document[where]:
            _add(tasks, document[where], where)
    for task in document["pool"]:
        _add(tasks, task, "pool")
    parts: list[Any] = [facts]
    if tasks.row_count:
        parts.append(tasks)
    return Group(*parts, Text(f"next: {document['next']}"))


def _phase(document: dict[str, Any]) -> str:
    boundary = document["boundary"]
    if boundary is None:
        return str(document["phase"])
    return f"{document['phase']}; {boundary['what']} in {duration(boundary['seconds_left'])}"


def _round(facts: dict[str, Any]) -> str:
    state = "closed" if facts["closed"] else "live"
    opened = "open" if facts["test_open"] else "sealed"
    return (
        f"{facts['number']} ({state}), task {facts['task']}, test set {opened}, "
        f"{facts['reveals']} reveals, {facts['votes']} votes, verdict {facts['verdict']}"
    )


def _account(facts: dict[str, Any]) -> str:
    text = f"{facts['address']}, credit {amount(int(facts['credit_wei']))}"
    if facts["commitment"] not in (None, "none"):
        text += f", {facts['commitment']} in the last round"
    return text + (f", claim {shown(facts['claim_ppm'])}" if facts["claim_ppm"] else "")


def _add(table: Any, task: dict[str, Any], where: str) -> None:
    table.add_row(
        str(task["task"]),
        where,
        amount(int(task["reward_wei"])),
        shown(task["min_score_ppm"]) + (" (first)" if task["first"] else ""),
        task["title"] or "-",
    )
