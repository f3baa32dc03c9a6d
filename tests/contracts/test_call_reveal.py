"""reveal: opens one's own commitment, and nobody else's."""

from __future__ import annotations

import pytest
from scene import BOND, MIN_SCORE, MINER_BOND, REWARD, Scene

from pouw import hashing
from pouw.types import SCORE_ONE_PPM, Deadlines, EntryState, RoundNumber

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def times(arena: Scene) -> Deadlines:
    """The test set of round 1 is open; miner 0 committed, miner 1 copied that commitment."""
    times = arena.begin()
    miner, copycat = arena.cast.miners[:2]
    arena.commit(miner)
    arena.commit(copycat, commitment=arena.commitment(miner))
    arena.at(times.t1).open_test()
    return times


def test_reveal__own_commitment__counts(arena: Scene, times: Deadlines) -> None:
    miner = arena.cast.miners[0]
    before = arena.contract.entries(1, miner)
    receipt = arena.reveal(miner, 800_000)
    assert receipt.events == [
        arena.event(
            "Revealed",
            round=1,
            miner=miner.address,
            claimedScore=800_000,
            manifestDigest=arena.manifest(miner),
            salt=arena.salt(miner),
            signature=arena.signature(miner, 800_000),
        )
    ]
    entry = arena.contract.entries(1, miner)
    assert (entry.committedAt, entry.claim, entry.state) == (
        before.committedAt,
        800_000,
        EntryState.REVEALED,
    )
    assert entry.digest == arena.reveal_digest(miner, 800_000)
    assert arena.contract.rounds(1).reveals == 1
    assert arena.balance == REWARD + BOND + MINER_BOND


@pytest.mark.parametrize("claim", [MIN_SCORE, SCORE_ONE_PPM])
def test_reveal__claim_at_a_limit__counts(arena: Scene, times: Deadlines, claim: int) -> None:
    arena.reveal(arena.cast.miners[0], claim)
    assert arena.contract.entries(1, arena.cast.miners[0]).claim == claim


def test_reveal__claim_below_minimum__reverts(arena: Scene, times: Deadlines) -> None:
    with arena.reverts("ClaimTooLow", claimedScore=MIN_SCORE - 1, minScore=MIN_SCORE):
        arena.reveal(arena.cast.miners[0], MIN_SCORE - 1)


def test_reveal__claim_above_one__reverts(arena: Scene, times: Deadlines) -> None:
    with arena.reverts("InvalidScore", score=SCORE_ONE_PPM + 1):
        arena.reveal(arena.cast.miners[0], SCORE_ONE_PPM + 1)


def test_reveal__last_second__counts(arena: Scene, times: Deadlines) -> None:
    arena.at(times.t3 - 1).reveal(arena.cast.miners[0])
    assert arena.contract.rounds(1).reveals == 1


@pytest.mark.parametrize("late", [0, 1])
def test_reveal__window_over__reverts(arena: Scene, times: Deadlines, late: int) -> None:
    now = times.t3 + late
    with arena.at(now).reverts("TooLate", time=now, closed=times.t3):
        arena.reveal(arena.cast.miners[0])


@pytest.mark.parametrize("number", [0, 2])
def test_reveal__no_such_round__reverts(arena: Scene, times: Deadlines, number: int) -> None:
    with arena.reverts("TestNotOpen", round=number):
        arena.reveal(arena.cast.miners[0], round_number=number)


def test_reveal__nothing_committed__reverts(arena: Scene, times: Deadlines) -> None:
    miner = arena.cast.miners[2]
    with arena.reverts("NothingCommitted", round=1, miner=miner.address):
        arena.reveal(miner)


def test_reveal__twice__reverts(arena: Scene, times: Deadlines) -> None:
    miner = arena.cast.miners[0]
    arena.reveal(miner)
    with arena.reverts("NothingCommitted", round=1, miner=miner.address):
        arena.reveal(miner)


def test_reveal__copied_commitment__reverts(arena: Scene, times: Deadlines) -> None:
    """The copycat has the word and, after the reveal, all that went into it but the address."""
    miner, copycat = arena.cast.miners[:2]
    arena.reveal(miner)
    computed = hashing.commitment(
        1337,
        arena.contract.address,
        RoundNumber(1),
        copycat.address,
        arena.manifest(miner),
        arena.salt(miner),
    )
    with arena.reverts("CommitmentMismatch", computed=computed):
        arena.reveal(
            copycat,
            manifest=arena.manifest(miner),
            salt=arena.salt(miner),
            signature=arena.signature(miner, 800_000),
        )


@pytest.mark.parametrize("part", ["manifest", "salt"])
def test_reveal__other_manifest_or_salt__reverts(arena: Scene, times: Deadlines, part: str) -> None:
    miner = arena.cast.miners[0]
    changed = {"manifest": arena.manifest(miner), "salt": arena.salt(miner), part: b"\x05" * 32}
    computed = hashing.commitment(
        1337,
        arena.contract.address,
        RoundNumber(1),
        miner.address,
        changed["manifest"],
        changed["salt"],
    )
    with arena.reverts("CommitmentMismatch", computed=computed):
        arena.reveal(miner, **changed)


def test_reveal__overwritten_commitment__reverts(arena: Scene) -> None:
    times = arena.begin()
    miner = arena.cast.miners[0]
    number = int(arena.contract.arena().rounds)
    arena.commit(miner, number)
    arena.commit(miner, number, commitment=b"\x09" * 32)
    arena.at(times.t1).open_test()
    computed = arena.commitment(miner, number)
    with arena.reverts("CommitmentMismatch", computed=computed):
        arena.reveal(miner, round_number=number)


def test_reveal__signature_of_another__reverts(arena: Scene, times: Deadlines) -> None:
    miner, other = arena.cast.miners[0], arena.cast.miners[2]
    forged = arena.signature(other, 800_000)
    with arena.reverts("InvalidSignature", miner=miner.address):
        arena.reveal(miner, signature=forged)


@pytest.mark.parametrize("claim", [799_999, 800_001])
def test_reveal__signature_of_another_claim__reverts(
    arena: Scene, times: Deadlines, claim: int
) -> None:
    miner = arena.cast.miners[0]
    with arena.reverts("InvalidSignature", miner=miner.address):
        arena.reveal(miner, 800_000, signature=arena.signature(miner, claim))


def test_reveal__signature_of_another_round_or_arena__reverts(
    arena: Scene, times: Deadlines
) -> None:
    miner = arena.cast.miners[0]
    with arena.reverts("InvalidSignature", miner=miner.address):
        arena.reveal(miner, signature=arena.signature(miner, 800_000, 2))
    other = Scene.deploy(arena.cast, arena.parameters)
    with arena.reverts("InvalidSignature", miner=miner.address):
        arena.reveal(miner, signature=other.signature(miner, 800_000))


def test_reveal__malleated_or_misshapen_signature__reverts(arena: Scene, times: Deadlines) -> None:
    """High s, a compact 64-byte one, v of 0 or 1, an empty one: one reveal has one signature."""
    miner = arena.cast.miners[0]
    good = arena.signature(miner, 800_000)
    r, s, v = good[:32], int.from_bytes(good[32:64], "big"), good[64]
    bad = [
        r + (ORDER - s).to_bytes(32, "big") + bytes([55 - v]),
        good[:64],
        good[:64] + bytes([v - 27]),
        good + b"\x00",
        b"",
    ]
    for signature in bad:
        with arena.reverts("InvalidSignature", miner=miner.address):
            arena.reveal(miner, signature=signature)


@pytest.mark.parametrize("sent", [0, MINER_BOND - 1, MINER_BOND + 1])
def test_reveal__other_than_the_bond__reverts(arena: Scene, times: Deadlines, sent: int) -> None:
    with arena.reverts("WrongPayment", sent=sent, expected=MINER_BOND):
        arena.reveal(arena.cast.miners[0], value=sent)


def test_reveal__test_not_open__reverts(arena: Scene) -> None:
    """Until the publisher opens the test set nobody shows a model."""
    fresh = Scene.deploy(arena.cast, arena.parameters)
    times = fresh.begin()
    fresh.commit(arena.cast.miners[0])
    with fresh.at(times.t1).reverts("TestNotOpen", round=1):
        fresh.reveal(arena.cast.miners[0])
