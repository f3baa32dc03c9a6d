"""An arena with one task, whose round is played at once, with any claims and any verdict."""

from __future__ import annotations

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.hashing import data_key_of, key_hash_of
from pouw.types import ZERO_ADDRESS, Address, Parameters, RoundNumber, TaskId, Verdict

ETHER = 10**18
TEST_KEY, SALT = b"\x07" * 32, b"\x04" * 32
PUBLISHER, ORACLE, WINNER, LATER, LIAR, IDLE = range(6)
PARAMETERS = Parameters(
    asset=ZERO_ADDRESS,
    phase1=600,
    key_window=100,
    reveal_window=100,
    report_window=100,
    challenge_window=0,
    ruling_window=0,
    min_reward=1,
    publisher_bond_bps=1_000,
    oracle_fee_bps=500,
    miner_bond=1,
    challenge_bond=1,
    oracles=(Address(dev_account(ORACLE).address),),
    threshold=1,
    arbiter=ZERO_ADDRESS,
)
TASK, ROUND = TaskId(1), RoundNumber(1)


class Stage:
    """One task of half an ether, and whoever takes part in its round."""

    def __init__(self, endpoint: Endpoint, spec_digest: bytes = b"d" * 32) -> None:
        self.endpoint = endpoint
        self.arena = deploy(Sender(endpoint, dev_account(PUBLISHER)), PARAMETERS)
        self.clients = [
            ArenaClient(Sender(endpoint, dev_account(who)), self.arena.address) for who in range(6)
        ]
        self.clients[PUBLISHER].publish(spec_digest, key_hash_of(TEST_KEY), 1, ETHER // 2)

    def address(self, who: int) -> Address:
        return self.clients[who].sender.address

    def wait(self, seconds: int) -> None:
        self.endpoint.request("evm_increaseTime", seconds)
        self.endpoint.request("evm_mine")

    def play(
        self,
        claims: dict[int, int | None],
        verdict: Verdict,
        *,
        opened: bool = True,
        manifest: bytes = b"m" * 32,
    ) -> None:
        """The round with these claims (None: committed only), and the committee's verdict."""
        publisher = self.clients[PUBLISHER]
        self.wait(PARAMETERS.phase2)
        publisher.release_data_key(data_key_of(TEST_KEY))
        for who in claims:
            one = self.clients[who]
            one.commit(ROUND, one.commitment_of(ROUND, self.address(who), manifest, SALT))
        self.wait(PARAMETERS.phase1)
        if opened:
            publisher.open_test(TEST_KEY)
        for who, claim in claims.items():
            if claim is not None and opened:
                self.clients[who].reveal(ROUND, manifest, claim, SALT)
        self.wait(PARAMETERS.key_window + PARAMETERS.reveal_window)
        if verdict is not Verdict.NONE:
            winner = self.address(WINNER) if verdict is Verdict.WINNER else ZERO_ADDRESS
            self.clients[ORACLE].report(ROUND, verdict, winner, b"e" * 32)
        self.wait(PARAMETERS.report_window)
        publisher.finalize()
