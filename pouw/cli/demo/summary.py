"""How the demo ended: a table for each round, the checks it has to pass, and the closing line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pouw.cli.demo import cast as people
from pouw.cli.output import amount, rounded
from pouw.cli.output import score as shown
from pouw.types import Address, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pouw.ledger.history import RevealRecord, RoundRecord

SCORES_FILE: Final = "scores.json"
"""What every revealed model of a round measures, by its miner's address (ppm)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One miner in one round; scores in ppm, None where there is none."""

    miner: str
    claim_ppm: int | None
    measured_ppm: int | None
    fate: str
    paid_wei: int


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """One round: who claimed what and what became of it, and what the audit says."""

    number: int
    task: int
    offer: people.Offer
    baseline_ppm: int
    winner: str | None
    winner_address: Address | None
    claim_ppm: int | None
    measured_ppm: int | None
    paid_wei: int
    audit: str
    liar_burned: bool
    rows: tuple[Row, ...]


def summarise(
    record: RoundRecord,
    audited: Mapping[str, Any],
    scores: Mapping[str, int | None],
    attempt: str | None,
    offer: people.Offer,
    baseline_ppm: int,
    addresses: Mapping[str, Address],
) -> RoundSummary:
    """The summary of a closed round.

    ``audited`` is the node's report on it, ``scores`` what each revealed model measures,
    ``attempt`` how the copycat's reveal ended, ``addresses`` those of the miners by name.
    """
    won = record.verdict is Verdict.WINNER
    paid = int(audited["paid_wei"])
    rows = []
    for name, address in addresses.items():
        reveal = next((one for one in record.reveals if one.miner == address), None)
        if reveal is None:
            rows.append(
                Row(
                    name,
                    None,
                    None,
                    _not_revealed(record, address, attempt if name == people.COPYCAT else None),
                    0,
                )
            )
            continue
        is_winner = won and record.winner == address
        fate = "winner" if is_winner else _fate(record, reveal)
        measured = scores.get(address)
        rows.append(Row(name, reveal.claim, measured, fate, paid if is_winner else 0))
    names = {address: name for name, address in addresses.items()}
    return RoundSummary(
        number=record.number,
        task=record.task.task_id,
        offer=offer,
        baseline_ppm=baseline_ppm,
        winner=names.get(record.winner) if won else None,
        winner_address=record.winner if won else None,
        claim_ppm=record.score if won else None,
        measured_ppm=audited["measured_ppm"],
        paid_wei=paid,
        audit="ok" if audited["result"] == "true" else str(audited["result"]),
        liar_burned=record.reclaimed.get(addresses[people.LIAR], False),
        rows=tuple(rows),
    )


def _fate(record: RoundRecord, reveal: RevealRecord) -> str:
    if record.reclaimed.get(reveal.miner):
        return "false claim: bond burned"
    return "below the winner: bond back"


def _not_revealed(record: RoundRecord, address: Address, attempt: str | None) -> str:
    if address not in record.commitments:
        return "did not commit"
    return "did not reveal" if attempt is None else f"reveal refused: {attempt}"


def failures(
    rounds: Sequence[RoundSummary], audit_code: int, unfinished: Sequence[int], rounds_begun: int
) -> list[str]:
    """What the demo promised and did not keep; empty where all went well.

    ``unfinished``: the tasks that the last header left behind, which are all but the rich one.
    """
    wrong = []
    if len(rounds) != len(people.PLAYED) or rounds_begun != len(people.PLAYED):
        wrong.append(f"{len(rounds)} rounds were closed and {rounds_begun} begun, not 2")
    for one, name in zip(rounds, people.PLAYED, strict=False):
        where = f"round {one.number}"
        if one.offer.name != name:
            wrong.append(f"{where} ran task {one.offer.name}, not {name}")
        if one.winner not in people.HONEST:
            wrong.append(f"{where}: the winner is {one.winner or 'nobody'}, no honest miner")
        measured = one.measured_ppm or 0
        if measured < one.offer.floor_ppm:
            wrong.append(f"{where}: Dice {shown(measured)}, floor {shown(one.offer.floor_ppm)}")
        if measured <= one.baseline_ppm:
            wrong.append(f"{where}: Dice {shown(measured)}, thresholds {shown(one.baseline_ppm)}")
        if not one.liar_burned:
            fates = [row.fate for row in one.rows if row.miner == people.LIAR]
            why = ": ".join(["the over-claimer's bond was not burned", *fates])
            wrong.append(f"{where}: {why}")
        copied = next(row for row in one.rows if row.miner == people.COPYCAT)
        if copied.claim_ppm is not None or copied.paid_wei:
            wrong.append(f"{where}: the copycat revealed")
        elif "refused" not in copied.fate:
            wrong.append(f"{where}: the copycat did not even try: {copied.fate}")
        if not one.paid_wei:
            wrong.append(f"{where}: nobody was paid")
        if one.audit != "ok":
            wrong.append(f"{where}: the audit says {one.audit}")
    if audit_code:
        wrong.append(f"the audit ended with {audit_code}")
    if len(unfinished) != 1:
        wrong.append(f"unfinished tasks: {list(unfinished)}, not the poor one alone")
    return wrong


def closing_line(rounds: Sequence[RoundSummary]) -> str:
    """The last line of the demo: JSON."""
    return json.dumps(
        {
            "rounds": [
                {
                    "task": one.task,
                    "winner": one.winner_address,
                    "claim_ppm": one.claim_ppm,
                    "measured_ppm": one.measured_ppm,
                    "paid_wei": str(one.paid_wei),
                    "audit": one.audit,
                }
                for one in rounds
            ]
        }
    )


def tables(rounds: Sequence[RoundSummary]) -> RenderableType:
    """One table a round, with the threshold baseline in its title."""
    from rich.console import Group
    from rich.table import Table

    drawn = []
    for one in rounds:
        table = Table(
            "miner", "claim", "measured Dice", "verdict", "paid",
            title=f"round {one.number}, task {one.task}: {one.offer.title} "
            f"({amount(one.offer.reward_wei)}; two thresholds reach {shown(one.baseline_ppm)})",
            title_justify="left",
        )  # fmt: skip
        for row in one.rows:
            table.add_row(
                row.miner,
                shown(row.claim_ppm),
                shown(row.measured_ppm),
                row.fate,
                rounded(row.paid_wei),
            )
        drawn.append(table)
    return Group(*drawn)
