"""``pouw publisher top-up`` and ``cancel``: a task while it waits in the pool."""

from __future__ import annotations

import click

from pouw.cli.adapters import setup_for
from pouw.cli.options import ACTOR, Call, example, settings_options
from pouw.cli.output import amount as shown
from pouw.cli.values import AMOUNT
from pouw.types import TaskId

TASK = click.argument("task", metavar="TASK", type=click.IntRange(min=1))


@click.command(epilog=example("pouw publisher top-up 7 --amount 0.5ether --keystore me.json"))
@settings_options(*ACTOR)
@TASK
@click.option("--amount", type=AMOUNT, required=True, help="What the reward grows by.")
def top_up(call: Call, task: int, amount: int) -> None:
    """Raise the reward of your pooled TASK, which moves up; its bond grows with it.

    Killed half-way, run it again with the same amount: it pays once.
    """
    from pouw.roles import pool

    if not amount:
        raise click.UsageError("--amount is more than nothing")
    with setup_for(call.settings, keeps_content=False) as setup:
        raised = pool.top_up(setup, TaskId(task), amount)
    document = {
        "task": task,
        "reward_wei": str(raised.reward_wei),
        "bond_wei": str(raised.bond_wei),
        "paid_wei": str(raised.paid_wei),
    }
    paid = f"paid {shown(raised.paid_wei)} now" if raised.paid_wei else "paid by an earlier run"
    call.output.result(
        document,
        f"task {task} offers {shown(raised.reward_wei)}, its bond is {shown(raised.bond_wei)} "
        f"({paid})",
    )


@click.command(epilog=example("pouw publisher cancel 7 --keystore me.json"))
@settings_options(*ACTOR)
@TASK
def cancel(call: Call, task: int) -> None:
    """Take your pooled TASK back; reward and bond return whole, as a credit."""
    from pouw.roles import pool

    with setup_for(call.settings, keeps_content=False) as setup:
        cancelled = pool.cancel(setup, TaskId(task))
    call.output.result(
        {"task": task, "credited_wei": str(cancelled.credited_wei)},
        f"task {task} is out of the pool: {shown(cancelled.credited_wei)} are your credit\n"
        "next: `pouw withdraw`",
    )
