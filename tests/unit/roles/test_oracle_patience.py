"""When an oracle gives up on content."""

from __future__ import annotations

import dataclasses

from one_round import PARAMETERS

from pouw.roles.patience import Patience
from pouw.types import Deadlines

WINDOWS = dataclasses.replace(
    PARAMETERS, phase1=86_400, key_window=900, reveal_window=1_800, report_window=7_200
)


def test_patience__margin_before_the_end__is_shared_out_backwards_from_there() -> None:
    at = Deadlines.of(1_000_000, WINDOWS)
    late = at.t4 - 60
    found = Patience.of(late, at, WINDOWS, 60)
    assert found == Patience(late, late, late - 900, late - 1_800, late - WINDOWS.phase2)
    assert found.is_over
    assert not Patience.of(late - 1, at, WINDOWS, 60).is_over


def test_patience__shortest_phase_1__archives_are_asked_for_after_the_selection() -> None:
    at = Deadlines.of(1_000_000, dataclasses.replace(WINDOWS, phase1=1))
    selected_at = at.t0 - WINDOWS.phase2
    assert Patience.of(at.t3, at, WINDOWS, 60).archives_by > selected_at
