"""What an oracle scores with: one process, several, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pouw.roles.cluster import cluster_scoring
from pouw.roles.processes import MODEL_SECONDS, ScoringProcess
from pouw.roles.scorers import Scoring, local_scoring


@dataclass(frozen=True, slots=True)
class OracleOptions:
    """How an oracle spends its machine.

    ``processes`` of one thread each score one model together, or as many as the Ray cluster at
    ``ray`` has room for. A process that takes longer than ``model_seconds`` over one case is
    ended. ``report_margin_seconds`` before t4 the oracle stops waiting for content that cannot be
    had, and votes.
    """

    device: str = "cpu"
    report_margin_seconds: int = 60
    processes: int = 1
    ray: str | None = None
    model_seconds: float = MODEL_SECONDS


def open_scoring(options: OracleOptions, home: Path) -> Scoring:
    """What ``options`` say to score with; ConfigError where there is no such cluster."""
    if options.ray is not None:
        return cluster_scoring(options.ray, options.device, options.model_seconds)
    return local_scoring(
        options.processes,
        lambda log: ScoringProcess(log, options.device, options.model_seconds),
        home,
    )
