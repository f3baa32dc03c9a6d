"""The document behind a vote fits, whatever was revealed."""

from __future__ import annotations

from pouw.documents import CaseCounts, Evidence, Replay, SegmentReplay
from pouw.events import Revealed
from pouw.hashing import MAX_DOCUMENT_BYTES, canonical_json
from pouw.roles.evidence import Judgement, build_evidence, judged_score
from pouw.types import ZERO_ADDRESS, ZERO_WORD, Address, RoundNumber, Task, TaskId, Verdict

ROUND = RoundNumber(1)
TASK = Task(
    task_id=TaskId(1),
    publisher=ZERO_ADDRESS,
    min_score=1,
    round=ROUND,
    pooled=False,
    first=False,
    reward=1,
    above=TaskId(0),
    below=TaskId(0),
    spec_digest=ZERO_WORD,
    key_hash=ZERO_WORD,
)


def revealed(number: int) -> Revealed:
    return Revealed(
        block_number=1,
        block_hash=ZERO_WORD,
        log_index=number,
        transaction_hash=ZERO_WORD,
        round=ROUND,
        miner=Address(f"0x{number:040x}"),
        claimed_score=900_000,
        manifest_digest=number.to_bytes(32, "big"),
        salt=ZERO_WORD,
        signature=bytes(65),
    )


def built(false_claims: int, cases: int, below: int) -> Evidence:
    counts = tuple(
        CaseCounts(name=f"case {number}", failed=False, counts=((10**9, 10**9, 10**9),) * 4)
        for number in range(cases)
    )
    judged = [
        judged_score(revealed(number), 800_000, "score", "é" * 4096, counts)
        for number in range(false_claims)
    ]
    judged.append(judged_score(revealed(false_claims), 900_000, "score", "", counts))
    skipped = tuple(revealed(number) for number in range(false_claims + 1, false_claims + below))
    outcome = Judgement(Verdict.WINNER, judged[-1].miner, tuple(judged), skipped, "")
    evidence = build_evidence(ROUND, TASK, ZERO_ADDRESS, outcome)
    assert len(evidence.encode()) <= MAX_DOCUMENT_BYTES
    assert Evidence.parse(evidence.encode()) == evidence
    assert evidence.judged[-1].miner == judged[-1].miner
    assert len(evidence.judged) + evidence.judged_more == len(judged)
    assert len(evidence.skipped) + evidence.skipped_more == len(skipped)
    return evidence


def test_build_evidence__little__holds_everything() -> None:
    evidence = built(false_claims=3, cases=20, below=3)
    assert (evidence.judged_more, evidence.skipped_more) == (0, 0)
    assert all(len(one.cases) == 20 for one in evidence.judged)


def test_build_evidence__many_false_claims_over_many_cases__leaves_counts_out_from_the_lowest() -> (
    None
):
    evidence = built(false_claims=30, cases=300, below=0)
    kept = [bool(one.cases) for one in evidence.judged]
    assert kept[0]
    assert kept[-1]
    assert kept[:-1] == sorted(kept[:-1], reverse=True)
    assert not all(kept)
    assert evidence.judged_more == 0


def test_build_evidence__a_flood_of_reveals__is_counted_and_still_fits() -> None:
    evidence = built(false_claims=900, cases=2, below=2_000)
    assert evidence.judged_more > 0
    assert evidence.skipped_more > 0


def test_build_evidence__a_test_set_beyond_a_document__goes_without_counts() -> None:
    evidence = built(false_claims=1, cases=5_000, below=1)
    assert evidence.judged[-1].score_ppm == 900_000
    assert not evidence.judged[-1].cases


def test_build_evidence__largest_that_specs_and_reveals_allow__fits() -> None:
    """Letters of four bytes, or of two because JSON escapes them, wherever a stranger may write."""
    for letter in ("\U0001f9e0", '"', "\\"):
        text = letter * 4096
        counts = tuple(
            CaseCounts(name=f"case {number}", failed=False, counts=((2**53,) * 3,) * 255)
            for number in range(20)
        )
        assert len(canonical_json([one.model_dump() for one in counts])) > 250_000
        judged = [
            judged_score(revealed(number), 800_000, "score", text, ()) for number in range(900)
        ]
        judged.append(judged_score(revealed(900), 900_000, "score", text, counts))
        skipped = tuple(revealed(number) for number in range(901, 2_000))
        segment = SegmentReplay(
            begin_step=2**53,
            end_step=2**53,
            outcome="undecided",
            layer=text,
            deviation_ppb=2**53,
            detail=text,
            milliseconds=2**53,
        )
        replay = Replay(
            miner=judged[-1].miner,
            manifest=judged[-1].manifest,
            same_profile=False,
            checkpoints=2_048,
            segments=(segment,) * 64,
            detail=text,
            software=text,
            device=text,
        )
        outcome = Judgement(Verdict.WINNER, judged[-1].miner, tuple(judged), skipped, text)
        evidence = build_evidence(ROUND, TASK, ZERO_ADDRESS, outcome, (replay,))
        assert Evidence.parse(evidence.encode()) == evidence
        assert evidence.judged[-1].cases == counts
        assert len(evidence.provenance[0].segments) == 64
