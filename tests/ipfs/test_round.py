"""A whole round with content in daemons, folders and behind a gateway: nobody shares a store.

The publisher has a daemon, one miner a daemon, the other a folder that he serves over HTTP, every
oracle a folder. The daemons are offline, so the others' RPC stands where their swarm would be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from daemon import Daemon
from theatre import REWARD, Theatre, play

from pouw.chain.devnet import Devnet
from pouw.documents import Evidence
from pouw.hashing import raw_cid
from pouw.roles.base import Status
from pouw.roles.content import fetch_manifest
from pouw.roles.keeping import files_of
from pouw.roles.miner import Miner
from pouw.roles.oracle import Oracle
from pouw.roles.publisher import Publisher
from pouw.roles.rounds import private_store
from pouw.storage.block import digest_of
from pouw.storage.gateway import GatewayStore
from pouw.storage.ipfs import IpfsStore
from pouw.storage.local import LocalStore
from pouw.storage.mirrors import Mirrors
from pouw.storage.serve import Server
from pouw.storage.store import Store
from pouw.types import EntryState, RoundNumber, Verdict

ROUND = RoundNumber(1)


class Places:
    """Everybody's own place first, the others' after it."""

    def __init__(self, folder: Path, daemons: tuple[Daemon, Daemon], gateway: Server) -> None:
        self.folder = folder
        self._daemons = {"publisher": daemons[0], "miner-daemon": daemons[1]}
        self._gateway = gateway
        self._opened: list[Mirrors] = []

    def own(self, name: str) -> Store:
        if name in self._daemons:
            return IpfsStore(self._daemons[name].rpc, search_seconds=2)
        if name == "miner-folder":
            return self._gateway.store
        return LocalStore(self.folder / f"store-{name}")

    def of(self, name: str) -> Mirrors:
        places = [(name, self.own(name)), (self._gateway.url, GatewayStore(self._gateway.url))]
        places += [(other, self.own(other)) for other in self._daemons if other != name]
        self._opened.append(Mirrors(places))
        return self._opened[-1]

    def close(self) -> None:
        for store in self._opened:
            store.close()


class Scattered(Theatre):
    """A theatre in which nobody shares a store."""

    oracle_names = ("oracle-a", "oracle-b")

    def __init__(self, url: str, folder: Path, places: Places) -> None:
        self.places = places
        super().__init__(url, folder)

    def store_of(self, name: str) -> Store:
        return self.places.of(name)


@dataclass
class Watcher:
    """Looks at every step what others could read of a miner's private content."""

    theatre: Scattered
    daemons: tuple[Daemon, Daemon]
    names: tuple[str, ...] = ("miner-daemon", "miner-folder")
    committed: set[bytes] = field(default_factory=set)
    leaked: list[str] = field(default_factory=list)
    looks: int = 0

    def run_once(self) -> Status:
        view = self.theatre.view()
        public = self.public()
        if view.live and view.deadlines and view.now < view.deadlines.t1:
            for name in self.names:
                mine = self.private(name)
                self.committed |= mine
                self.looks += bool(mine)
                self.leaked += [f"{name}: {digest.hex()}" for digest in mine & public]
        return Status("watcher", view.phase, "wait", "")

    def private(self, name: str) -> set[bytes]:
        """The digests of the blocks that only the miner's home has."""
        return digests(private_store(self.theatre.folder / name, ROUND).directory)

    def public(self) -> set[bytes]:
        """Of every block in a daemon or in a shared folder."""
        found = {digest_of(cid) for daemon in self.daemons for cid in daemon.blocks()}
        for folder in self.theatre.places.folder.glob("store-*"):
            found |= digests(folder)
        return found

    def close(self) -> None:
        pass


def digests(folder: Path) -> set[bytes]:
    return {digest_of(path.name) for path in (folder / "blocks").glob("*/b*")}


@dataclass
class Played:
    theatre: Scattered
    watcher: Watcher
    cast: list[Publisher | Miner | Oracle]


@pytest.fixture(scope="module")
def played(
    daemons: tuple[Daemon, Daemon], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("round")
    served = LocalStore(folder / "store-miner-folder")
    with (
        Devnet(folder / "chain", port=0, block_seconds=0) as devnet,
        Server(served, "127.0.0.1", 0) as gateway,
    ):
        places = Places(folder, daemons, gateway)
        theatre = Scattered(devnet.url, folder, places)
        watcher = Watcher(theatre, daemons)
        publisher = theatre.publisher("publisher")
        theatre.publish(publisher, "scattered", 2, REWARD, retention_days=0)
        cast: list[Publisher | Miner | Oracle] = [
            publisher,
            theatre.miner("miner-daemon", 8),
            theatre.miner("miner-folder", 2),
            *theatre.oracles(),
        ]
        try:
            play(theatre, [*cast, watcher], ROUND)
            for _ in range(2):  # what is kept and let go follows the closing
                for member in cast:
                    member.run_once()
            yield Played(theatre, watcher, cast)
        finally:
            for member in cast:
                member.close()
            places.close()


def contents(played: Played, name: str) -> tuple[str, ...]:
    """The CIDs of what that miner revealed: the manifest, its checkpoints, the model."""
    account = played.theatre.account(name).address
    store = played.theatre.places.of(name)
    for event in played.theatre.arena.events(0, played.theatre.endpoint.block_number()):
        if type(event).__name__ == "Revealed" and event.miner == account:
            files = files_of(fetch_manifest(store, event.manifest_digest))
            return (raw_cid(event.manifest_digest), *(cid for cid, _ in files))
    raise AssertionError(f"{name} revealed nothing")


def test_round__everybody_with_a_store_of_his_own__is_paid(played: Played) -> None:
    closed = played.theatre.arena.round(ROUND)
    assert closed.verdict is Verdict.WINNER
    assert closed.reveals == 2
    assert bin(closed.voted).count("1") == len(played.theatre.oracle_names)
    names = {played.theatre.account(name).address: name for name in played.watcher.names}
    assert closed.winner in names


def test_phase1__what_miners_trained__is_in_no_daemon_and_no_shared_store(played: Played) -> None:
    watcher = played.watcher
    assert watcher.looks > len(watcher.names)
    assert watcher.leaked == []
    revealed = {digest_of(cid) for name in watcher.names for cid in contents(played, name)}
    assert revealed <= watcher.committed
    # Afterwards it is public: the watcher would have seen it.
    assert revealed <= watcher.public()


def test_round__closed__publisher_keeps_the_winner_and_losers_are_let_go(played: Played) -> None:
    theatre = played.theatre
    winner = theatre.arena.round(ROUND).winner
    for name in played.watcher.names:
        cids, account = set(contents(played, name)), theatre.account(name).address
        assert theatre.arena.entry(ROUND, account).state is not EntryState.COMMITTED
        for holder in ("publisher", name, "oracle-a"):
            own = theatre.places.own(holder)
            pinned = own.pins() & cids
            if isinstance(own, IpfsStore):
                own.close()
            assert pinned == (cids if account == winner else set()), holder


def test_round__evidence_of_every_oracle__lies_in_its_own_store(played: Played) -> None:
    theatre = played.theatre
    voted = 0
    for name in theatre.oracle_names:
        own = theatre.places.own(name)
        for cid in own.pins() - set(contents(played, "miner-daemon")):
            if cid in contents(played, "miner-folder"):
                continue
            evidence = Evidence.parse(own.get_bytes(cid))
            assert evidence.oracle == theatre.account(name).address
            assert evidence.judged[-1].true_claim
            voted += 1
    assert voted == len(theatre.oracle_names)
