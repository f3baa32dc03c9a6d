"""What the commands of all roles share: running one, and showing what one last said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from pouw.cli.adapters import setup_for
from pouw.cli.loop import Role, ending_by_signals, read_status, run_role
from pouw.cli.options import Call
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
    with ending_by_signals() as ending, setup_for(call.settings) as setup:
        if while_stdin_open:
            ending.watch_stdin()
        role = build(setup)
        status = run_role(role, setup.home, ending, poll_seconds=poll_seconds, once=once)
    if status is not None:
        call.output.result(asdict(status), f"{status.phase}: {status.doing}; {status.next}")


def show_status(call: Call) -> None:
    """Print what the role of this home last said; ConfigError where none ever ran there."""
    said = read_status(call.settings.home)
    if said is None:
        raise ConfigError(
            f"no role has run with the home {call.settings.home}",
            hint="name its private folder with --home",
        )
    lines = [f"{said['role']}, {said['phase']}: {said['doing']}; {said['next']}"]
    lines += [f"  {name}: {value}" for name, value in sorted(said["data"].items())]
    call.output.result(said, "\n".join(lines))
