"""Plays random histories and says what they reached.

``python tests/unit/ledger/histories.py --sequences 10000`` plays that many, others each time, and
prints what happened in them; 1 where contract and model differ, with the shortest history that
shows it and the line that reproduces it.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

from contract_twin import Twin
from history_machine import Histories
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from ledger_evms import Evm, PyEvm, Revm
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

EVMS: dict[str, type[Evm]] = {"revm": Revm, "py-evm": PyEvm}


def fresh(
    evm: type[Evm], twin: type[Twin] = Twin, after: Callable[[], None] = lambda: None
) -> type[Histories]:
    """A machine on that EVM that counts from zero; ``after`` is called after each history."""
    fields = {"evm": evm, "twin": twin, "reached": Counter(), "after": staticmethod(after)}
    return type("FreshHistories", (Histories,), fields)


def play(machine: type[Histories], sequences: int, *, seeded: bool, steps: int = 20) -> None:
    """Play ``sequences`` histories; raises where contract and model differ.

    ``seeded``: always the same ones, else others each time; failures are shrunk and reproducible.
    """
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=steps,
            deadline=None,
            derandomize=seeded,
            database=None,
            print_blob=True,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=10_000)
    parser.add_argument("--evm", choices=EVMS, default="revm")
    chosen = parser.parse_args()
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    began = time.monotonic()
    with Progress(*columns) as progress:
        bar = progress.add_task("histories", total=chosen.sequences)
        machine = fresh(EVMS[chosen.evm], after=lambda: progress.advance(bar))
        try:
            play(machine, chosen.sequences, seeded=False)
        except AssertionError:
            traceback.print_exc()
            return 1
    for name, count in sorted(machine.reached.items()):
        print(f"{name:44}{count:>10,}")
    print(f"{chosen.evm}: {time.monotonic() - began:.0f} seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
