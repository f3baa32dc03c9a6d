"""A long honest history: the model of the arena plays it, a contract on anvil logs it."""

from __future__ import annotations

from collections.abc import Iterator

from eth_abi import encode
from eth_keys import keys
from msgspec.structs import astuple

from benchmarks.gas.anvil import Chain
from pouw import hashing
from pouw.chain.abi import artifact
from pouw.events import Event
from pouw.ledger.model import Arena, Call
from pouw.types import ZERO_ADDRESS, Address, Parameters, RoundNumber, Verdict

REWARD = 10**18
START = 1_800_000_000


def _account(number: int) -> keys.PrivateKey:
    return keys.PrivateKey(hashing.keccak(b"account %d" % number))


def _address(key: keys.PrivateKey) -> Address:
    return Address(key.public_key.to_checksum_address())


PUBLISHER, MINER, ORACLE = (_account(number) for number in range(3))
PARAMETERS = Parameters(
    asset=ZERO_ADDRESS,
    phase1=3_600,
    key_window=900,
    reveal_window=900,
    report_window=900,
    challenge_window=0,
    ruling_window=0,
    min_reward=1,
    publisher_bond_bps=1_000,
    oracle_fee_bps=500,
    miner_bond=10**16,
    challenge_bond=10**16,
    oracles=(_address(ORACLE),),
    threshold=1,
    arbiter=ZERO_ADDRESS,
)


class Player:
    """Plays one round after the other; `play` returns the events of the next."""

    def __init__(self, chain_id: int, arena: Address) -> None:
        self._chain_id, self._address = chain_id, arena
        self._domain = hashing.domain_separator(chain_id, arena)
        self._arena = Arena(PARAMETERS, chain_id, arena)
        self._now = START

    def play(self) -> list[Event]:
        """One whole round: published, trained, revealed, judged, paid, the bond reclaimed."""
        arena, told = self._arena, len(self._arena.books.events)
        number = RoundNumber(arena.state.rounds + 1)
        test_key = hashing.keccak(b"test key %d" % number)
        spec = hashing.sha256(b"spec %d" % number)
        publisher, miner = _address(PUBLISHER), _address(MINER)
        bond = PARAMETERS.bond_of(REWARD)
        arena.publish(
            Call(publisher, self._now, REWARD + bond),
            spec,
            hashing.key_hash_of(test_key),
            500_000,
            False,
            REWARD,
        )
        self._now = arena.state.selected_at + PARAMETERS.phase2
        arena.release_data_key(Call(publisher, self._now, 0), hashing.data_key_of(test_key))
        manifest, salt = hashing.sha256(b"manifest %d" % number), hashing.keccak(b"%d" % number)
        commitment = hashing.commitment(
            self._chain_id, self._address, number, miner, manifest, salt
        )
        arena.commit(Call(miner, self._now, 0), number, commitment)
        limits = arena.deadlines(number)
        arena.open_test(Call(publisher, limits.t1, 0), test_key)
        signed = hashing.reveal_hash(self._domain, number, miner, manifest, 900_000)
        signature = MINER.sign_msg_hash(signed).to_bytes()
        signature = signature[:64] + bytes([signature[64] + 27])
        call = Call(miner, limits.t2, PARAMETERS.miner_bond)
        arena.reveal(call, number, manifest, 900_000, salt, signature)
        call = Call(_address(ORACLE), limits.t3, 0)
        arena.report(call, number, Verdict.WINNER, miner, hashing.sha256(b"evidence"))
        self._now = limits.t6
        arena.finalize(Call(miner, self._now, 0))
        arena.reclaim(Call(miner, self._now, 0), number, miner)
        return arena.books.events[told:]


def log_on(chain: Chain, echo: Address, rounds: int) -> Iterator[int]:
    """Log ``rounds`` rounds through the echo, a block each; yields how many events it were."""
    player = Player(chain.id, echo)
    for _ in range(rounds):
        events = player.play()
        data = b"".join(map(_log, events))
        chain.send("0x" + data.hex(), chain.accounts[0], to=echo)
        yield len(events)


_LAYOUTS = {layout.name: layout for layout in artifact().events.values()}
_PLACE = len(Event.__struct_fields__)


def _log(event: Event) -> bytes:
    """An event as the echo takes it."""
    layout = _LAYOUTS[type(event).__name__]
    values = astuple(event)[_PLACE:]
    indexed, data = values[: len(layout.indexed)], values[len(layout.indexed) :]
    topics = layout.topic + b"".join(
        encode([kind], [value]) for (_, kind), value in zip(layout.indexed, indexed, strict=True)
    )
    body = encode([kind for _, kind in layout.data], data)
    return bytes([1 + len(indexed)]) + len(body).to_bytes(2) + topics + body
