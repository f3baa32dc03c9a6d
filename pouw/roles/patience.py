"""How long an oracle waits for content that others serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pouw.types import Deadlines, Parameters


@dataclass(frozen=True, slots=True)
class Patience:
    """When content is given up on; all moments are on the chain's clock, in seconds.

    From ``late`` on nothing more is waited for. ``last_look``: what is missing counts as that where
    it was missing then still. ``asked_by``: a claim's content that still arrives is given up on
    where it was asked for by then, and a missing archive too. ``archives_by``: so is an archive
    that still arrives. Where it was asked for later, it was the oracle that came late.
    """

    now: int
    late: int
    last_look: int
    asked_by: int
    archives_by: int

    @classmethod
    def of(cls, now: int, at: Deadlines, parameters: Parameters, margin_seconds: int) -> Self:
        """That of a round which ends at ``at``, ``margin_seconds`` of which are for the vote."""
        late, window = at.t4 - margin_seconds, at.t4 - at.t3
        return cls(
            now=now,
            late=late,
            last_look=late - window // 8,
            asked_by=late - window // 4,
            # As long as miners have from a selection to its data key.
            archives_by=late - parameters.phase2,
        )

    @property
    def is_over(self) -> bool:
        """Whether it is late."""
        return self.now >= self.late
