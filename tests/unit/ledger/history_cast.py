"""Who plays a random history, in which arenas, and what hypothesis draws for it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from hypothesis import strategies as st
from ledger_stage import (
    ALICE,
    ARBITER,
    BOB,
    CAROL,
    DAVE,
    ORACLES,
    PARAMETERS,
    PUBLISHER,
    STRANGER,
)

from pouw.types import ZERO_ADDRESS, Verdict

ALONE = replace(
    PARAMETERS,
    oracles=PARAMETERS.oracles[:1],
    threshold=1,
    arbiter=ZERO_ADDRESS,
    challenge_window=0,
    ruling_window=0,
)
FREE = replace(PARAMETERS, publisher_bond_bps=0, oracle_fee_bps=0, miner_bond=0, challenge_bond=0)
DEAR = replace(PARAMETERS, publisher_bond_bps=10_000, oracle_fee_bps=10_000, threshold=3)
ARENAS = {"usual": PARAMETERS, "alone": ALONE, "free": FREE, "dear": DEAR}

CAST = {
    "publisher": PUBLISHER,
    "Alice": ALICE,
    "Bob": BOB,
    "Carol": CAROL,
    "Dave": DAVE,
    "arbiter": ARBITER,
    "stranger": STRANGER,
    "oracle 0": ORACLES[0],
    "oracle 1": ORACLES[1],
    "oracle 2": ORACLES[2],
}
NAMES = {actor.address: name for name, actor in CAST.items()}
MINERS = ("Alice", "Bob", "Carol")


class Step(NamedTuple):
    """What one step of the live round may need; which of it, the phase says."""

    dice: int
    miner: str
    claim: int
    seat: int
    verdict: Verdict
    winner: str


actors = st.sampled_from(list(CAST))
miners = st.sampled_from(MINERS)
steps = st.builds(
    Step,
    st.integers(0, 9),
    miners,
    st.sampled_from((700_000, 900_000, 500_000)),
    st.integers(0, 2),
    st.sampled_from((Verdict.WINNER,) * 3 + (Verdict.NO_TRUE_CLAIM, Verdict.INVALID)),
    miners,
)
# Where a history's random part begins: hypothesis leaves rules out, and few walk a round by chance.
roads = st.integers(0, 24).flatmap(lambda n: st.lists(steps, min_size=n, max_size=n))
payments = st.sampled_from((None, None, None, 0, 1, 1_111, 10**9))
words = st.sampled_from((bytes(32), b"\x07" * 32))
