"""The cast of the story: real roles on a real chain, each with a home of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eth_account import Account
from eth_account.signers.local import LocalAccount

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Call, Sender
from pouw.journal import Journal
from pouw.ml.brain import brain_proposal, write_brain_set
from pouw.roles.base import Notice, Observer, Setup
from pouw.roles.miner import Miner, MinerOptions
from pouw.roles.oracle import Oracle, OracleOptions
from pouw.roles.publisher import Publisher, PublishRequest
from pouw.roles.view import View, read_view
from pouw.storage.local import LocalStore
from pouw.storage.store import Store
from pouw.types import ZERO_ADDRESS, Address, Parameters, RoundNumber, TaskId

ETHER = 10**18
REWARD = 10 * ETHER
MINER_BOND = ETHER // 10


@dataclass
class Player:
    """An account with its client, home and journal."""

    setup: Setup
    notices: list[Notice] = field(default_factory=list)

    @property
    def address(self) -> Address:
        return self.setup.arena.sender.address

    @property
    def arena(self) -> ArenaClient:
        return self.setup.arena


class OverClaimer(Miner):
    """Claims far more than it measured."""

    def claim_of(self, measured_ppm: int) -> int:
        return 990_000


class Theatre:
    """One arena on one chain, and everybody in it."""

    oracle_names: tuple[str, ...] = ("oracle-a", "oracle-b", "oracle-c")

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.store = LocalStore(folder / "store")
        self.endpoint = Endpoint.connect(url)
        self.faucet = Sender(self.endpoint, dev_account(0))
        self._accounts: dict[str, LocalAccount] = {}
        self.parameters = Parameters(
            asset=ZERO_ADDRESS,
            phase1=600,
            key_window=100,
            reveal_window=600,
            report_window=600,
            challenge_window=0,
            ruling_window=0,
            min_reward=1,
            publisher_bond_bps=1_000,
            oracle_fee_bps=500,
            miner_bond=MINER_BOND,
            challenge_bond=ETHER,
            oracles=tuple(Address(self.account(name).address) for name in self.oracle_names),
            threshold=2,
            arbiter=ZERO_ADDRESS,
        )
        arena = deploy(self.faucet, self.parameters)
        self.address = arena.address
        self.arena = arena

    def account(self, name: str) -> LocalAccount:
        """A funded account; the same for the same name."""
        if name not in self._accounts:
            account: LocalAccount = Account.create()
            self.faucet.transact(Call(f"fund {name}", Address(account.address), b"", 100 * ETHER))
            self._accounts[name] = account
        return self._accounts[name]

    def player(self, name: str) -> Player:
        """A player; asked for again, one that lost all memory but its home."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        notices: list[Notice] = []
        client = ArenaClient.connect(self.url, self.address, self.account(name))
        setup = Setup(
            arena=client,
            store=self.store_of(name),
            home=home,
            journal=Journal(home / "journal.sqlite"),
            confirmations=1,
            from_block=0,
            notify=notices.append,
        )
        return Player(setup, notices)

    def store_of(self, name: str) -> Store:
        """Where that player's content is; here all share one folder."""
        return self.store

    def miner(self, name: str, steps: int, kind: type[Miner] = Miner) -> Miner:
        options = MinerOptions(
            max_steps=steps,
            first_snapshot_seconds=600,
            device="cpu",
            commit_margin_seconds=10,
            trial=name == "miner-long",  # one tries: all at once would only slow one another
        )
        return kind(self.player(name).setup, options, inline=True)

    def oracles(self) -> list[Oracle]:
        return [
            Oracle(self.player(name).setup, OracleOptions(), inline=True)
            for name in self.oracle_names
        ]

    def publisher(self, name: str) -> Publisher:
        return Publisher(self.player(name).setup, inline=True)

    def publish(
        self,
        publisher: Publisher,
        title: str,
        dims: int,
        reward: int,
        provenance: Literal["manifest", "replay"] = "manifest",
        retention_days: int = 30,
    ) -> TaskId:
        data = self.folder / f"data-{dims}"
        if not data.exists():
            write_brain_set(data, dims, seed=7)
        return publisher.publish(
            PublishRequest(
                folder=data,
                title=title,
                spatial_dims=2 if dims == 2 else 3,
                reward_wei=reward,
                min_score_ppm=10_000,
                training_seconds=60,
                modality="MR T1",
                licence="see nilearn",
                citation="Fonov et al. 2011",
                proposal=brain_proposal(dims),
                data_will_be_public=True,
                test_set_may_be_known=True,
                provenance=provenance,
                retention_days=retention_days,
            )
        )

    def observer(self, name: str) -> Observer:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return Observer(self.arena, self.store, home, 1, 0)

    def view(self) -> View:
        return read_view(self.arena, 1)

    def move_to(self, moment: int) -> None:
        """Let the chain's clock stand at ``moment`` or later."""
        ahead = moment - self.endpoint.timestamp("latest")
        if ahead > 0:
            self.endpoint.request("evm_increaseTime", ahead)
        self.endpoint.request("evm_mine")


def play(theatre: Theatre, cast: list[Publisher | Miner | Oracle], until: RoundNumber) -> None:
    """Let everybody act until round ``until`` is closed; time jumps when nobody has work left."""
    deadline = time.monotonic() + 540
    idle = 0
    while time.monotonic() < deadline:
        states = [member.run_once() for member in cast]
        view = theatre.view()
        if theatre.arena.round(until).closed:
            return
        busy = any(status.doing not in _RESTING for status in states)
        idle = 0 if busy else idle + 1
        if idle >= 3 and not _at_work(theatre, view):
            boundary = view.next_boundary()
            theatre.move_to(boundary[1] if boundary else view.now + 30)
            idle = 0
        time.sleep(0.2)
    raise AssertionError(f"round {until} did not close: {theatre.view()}")


_RESTING = {"wait", "train", "fetch the sealed data", "score revealed models", "warm up"}


def _at_work(theatre: Theatre, view: View) -> bool:
    """Whether a training or a scoring is still under way that the story must wait for."""
    live = view.live
    if live is None:
        return False
    at = view.deadlines
    assert at is not None
    if view.now < at.t1:
        return any(
            not theatre.arena.entry(live.number, Address(account.address)).committed_at
            for name, account in theatre._accounts.items()
            if name.startswith("miner")
        )
    if live.opened and view.now < at.t3:
        return live.reveals < sum(name.startswith("miner") for name in theatre._accounts)
    if live.opened and view.now < at.t4:
        return live.voted != (1 << len(theatre.oracle_names)) - 1
    return False
