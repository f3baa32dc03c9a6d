"""Who takes part in the demo, with what money, in what windows; all of it public play money."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pouw.types import ZERO_ADDRESS, Address, Parameters

if TYPE_CHECKING:
    from pouw.chain.tx import Sender

ETHER: Final = 10**18
PEOPLE_FILE: Final = "people.json"
_KEYSTORE_COST: Final = 4096  # scrypt's n; the password lies beside the file anyway
_FUNDS_WEI: Final = 10 * ETHER


@dataclass(frozen=True, slots=True)
class Actor:
    """One participant: a process with a home, an account and a ``pouw.toml`` in it."""

    name: str
    arguments: tuple[str, ...]
    niceness: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """A task of the demo; ``floor_ppm`` is what the winner has to reach for the demo to pass."""

    name: str
    publisher: str
    title: str
    dims: int
    reward_wei: int
    min_score_ppm: int
    floor_ppm: int


PUBLISHER: Final = "publisher"
RIVAL: Final = "poor-publisher"
LIAR: Final = "over-claimer"
COPYCAT: Final = "copycat"
HONEST: Final = ("miner-1", "miner-2", "miner-3")
ORACLES: Final = ("oracle-1", "oracle-2", "oracle-3")
THRESHOLD: Final = 2

_MINING: Final = (
    *("--commit-margin", "8", "--first-snapshot", "15", "--snapshot-every", "15"),
    *("--threads", "1"),  # several miners share the machine
)
ORACLE: Final = ("oracle", "run", "--report-margin", "8")
# The budgets differ, so that two cores serve four trainers and the miners end up apart.
MINERS: Final = (
    Actor("miner-1", ("miner", "run", *_MINING), 10),
    Actor("miner-2", ("miner", "run", *_MINING, "--training-seconds", "40"), 10),
    Actor("miner-3", ("miner", "run", *_MINING, "--training-seconds", "25"), 10),
)
OFFERS: Final = (
    Offer("brain2d", PUBLISHER, "Brain tissue, axial slices", 2, ETHER, 700_000, 850_000),
    Offer("poor", RIVAL, "Brain tissue, for a small reward", 2, ETHER // 10, 700_000, 0),
    Offer("brain3d", PUBLISHER, "Brain tissue, sub-volumes", 3, 2 * ETHER, 500_000, 780_000),
)
PLAYED: Final = ("brain2d", "brain3d")  # what the two rounds run
NAMES: Final = (PUBLISHER, RIVAL, *HONEST, LIAR, COPYCAT, *ORACLES)


def parameters(oracles: tuple[Address, ...]) -> Parameters:
    """An arena whose rounds last minutes: 90 seconds of training, 62 of Phase 2."""
    return Parameters(
        asset=ZERO_ADDRESS,
        phase1=90,
        key_window=12,
        reveal_window=25,
        report_window=25,
        challenge_window=0,
        ruling_window=0,
        min_reward=ETHER // 100,
        publisher_bond_bps=1_000,
        oracle_fee_bps=500,
        miner_bond=ETHER // 20,
        challenge_bond=0,
        oracles=oracles,
        threshold=THRESHOLD,
        arbiter=ZERO_ADDRESS,
    )


class Cast:
    """The participants' homes below ``folder``, each with a fresh account."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.addresses: dict[str, Address] = {}

    def home(self, name: str) -> Path:
        """The private folder of a participant."""
        return self._folder / name

    def name_of(self, address: str) -> str:
        """Whose address it is."""
        found = (name for name, own in self.addresses.items() if own == address)
        return next(found, address)

    def create(self) -> None:
        """Make an account for everybody, as a keystore with its password beside it."""
        from eth_account import Account

        for name in NAMES:
            home = self.home(name)
            home.mkdir(parents=True, mode=0o700)
            password = secrets.token_hex(16)
            account = Account.create()
            keystore = Account.encrypt(account.key, password, iterations=_KEYSTORE_COST)
            (home / "account.json").write_text(json.dumps(keystore))
            (home / "password").write_text(password + "\n")
            self.addresses[name] = Address(account.address)

    def fund(self, bank: Sender) -> None:
        """Give everybody ten ether out of ``bank``; returns once all have it."""
        from pouw.chain.tx import Call

        sent = [
            bank.send(Call(f"funds for {name}", address, b"", _FUNDS_WEI))
            for name, address in self.addresses.items()
        ]
        for one in sent:
            bank.wait(one)

    def configure(self, rpc: str, arena: Address, from_block: int) -> None:
        """Write ``pouw.toml`` into every home, and one for a visitor beside them."""
        shared = [
            f"rpc = {json.dumps(rpc)}",
            f"arena = {json.dumps(arena)}",
            f"from_block = {from_block}",
            "confirmations = 1",
        ]
        for name in NAMES:
            own = ["keystore = 'account.json'", "password_file = 'password'", "home = '.'"]
            text = "\n".join([*shared, "store = '../../store'", *own])
            (self.home(name) / "pouw.toml").write_text(text + "\n")
        (self._folder / PEOPLE_FILE).write_text(json.dumps(self.addresses, indent=2) + "\n")
        text = "\n".join([*shared, "store = 'store'", "home = 'roles/visitor'"])
        (self._folder.parent / "pouw.toml").write_text(text + "\n")
