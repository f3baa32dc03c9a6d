"""One arena and one account: calls named after Solidity, money computed from the parameters."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any, Final

from eth_abi import encode
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32

from pouw import hashing
from pouw.chain.abi import artifact
from pouw.chain.carrier import Receipt
from pouw.chain.logs import decode_logs
from pouw.chain.outgoing import Outbox, Policy
from pouw.chain.reading import ArenaReader, checked_arena
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import SYNC_GAS, Call, Sender, call
from pouw.errors import ChainError
from pouw.events import TaskPublished
from pouw.types import ZERO_ADDRESS, Address, Parameters, RoundNumber, TaskId, Verdict

_ALLOWANCE: Final = bytes.fromhex("dd62ed3e")  # allowance(address,address)
_APPROVE: Final = bytes.fromhex("095ea7b3")  # approve(address,uint256)
_MAY_SYNC: Final = frozenset(
    {"publish", "topUp", "cancel", "releaseDataKey", "openTest", "finalize", "sync"}
)


class ArenaClient(ArenaReader):
    """An arena and an account: every call waits for its receipt and raises what went wrong."""

    def __init__(self, sender: Sender, address: Address) -> None:
        super().__init__(sender.endpoint, address)
        self.sender = sender

    @classmethod
    def connect(
        cls,
        rpc_url: str,
        address: str,
        account: LocalAccount,
        *,
        outbox: Outbox | None = None,
        policy: Policy | None = None,
    ) -> ArenaClient:
        """The arena at ``address``; ConfigError where there is no contract."""
        endpoint = Endpoint.connect(rpc_url)
        arena = checked_arena(endpoint, address)
        return cls(Sender(endpoint, account, outbox, policy or Policy()), arena)

    def prepared(self, name: str, *arguments: Any, money: int = 0) -> Call:
        """The call of a Solidity function, ready for `Sender`; ``money`` is what it brings.

        In an arena whose asset is a token no ether goes along: see `approve`.
        """
        value = money if self.parameters().asset == ZERO_ADDRESS else 0
        spare = {"spare_gas": SYNC_GAS} if name in _MAY_SYNC else {}
        data = artifact().functions[name].encode(*arguments)
        return Call(name, self.address, data, value, **spare)

    def approve(self, money: int) -> Receipt | None:
        """Allow the arena to take ``money`` of its token; None where nothing had to be done."""
        token = self.parameters().asset
        if token == ZERO_ADDRESS or money == 0:
            return None
        pair = encode(["address", "address"], [self.sender.address, self.address])
        output = call(self.endpoint, {"to": token, "data": "0x" + (_ALLOWANCE + pair).hex()})
        if int.from_bytes(output[:32], "big") >= money:
            return None
        data = _APPROVE + encode(["address", "uint256"], [self.address, money])
        return self.sender.transact(Call("approve", token, data))

    def _transact(self, name: str, *arguments: Any, money: int = 0) -> Receipt:
        self.approve(money)
        return self.sender.transact(self.prepared(name, *arguments, money=money))

    def publish(
        self,
        spec_digest: bytes,
        key_hash: bytes,
        min_score: int,
        reward: int,
        *,
        first: bool = False,
    ) -> TaskId:
        """Publish a task: escrow reward and publisher's bond; returns its id."""
        money = reward + self.parameters().bond_of(reward)
        hint = self.hint_for(reward, "pending")
        receipt = self._transact(
            "publish", spec_digest, key_hash, min_score, first, reward, hint, money=money
        )
        return self.published_in(receipt)

    def published_in(self, receipt: Receipt) -> TaskId:
        """The id of the task that a transaction published."""
        wrong = self.endpoint.malformed("eth_getTransactionReceipt")
        for event in decode_logs(receipt.logs, self.address, wrong):
            if isinstance(event, TaskPublished):
                return event.task_id
        raise wrong

    def top_up(self, task_id: TaskId, amount: int) -> Receipt:
        """Raise a pooled task's reward, and the bond with it."""
        before = self.task(task_id, "pending").reward
        parameters = self.parameters()
        growth = parameters.bond_of(before + amount) - parameters.bond_of(before)
        hint = self.hint_for(before + amount, "pending")
        return self._transact("topUp", task_id, amount, hint, money=amount + growth)

    def cancel(self, task_id: TaskId) -> Receipt:
        """Take a pooled task back; its money becomes a credit."""
        return self._transact("cancel", task_id)

    def release_data_key(self, data_key: bytes) -> Receipt:
        """Release the selected task's data key: its round begins."""
        return self._transact("releaseDataKey", data_key)

    def commit(self, number: RoundNumber, commitment: bytes) -> Receipt:
        """Commit, or overwrite the commitment."""
        return self._transact("commit", number, commitment)

    def open_test(self, test_key: bytes) -> Receipt:
        """Open the live round's test set."""
        return self._transact("openTest", test_key)

    def reveal(
        self, number: RoundNumber, manifest_digest: bytes, claimed_score: int, salt: bytes
    ) -> Receipt:
        """Open a commitment: claim a score (ppm), sign the claim, leave the miner's bond."""
        return self._transact(
            "reveal",
            number,
            manifest_digest,
            claimed_score,
            salt,
            self.signed_reveal(number, manifest_digest, claimed_score),
            money=self.parameters().miner_bond,
        )

    def signed_reveal(
        self, number: RoundNumber, manifest_digest: bytes, claimed_score: int
    ) -> bytes:
        """The account's EIP-712 signature of a reveal, 65 bytes."""
        domain = hashing.domain_separator(self.chain_id, self.address)
        digest = hashing.reveal_hash(
            domain, number, self.sender.address, manifest_digest, claimed_score
        )
        return bytes(self.sender.account.unsafe_sign_hash(Hash32(digest)).signature)

    def report(
        self, number: RoundNumber, verdict: Verdict, winner: Address, evidence_digest: bytes
    ) -> Receipt:
        """Vote on the outcome."""
        return self._transact("report", number, int(verdict), winner, evidence_digest)

    def challenge(self, number: RoundNumber) -> Receipt:
        """Challenge the outcome; leaves the challenge bond."""
        return self._transact("challenge", number, money=self.parameters().challenge_bond)

    def rule(
        self, number: RoundNumber, verdict: Verdict, winner: Address, evidence_digest: bytes
    ) -> Receipt:
        """Rule on a challenge."""
        return self._transact("rule", number, int(verdict), winner, evidence_digest)

    def finalize(self) -> Receipt:
        """Close the live round once it is decided."""
        return self._transact("finalize")

    def sync(self) -> Receipt:
        """Settle the pool: drop what is overdue, select the next task."""
        return self._transact("sync")

    def reclaim(self, number: RoundNumber, miner: Address) -> Receipt:
        """Credit a revealer's bond, or burn it."""
        return self._transact("reclaim", number, miner)

    def withdraw(self, to: Address | None = None) -> Receipt:
        """Take the account's whole credit, to itself by default."""
        return self._transact("withdraw", to or self.sender.address)


def deploy(sender: Sender, parameters: Parameters) -> ArenaClient:
    """Deploy an arena from the package's artifact; Reverted where the parameters make no sense."""
    contract = artifact()
    data = contract.bytecode + encode(contract.constructor, [astuple(parameters)])
    receipt = sender.transact(Call("deployment", None, data))
    if receipt.created is None:
        raise ChainError("the deployment left no contract")
    return ArenaClient(sender, receipt.created)
