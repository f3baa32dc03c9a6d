"""What an audit says of verdicts without a winner, and of histories that end too early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from played import COPYCAT, MINER, Stage

from pouw.chain.devnet import Devnet
from pouw.chain.reading import ArenaReader
from pouw.chain.rpc import Endpoint
from pouw.documents import Evidence, Judged, Manifest
from pouw.errors import LedgerError
from pouw.events import RoundClosed
from pouw.roles.base import Observer
from pouw.roles.evidence import NOT_TO_BE_HAD
from pouw.roles.follow import read_history
from pouw.roles.node import AuditOptions, AuditReport, Result, audit
from pouw.types import RoundNumber, Verdict

A_LITTLE_PPM, MUCH_PPM = 100, 5_000
TRUE_BY_LITTLE, TRUE_BY_MUCH, SAID_GONE, FOREIGN_SEED, INVALID, INVALID_SAID_GONE = map(
    RoundNumber, range(1, 7)
)


@dataclass(frozen=True)
class Past:
    """Six rounds in which the committee paid nobody, and what an audit of them says."""

    url: str
    observer: Observer
    report: AuditReport


def evidence(number: RoundNumber, verdict: str, **said: Any) -> Evidence:
    fields: dict[str, Any] = {"invalid_reason": "", "judged": (), "skipped": (), "winner": None}
    return Evidence(
        task=int(number),
        round=int(number),
        oracle="0x" + "11" * 20,
        verdict=verdict,
        software="pouw",
        device="none",
        **{**fields, **said},
    )


def unavailable(manifest: Manifest, claim_ppm: int) -> Judged:
    return Judged(
        miner=manifest.miner,
        manifest="0x" + manifest.digest().hex(),
        claim_ppm=claim_ppm,
        score_ppm=None,
        true_claim=False,
        reason="unavailable",
        detail="not to be had in 3 attempt(s)",
        cases=(),
    )


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    folder = tmp_path_factory.mktemp("verdicts")
    with Devnet(folder / "chain", port=0, block_seconds=0) as chain:
        endpoint = Endpoint.connect(chain.url)
        stage = Stage(endpoint, folder, rounds=6)
        honest = stage.trained()
        score = stage.score_of(honest)
        no, invalid = Verdict.NO_TRUE_CLAIM, Verdict.INVALID

        def kept(document: Evidence) -> bytes:
            stage.store.put_bytes(document.encode())
            return document.digest()

        stage.play(TRUE_BY_LITTLE, MINER, honest, score - A_LITTLE_PPM, no)
        copied = [stage.copied(honest, RoundNumber(number)) for number in range(7)]
        plain = kept(evidence(TRUE_BY_MUCH, "no-true-claim"))
        stage.play(TRUE_BY_MUCH, COPYCAT, copied[TRUE_BY_MUCH], score - MUCH_PPM, no, plain)
        gone = unavailable(copied[SAID_GONE], score - MUCH_PPM)
        said = kept(evidence(SAID_GONE, "no-true-claim", judged=(gone,)))
        stage.play(SAID_GONE, COPYCAT, copied[SAID_GONE], score - MUCH_PPM, no, said)
        foreign = copied[FOREIGN_SEED].model_copy(update={"seed": honest.seed})
        stage.play(FOREIGN_SEED, COPYCAT, foreign, score - MUCH_PPM, no)
        rubbish = kept(evidence(INVALID, "invalid", invalid_reason="rubbish"))
        stage.play(INVALID, COPYCAT, copied[INVALID], score, invalid, rubbish)
        late = kept(
            evidence(INVALID_SAID_GONE, "invalid", invalid_reason=NOT_TO_BE_HAD + "the archive")
        )
        stage.play(INVALID_SAID_GONE, COPYCAT, copied[INVALID_SAID_GONE], score, invalid, late)
        (folder / "node").mkdir()
        observer = Observer(stage.clients[MINER], stage.store, folder / "node", 1, 0)
        yield Past(chain.url, observer, audit(observer))
        endpoint.close()


@pytest.mark.parametrize(
    ("number", "result", "rule", "says"),
    [
        (TRUE_BY_LITTLE, Result.NOT_RECHECKABLE, "highest true claim", "hardware"),
        (TRUE_BY_MUCH, Result.FALSE, "highest true claim", "measures"),
        (SAID_GONE, Result.NOT_RECHECKABLE, "highest true claim", "not to be had"),
        (INVALID, Result.FALSE, "invalid", "the task is valid"),
        (INVALID_SAID_GONE, Result.NOT_RECHECKABLE, "invalid", "the archive"),
    ],
)
def test_audit__verdict_without_a_winner__is_judged_again(
    past: Past, number: RoundNumber, result: Result, rule: str, says: str
) -> None:
    one = past.report.rounds[number - 1]
    assert (one.round, one.result) == (number, result)
    assert [problem.rule for problem in one.problems] == [rule]
    assert says in one.problems[0].detail


def test_audit__true_claim_without_linked_checkpoints__was_rejected_rightly(past: Past) -> None:
    assert past.report.rounds[FOREIGN_SEED - 1].result is Result.TRUE


def test_audit__nothing_scored__says_nothing_of_verdicts(past: Past) -> None:
    report = audit(past.observer, AuditOptions("none"))
    assert report.exit_code == 0
    assert report.block_number == past.observer.arena.endpoint.block_number()


class Forgetful(Endpoint):
    """An endpoint that leaves out every log after one block."""

    last: int

    def send_many(
        self, method: str, calls: Sequence[Sequence[Any]], kind: Any, on_sent: Any = None
    ) -> Any:
        reading = super().send_many(method, calls, kind, on_sent)
        return lambda: [
            [log for log in answer if int(log.block_number, 16) <= self.last]
            for answer in reading()
        ]


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_audit__events_of_the_last_rounds_left_out__are_missed(
    past: Past, tmp_path: Path, rounds: int
) -> None:
    endpoint = Forgetful.connect(past.url)
    arena = past.observer.arena
    told = arena.events(0, arena.endpoint.block_number())
    closings = [event.block_number for event in told if isinstance(event, RoundClosed)]
    endpoint.last = [0, *closings][rounds]
    observer = replace(
        past.observer, arena=ArenaReader(endpoint, past.observer.arena.address), home=tmp_path
    )
    report = audit(observer, AuditOptions("none"))
    assert len(report.rounds) == rounds
    assert report.exit_code == 2
    assert "header" in [problem.rule for problem in report.problems]
    with pytest.raises(LedgerError, match="not true"):
        read_history(observer)


def test_audit__from_a_block_after_the_deployment__says_so_and_recovers(
    past: Past, tmp_path: Path
) -> None:
    later = past.observer.arena.endpoint.block_number() - 3
    observer = replace(past.observer, home=tmp_path, from_block=later)
    report = audit(observer, AuditOptions("none"))
    assert report.exit_code == 2
    assert report.problems[0].rule == "beginning"
    for earlier in (1, 0):
        assert audit(replace(observer, from_block=earlier), AuditOptions("none")).exit_code == 0
