"""One arena with its actors, and every call as one line.

A Scene keeps no state of its own: keys, salts, manifests and signatures follow from who acts in
which round, so that tests may run on restored snapshots of the chain. ``at(time)`` fixes the
timestamp of the next block; every further transaction is one second later.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from typing import Any

import ape
from eth_keys import keys

from pouw import hashing
from pouw.types import (
    ZERO_ADDRESS,
    Address,
    Deadlines,
    Parameters,
    RoundNumber,
    Verdict,
)

TEST_KEY = hashing.keccak(b"the publisher's secret")
DATA_KEY = hashing.data_key_of(TEST_KEY)
KEY_HASH = hashing.key_hash_of(TEST_KEY)
SPEC = hashing.sha256(b"spec")
EVIDENCE = hashing.sha256(b"evidence")

REWARD = 100_003
BOND = 10_000  # a tenth, rounded down
FEE = 5_000  # a twentieth, rounded down
MINER_BOND = 50
CHALLENGE_BOND = 70
MIN_SCORE = 500_000


@dataclass(frozen=True)
class Cast:
    """Accounts by the part they play."""

    publisher: Any
    rival: Any
    miners: tuple[Any, ...]
    oracles: tuple[Any, ...]
    arbiter: Any
    stranger: Any

    @classmethod
    def of(cls, accounts: Any) -> Cast:
        ordered = sorted((accounts[i] for i in range(6)), key=lambda a: int(a.address, 16))
        return cls(
            accounts[6],
            accounts[7],
            tuple(ordered),
            tuple(accounts[8:11]),
            accounts[11],
            accounts[12],
        )


def parameters_of(cast: Cast, **changes: Any) -> Parameters:
    """Windows of distinct lengths, three oracles of whom two decide, an arbiter."""
    usual = Parameters(
        asset=ZERO_ADDRESS,
        phase1=1_000,
        key_window=100,
        reveal_window=200,
        report_window=300,
        challenge_window=400,
        ruling_window=500,
        min_reward=1_000,
        publisher_bond_bps=1_000,
        oracle_fee_bps=500,
        miner_bond=MINER_BOND,
        challenge_bond=CHALLENGE_BOND,
        oracles=tuple(Address(oracle.address) for oracle in cast.oracles),
        threshold=2,
        arbiter=Address(cast.arbiter.address),
    )
    return replace(usual, **changes)


def without_arbiter(cast: Cast, **changes: Any) -> Parameters:
    """The usual parameters of an arena where nobody can challenge."""
    none = {"arbiter": ZERO_ADDRESS, "challenge_window": 0, "ruling_window": 0}
    return parameters_of(cast, **{**none, **changes})


class Scene:
    """An arena under test, its actors and its clock."""

    def __init__(self, contract: Any, cast: Cast, parameters: Parameters) -> None:
        self.contract = contract
        self.cast = cast
        self.parameters = parameters
        self.token: Any = None
        self._only_call = False

    @classmethod
    def deploy(cls, cast: Cast, parameters: Parameters) -> Scene:
        container = ape.project.PoUW
        return cls(container.deploy(astuple(parameters), sender=cast.stranger), cast, parameters)

    # the clock

    @property
    def now(self) -> int:
        """Timestamp of the next block."""
        return int(ape.chain.pending_timestamp)

    def at(self, time: int) -> Scene:
        """The next block is closed at ``time``."""
        if time != self.now:
            ape.chain.pending_timestamp = time
        return self

    # what follows from who acts

    def manifest(self, miner: Any, round_number: int = 1) -> bytes:
        return hashing.sha256(f"manifest {miner.address} {round_number}".encode())

    def salt(self, miner: Any, round_number: int = 1) -> bytes:
        return hashing.keccak(f"salt {miner.address} {round_number}".encode())

    def commitment(self, miner: Any, round_number: int = 1) -> bytes:
        return hashing.commitment(
            ape.chain.chain_id,
            self.contract.address,
            RoundNumber(round_number),
            miner.address,
            self.manifest(miner, round_number),
            self.salt(miner, round_number),
        )

    def signature(self, miner: Any, claim: int, round_number: int = 1) -> bytes:
        digest = hashing.reveal_hash(
            hashing.domain_separator(ape.chain.chain_id, self.contract.address),
            RoundNumber(round_number),
            miner.address,
            self.manifest(miner, round_number),
            claim,
        )
        signed = keys.PrivateKey(bytes.fromhex(miner.private_key[2:])).sign_msg_hash(digest)
        return signed.to_bytes()[:64] + bytes([signed.v + 27])

    def reveal_digest(self, miner: Any, claim: int, round_number: int = 1) -> bytes:
        return hashing.reveal_digest(
            self.manifest(miner, round_number), self.signature(miner, claim, round_number)
        )

    # calls

    def _send(self, method: str, *arguments: Any, sender: Any, value: int = 0) -> Any:
        function = getattr(self.contract, method)
        if self.token is not None and value:
            if not self._only_call:
                self.token.mint(sender, value, sender=sender)
                self.token.approve(self.contract, value, sender=sender)
            value = 0
        if self._only_call:
            return function.call(*arguments, sender=sender, value=value, block_id="pending")
        return function(*arguments, sender=sender, value=value)

    def publish(
        self,
        reward: int = REWARD,
        *,
        sender: Any = None,
        value: int | None = None,
        spec: bytes = SPEC,
        min_score: int = MIN_SCORE,
        first: bool = False,
        hint: int = 0,
    ) -> Any:
        due = reward + self.parameters.bond_of(reward)
        return self._send(
            "publish",
            spec,
            KEY_HASH,
            min_score,
            first,
            reward,
            hint,
            sender=sender or self.cast.publisher,
            value=due if value is None else value,
        )

    def release_data_key(self, key: bytes = DATA_KEY, *, sender: Any = None) -> Any:
        return self._send("releaseDataKey", key, sender=sender or self.cast.publisher)

    def commit(self, miner: Any, round_number: int = 1, *, commitment: bytes | None = None) -> Any:
        word = self.commitment(miner, round_number) if commitment is None else commitment
        return self._send("commit", round_number, word, sender=miner)

    def open_test(self, key: bytes = TEST_KEY, *, sender: Any = None) -> Any:
        return self._send("openTest", key, sender=sender or self.cast.publisher)

    def reveal(
        self,
        miner: Any,
        claim: int = 800_000,
        round_number: int = 1,
        *,
        manifest: bytes | None = None,
        salt: bytes | None = None,
        signature: bytes | None = None,
        value: int | None = None,
    ) -> Any:
        return self._send(
            "reveal",
            round_number,
            self.manifest(miner, round_number) if manifest is None else manifest,
            claim,
            self.salt(miner, round_number) if salt is None else salt,
            self.signature(miner, claim, round_number) if signature is None else signature,
            sender=miner,
            value=self.parameters.miner_bond if value is None else value,
        )

    def report(
        self,
        oracle: Any,
        verdict: Verdict,
        winner: Any = None,
        round_number: int = 1,
        *,
        evidence: bytes = EVIDENCE,
    ) -> Any:
        named = ZERO_ADDRESS if winner is None else winner
        return self._send("report", round_number, int(verdict), named, evidence, sender=oracle)

    def challenge(self, challenger: Any, round_number: int = 1, *, value: int | None = None) -> Any:
        due = self.parameters.challenge_bond
        return self._send(
            "challenge", round_number, sender=challenger, value=due if value is None else value
        )

    def rule(
        self,
        verdict: Verdict,
        winner: Any = None,
        round_number: int = 1,
        *,
        evidence: bytes = EVIDENCE,
        sender: Any = None,
    ) -> Any:
        named = ZERO_ADDRESS if winner is None else winner
        return self._send(
            "rule", round_number, int(verdict), named, evidence, sender=sender or self.cast.arbiter
        )

    def finalize(self, *, sender: Any = None) -> Any:
        return self._send("finalize", sender=sender or self.cast.stranger)

    def sync(self, *, sender: Any = None) -> Any:
        return self._send("sync", sender=sender or self.cast.stranger)

    def top_up(
        self,
        task_id: int,
        amount: int,
        *,
        sender: Any = None,
        value: int | None = None,
        hint: int = 0,
    ) -> Any:
        due = 0
        if value is None:
            before = self.contract.tasks(task_id).reward
            bond_of = self.parameters.bond_of
            due = amount + bond_of(before + amount) - bond_of(before)
        return self._send(
            "topUp",
            task_id,
            amount,
            hint,
            sender=sender or self.cast.publisher,
            value=due if value is None else value,
        )

    def cancel(self, task_id: int, *, sender: Any = None) -> Any:
        return self._send("cancel", task_id, sender=sender or self.cast.publisher)

    def reclaim(self, miner: Any, round_number: int = 1, *, sender: Any = None) -> Any:
        return self._send("reclaim", round_number, miner, sender=sender or self.cast.stranger)

    def withdraw(self, creditor: Any, to: Any = None) -> Any:
        return self._send("withdraw", creditor if to is None else to, sender=creditor)

    # longer ways

    def begin(self, **task: Any) -> Deadlines:
        """Publish into the idle arena and release the data key; the round's deadlines."""
        selected_at = self.publish(**task).timestamp
        return self.begin_selected(selected_at)

    def begin_selected(self, selected_at: int) -> Deadlines:
        """Release the data key of the task that was selected then."""
        self.at(selected_at + self.parameters.phase2)
        return Deadlines.of(self.release_data_key().timestamp, self.parameters)

    def reveals(self, times: Deadlines, claims: dict[Any, int], round_number: int = 1) -> None:
        """Commit in the order given, open the test set, reveal."""
        for miner in claims:
            self.commit(miner, round_number)
        self.at(times.t1).open_test()
        for miner, claim in claims.items():
            self.reveal(miner, claim, round_number)

    def reports(
        self, times: Deadlines, verdict: Verdict, winner: Any = None, *, voters: int = 2
    ) -> None:
        """The first ``voters`` oracles agree."""
        self.at(times.t3)
        for oracle in self.cast.oracles[:voters]:
            self.report(oracle, verdict, winner)

    # what is asserted

    @contextmanager
    def reverts(self, error: str, **inputs: Any) -> Iterator[None]:
        """The calls inside revert with exactly this custom error.

        They are asked of the pending block, not sent: ape finds a failed transaction's error by
        playing it again a block later, when a window may have opened.
        """
        kind = getattr(self.contract, error)
        assert {item.name for item in kind.abi.inputs} == set(inputs), "name every value"
        self._only_call = True
        try:
            with ape.reverts(kind, **inputs):
                yield
        finally:
            self._only_call = False

    def event(self, name: str, **arguments: Any) -> Any:
        """An expected event with all its fields."""
        kind = getattr(self.contract, name)
        assert {item.name for item in kind.abi.inputs} == set(arguments), "name every field"
        return kind(**arguments)

    def credited(self, account: Any, amount: int) -> Any:
        """An expected credit; ``None`` as account: burned."""
        return self.event(
            "Credited", account=ZERO_ADDRESS if account is None else account.address, amount=amount
        )

    @property
    def balance(self) -> int:
        """What the contract holds of its asset."""
        if self.token is not None:
            return int(self.token.balanceOf(self.contract))
        return int(self.contract.balance)

    def pool(self) -> list[int]:
        return [int(task_id) for task_id in self.contract.pool(0, 1_000)]


def events_of(receipt: Any, scene: Scene) -> list[Any]:
    """The arena's own events in a receipt (a token's are left out)."""
    return [event for event in receipt.events if event.contract_address == scene.contract.address]
