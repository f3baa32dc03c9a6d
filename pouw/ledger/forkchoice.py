"""Which chain of headers to follow, and how well a round is confirmed (paper, 4.4 and 4.6).

The paper lets the chain with the most highest-accuracy models win. Scores of different tasks
cannot be compared, so models are compared task by task, and a task is its spec: forks may number
the same spec differently, and may take it at different heights. Only tasks that every chain knew
are compared: otherwise who builds a chain in private would fill it with tasks of his own, which
nobody else could take. A chain that knew a task and did not take it holds no model for it, so
nothing is gained by avoiding a task either.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pouw.errors import LedgerError
from pouw.hashing import header_hash
from pouw.types import Header, RoundNumber, Verdict

HIGH_ACCURACY_MARGIN_PPM = 10_000
"""A model this close to the best known one of its task is a high-accuracy model: Dice 0.01."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Verified headers from the first round on, and the specs that its pool knew.

    ``known``: specs published before the last header's task was selected, and not cancelled.
    """

    headers: tuple[Header, ...]
    known: frozenset[bytes]


class Reason(enum.StrEnum):
    """What decided between chains; each is asked only where those before it leave a tie."""

    SAME = "the chains are the same"
    MODELS = "most highest-accuracy models"
    LENGTH = "more closed rounds"
    HASH = "lower hash of the first header that differs"


@dataclass(frozen=True, slots=True)
class Contest:
    """One task that all chains knew and one at least solved after the fork.

    ``scores_ppm``: the best winner's claim by chain, None where a chain has none.
    """

    spec_digest: bytes
    scores_ppm: tuple[int | None, ...]

    @property
    def best_ppm(self) -> int:
        """The score of the task's highest-accuracy models."""
        return max(score for score in self.scores_ppm if score is not None)

    def holds_best(self, chain: int) -> bool:
        """Whether a chain holds a highest-accuracy model of the task; equal scores all do."""
        return self.scores_ppm[chain] == self.best_ppm


@dataclass(frozen=True, slots=True)
class Choice:
    """A fork choice: ``chosen`` is the place of the chain to follow.

    ``common``: headers that all chains share; ``contests``: the tasks after them, in the order of
    the chains; ``best_models``: tasks whose highest-accuracy model each chain holds.
    """

    chosen: int
    reason: Reason
    common: int
    contests: tuple[Contest, ...]
    best_models: tuple[int, ...]


def choose(chains: Sequence[Chain]) -> Choice:
    """The chain to follow among ``chains``, whatever their order.

    Only what follows the headers common to all counts. All chains are compared at once, since
    comparing them in pairs can go round in a circle. The chains must have been verified before
    (`pouw.ledger.headerfile`). LedgerError where there is no chain.
    """
    if not chains:
        raise LedgerError("no chain to choose from")
    hashes = [tuple(header_hash(header) for header in chain.headers) for chain in chains]
    common = _common(hashes)
    forks = [chain.headers[common:] for chain in chains]
    best = [_best_scores(fork) for fork in forks]
    known = frozenset.intersection(*(chain.known for chain in chains))
    contests = tuple(
        Contest(spec, tuple(scores.get(spec) for scores in best))
        for spec in dict.fromkeys(spec for scores in best for spec in scores)
        if spec in known
    )
    counts = tuple(
        sum(contest.holds_best(chain) for contest in contests) for chain in range(len(chains))
    )
    places = range(len(chains))
    leaders = [at for at in places if counts[at] == max(counts)]
    longest = max(len(forks[at]) for at in leaders)
    finalists = [at for at in leaders if len(forks[at]) == longest]
    chosen = min(finalists, key=lambda at: hashes[at])
    if len(set(hashes)) == 1:
        reason = Reason.SAME
    elif len({hashes[at] for at in leaders}) == 1:
        reason = Reason.MODELS
    elif len({hashes[at] for at in finalists}) == 1:
        reason = Reason.LENGTH
    else:
        reason = Reason.HASH
    return Choice(chosen, reason, common, contests, counts)


def high_accuracy_rounds(
    headers: Iterable[Header], margin_ppm: int = HIGH_ACCURACY_MARGIN_PPM
) -> tuple[RoundNumber, ...]:
    """Rounds whose winner is within ``margin_ppm`` of the best model of its task in this chain."""
    headers = tuple(headers)
    best = _best_scores(headers)
    return tuple(
        header.number
        for header in headers
        if header.verdict is Verdict.WINNER
        and header.score >= best[header.spec_digest] - margin_ppm
    )


def confirmations(
    headers: Sequence[Header], number: RoundNumber, margin_ppm: int = HIGH_ACCURACY_MARGIN_PPM
) -> tuple[RoundNumber, ...]:
    """The later rounds that confirm round ``number``: those with a high-accuracy model (4.6).

    LedgerError where the round is not closed in this chain.
    """
    if all(header.number != number for header in headers):
        raise LedgerError(
            f"round {number} is not closed in this chain",
            hint="list the closed rounds with `pouw node headers`",
        )
    return tuple(each for each in high_accuracy_rounds(headers, margin_ppm) if each > number)


def _common(hashes: Sequence[tuple[bytes, ...]]) -> int:
    """How many leading headers all chains share."""
    length = 0
    for heads in zip(*hashes, strict=False):
        if len(set(heads)) != 1:
            break
        length += 1
    return length


def _best_scores(headers: Iterable[Header]) -> dict[bytes, int]:
    """The best winner's score of each task, by spec digest."""
    best: dict[bytes, int] = {}
    for header in headers:
        if header.verdict is Verdict.WINNER:
            best[header.spec_digest] = max(header.score, best.get(header.spec_digest, 0))
    return best
