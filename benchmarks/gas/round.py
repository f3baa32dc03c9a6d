"""One round of many miners, from its publication to the last bond."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32

from benchmarks.gas.anvil import Chain
from benchmarks.gas.stage import (
    MINER_BOND_WEI,
    PHASE1_SECONDS,
    PHASE2_SECONDS,
    REWARD_WEI,
    TEST_KEY,
    WINDOW_SECONDS,
    Stage,
)
from pouw import hashing
from pouw.types import ZERO_ADDRESS, Address, RoundNumber, Verdict

EVIDENCE_DIGEST: Final = hashing.sha256(b"evidence")
_ROUND: Final = RoundNumber(1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a round ended: whom it names, and what everybody can withdraw."""

    verdict: Verdict
    winner: str
    reveals: int
    credits_wei: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Miner:
    """A miner's account and what it opens its commitment with."""

    account: LocalAccount
    manifest_digest: bytes
    salt: bytes

    @property
    def address(self) -> Address:
        return Address(self.account.address)


def _miners(chain: Chain, count: int) -> list[_Miner]:
    miners = []
    for i in range(count):
        account = Account.from_key(hashing.keccak(b"miner %d" % i))
        chain.make_rich(account.address)
        digest = hashing.sha256(b"manifest %d" % i)
        miners.append(_Miner(account, digest, hashing.keccak(b"salt %d" % i)))
    return miners


def play_round(stage: Stage, count: int) -> Outcome:
    """Publish, then a whole round of ``count`` miners, from release to the last reclaim.

    Miner 0 claims most and falsely: it loses its bond, and miner 1 wins. ``stage.gas`` gets the
    round without its publication as ``round``.
    """
    chain, miners = stage.chain, _miners(stage.chain, count)
    # The first publication ever pays for slots that no later one does.
    stage.publish("first publication", REWARD_WEI, 0)
    selected_at = stage.arena.call("arena")[3]
    stage.publish("second publication", REWARD_WEI, 0)
    stage.publish("publish", REWARD_WEI, 2)

    chain.at(selected_at + PHASE2_SECONDS)
    data_key = hashing.data_key_of(TEST_KEY)
    release = stage.send("release data key", stage.publisher, "releaseDataKey", data_key)
    t1 = release.timestamp + PHASE1_SECONDS
    spent = release.gas + _commit(stage, miners)
    chain.at(t1)
    opening = stage.send("open test and select", stage.publisher, "openTest", TEST_KEY)
    spent += opening.gas + _reveal(stage, miners)
    spent += _decide(stage, miners[1].address, t1)
    for miner in miners:
        spent += stage.send("reclaim", stage.anybody, "reclaim", _ROUND, miner.address).gas
    stage.gas["round"] = spent
    return _outcome(stage, miners)


def _commit(stage: Stage, miners: list[_Miner]) -> int:
    spent = 0
    for miner in miners:
        word = hashing.commitment(
            stage.chain.id,
            stage.arena.address,
            _ROUND,
            miner.address,
            miner.manifest_digest,
            miner.salt,
        )
        spent += stage.send("commit", miner.address, "commit", _ROUND, word).gas
    # Overwritten by its last miner with the same word, which leaves its rank to the round.
    stage.send("overwrite", miner.address, "commit", _ROUND, word)
    return spent


def _reveal(stage: Stage, miners: list[_Miner]) -> int:
    spent = 0
    domain = hashing.domain_separator(stage.chain.id, stage.arena.address)
    for place, miner in enumerate(miners):
        claim_ppm = 900_000 - place
        digest = hashing.reveal_hash(
            domain, _ROUND, miner.address, miner.manifest_digest, claim_ppm
        )
        signature = bytes(miner.account.unsafe_sign_hash(Hash32(digest)).signature)
        words = (_ROUND, miner.manifest_digest, claim_ppm, miner.salt, signature)
        spent += stage.send("reveal", miner.address, "reveal", *words, value=MINER_BOND_WEI).gas
    return spent


def _decide(stage: Stage, winner: str, t1: int) -> int:
    spent = 0
    stage.chain.at(t1 + 2 * WINDOW_SECONDS)
    vote = (_ROUND, int(Verdict.WINNER), winner, EVIDENCE_DIGEST)
    for name, oracle in zip(("first vote", "deciding vote"), stage.oracles, strict=False):
        spent += stage.send(name, oracle, "report", *vote).gas
    stage.chain.at(t1 + 4 * WINDOW_SECONDS)
    spent += stage.send("finalize", stage.anybody, "finalize").gas
    stage.gas["two votes and finalize"] = spent
    return spent


def _outcome(stage: Stage, miners: list[_Miner]) -> Outcome:
    r = stage.arena.call("rounds", _ROUND)
    everybody = [ZERO_ADDRESS, stage.publisher, *stage.oracles, *[m.address for m in miners]]
    credits_wei = {account: stage.arena.call("credits", account) for account in everybody}
    return Outcome(verdict=Verdict(r[7]), winner=r[10], reveals=r[2], credits_wei=credits_wei)
