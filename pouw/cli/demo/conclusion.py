"""What the demo found out: read back from the chain, the store and the audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pouw.cli.demo import cast as people
from pouw.cli.demo.adversary import ATTEMPTS
from pouw.cli.demo.summary import SCORES_FILE, RoundSummary, failures, summarise
from pouw.cli.demo.tasks import baseline_file

if TYPE_CHECKING:
    from pouw.cli.demo.story import Stage

AUDIT_FILE = "audit.json"


def conclude(folder: Path, stage: Stage) -> tuple[list[RoundSummary], list[str]]:
    """A summary of every closed round, and what went wrong (empty: nothing)."""
    from pouw.journal import Journal
    from pouw.ledger.replay import replay

    arena = stage.arena
    events = arena.events(stage.from_block, arena.confirmed_block(1))
    history = replay(events, arena.parameters(), arena.chain_id, arena.address)
    audited = {one["round"]: one for one in json.loads((folder / AUDIT_FILE).read_text())["rounds"]}
    with Journal(stage.cast.home(people.COPYCAT) / "journal.sqlite") as journal:
        attempts = dict(journal.items(ATTEMPTS))
    titles = {offer.title: offer for offer in people.OFFERS}
    miners = (*people.HONEST, people.LIAR, people.COPYCAT)
    rounds = []
    for record in history.rounds.values():
        if not record.closed:
            continue
        kept = folder / "rounds" / str(record.number)
        offer = titles[json.loads((kept / "spec.json").read_text())["title"]]
        rounds.append(
            summarise(
                record,
                audited[record.number],
                json.loads((kept / SCORES_FILE).read_text()),
                attempts.get(str(record.number)),
                offer,
                json.loads(baseline_file(folder / "data", f"brain{offer.dims}d").read_text()),
                {name: stage.cast.addresses[name] for name in miners},
            )
        )
    last = history.rounds[max(history.rounds)] if history.rounds else None
    unfinished = last.unfinished if last else ()
    return rounds, failures(rounds, stage.audit_code, unfinished, len(history.rounds))
