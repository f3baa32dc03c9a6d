"""What the commands of all roles share: running one, and showing what one last said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pouw.cli.adapters import setup_for
from pouw.cli.loop import Role, begin, ending_by_signals, is_running, read_status, run_role
from pouw.cli.options import Call
from pouw.cli.output import duration
from pouw.config import Settings
from pouw.errors import ConfigError

if TYPE_CHECKING:
    from pouw.roles.base import Setup


def run_command(
    call: Call,
    build: Callable[[Setup], Role],
    *,
    once: bool,
    poll_seconds: float,
    while_stdin_open: bool,
) -> None:
    """Build a role and drive it until a signal; its last status is the result."""
    settings, status = call.settings, None
    with ending_by_signals() as ending, ExitStack() as opened:
        if while_stdin_open:
            ending.watch_stdin()

        def enter() -> tuple[Setup, Role]:
            return opened.enter_context(_built(settings, build))

        begun = enter() if once else begin(enter, settings.home, ending, poll_seconds)
        if begun is not None:
            setup, role = begun
            endpoint = setup.arena.endpoint
            status = run_role(
                role,
                setup.home,
                ending,
                poll_seconds=poll_seconds,
                once=once,
                block=lambda: endpoint.latest_block,
            )
    if status is not None:
        call.output.result(asdict(status), f"{status.phase}: {status.doing}; {status.next}")


@contextmanager
def _built(settings: Settings, build: Callable[[Setup], Role]) -> Iterator[tuple[Setup, Role]]:
    with setup_for(settings) as setup:
        yield setup, build(setup)


def show_status(call: Call) -> None:
    """What the role of this home last said, when, and whether it runs.

    ConfigError where none ever ran there.
    """
    home = call.settings.home
    said = read_status(home)
    if said is None:
        raise ConfigError(
            f"no role has run with the home {home}", hint="name its private folder with --home"
        )
    document = said | {
        "alive": is_running(home),
        "look_age_seconds": _age(said.get("looked_at_ms")),
        "block_age_seconds": _age(said.get("block_at_ms")),
    }
    lines = [f"{said['role']}, {said['phase']}: {said['doing']}; {said['next']}", _life(document)]
    if said.get("error"):
        lines.append(f"  error: {said['error']}")
    lines += [f"  {name}: {value}" for name, value in sorted(said["data"].items())]
    call.output.result(document, "\n".join(lines))


def _age(at_ms: int | None) -> int | None:
    """Seconds since then; a clock that was put back makes none of it negative."""
    return None if at_ms is None else max(0, (int(time.time() * 1000) - at_ms) // 1000)


def _life(document: dict[str, Any]) -> str:
    text = "  runs" if document["alive"] else "  does not run now"
    if document["look_age_seconds"] is not None:
        text += f"; saw the chain {duration(document['look_age_seconds'])} ago"
    if document.get("block") is not None:
        text += f", block {document['block']} came {duration(document['block_age_seconds'])} ago"
    return text
