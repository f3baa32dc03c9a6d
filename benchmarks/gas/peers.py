"""What others' contracts use for the nearest thing that they do, on the same chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from benchmarks.gas.anvil import ROOT, Chain, Compiled, Contract
from pouw import hashing
from pouw.errors import ChainError, ConfigError

UMA_PACKAGE: Final = ROOT / "benchmarks" / "node_modules" / "@uma" / "contracts-node"
_UMA_ARTIFACTS: Final = UMA_PACKAGE / "dist" / "packages" / "core" / "artifacts" / "contracts"
_LIVENESS_SECONDS: Final = 7_200
_FINAL_FEE: Final = 250 * 10**6
_HEAP_BATCH: Final = 5_000


def ens_commit(chain: Chain, compiled: Compiled) -> int:
    """ENS's ``ETHRegistrarController.commit``, its body compiled like the arena."""
    controller = chain.deploy(compiled)
    return controller.send(chain.accounts[0], "commit", hashing.keccak(b"commitment")).gas


def heap(
    chain: Chain, compiled: Compiled, sizes: list[int], advance: Callable[[int], None]
) -> dict[str, int]:
    """OpenZeppelin's Heap: a new best value in, and out again, at each size.

    The dearest insertion there is: the value rises from the bottom to the top. Its order alone is
    counted, a word per entry, without escrow, task, history or event.
    """
    gas: dict[str, int] = {}
    pool, caller, filled = chain.deploy(compiled), chain.accounts[0], 0
    for size in sizes:
        while filled < size:
            count = min(_HEAP_BATCH, size - filled)
            pool.send(caller, "fill", count, 10**9 - filled)
            filled += count
            advance(count)
        gas[f"heap insert at {size:,}"] = pool.send(caller, "insert", 10**9 + size).gas
        gas[f"heap pop at {size:,}"] = pool.send(caller, "pop").gas
    return gas


def uma_assertion(chain: Chain) -> tuple[int, int]:
    """UMA's OptimisticOracleV3: gas of a bonded assertion, and of settling it undisputed.

    UMA's own contracts and bytecode from npm, registered with one another as on mainnet. Counted
    is a second assertion: the first one pays for the oracle's own slot in the token.
    """
    names = {path.stem: path for path in _UMA_ARTIFACTS.rglob("*.json")}
    if not names:
        raise ConfigError(f"{UMA_PACKAGE.name} is not installed", hint="run `make gas`")

    def deploy(name: str, *arguments: Any) -> Contract:
        return chain.deploy(Compiled.read(names[name]), *arguments)

    owner, timer = chain.accounts[0], "0x" + "00" * 20
    finder, currencies = deploy("Finder"), deploy("AddressWhitelist")
    identifiers, token = deploy("IdentifierWhitelist"), deploy("TestnetERC20", "Dollar", "USD", 6)
    store = deploy("Store", (0,), (0,), timer)
    # Asked only in a dispute; without one the oracle remembers its address and no more.
    disputes = deploy("MockOracleAncillary", finder.address, timer)
    for name, contract in (
        ("CollateralWhitelist", currencies),
        ("IdentifierWhitelist", identifiers),
        ("Store", store),
        ("Oracle", disputes),
    ):
        finder.send(owner, "changeImplementationAddress", _word(name), contract.address)
    identifiers.send(owner, "addSupportedIdentifier", _word("ASSERT_TRUTH"))
    currencies.send(owner, "addToWhitelist", token.address)
    store.send(owner, "setFinalFee", token.address, (_FINAL_FEE,))
    oracle = deploy("OptimisticOracleV3", finder.address, token.address, _LIVENESS_SECONDS)

    first, second = chain.accounts[1:3]
    for asserter in (first, second):
        token.send(owner, "allocateTo", asserter, 10**12)
        token.send(asserter, "approve", oracle.address, 10**12)
    oracle.send(first, "assertTruthWithDefaults", hashing.keccak(b"first claim"), first)
    claim = hashing.keccak(b"second claim")
    asserted = oracle.send(second, "assertTruthWithDefaults", claim, second)
    assertion = next(
        log["topics"][1] for log in asserted.logs if log["address"] == oracle.address.lower()
    )
    chain.at(asserted.timestamp + _LIVENESS_SECONDS)
    settled = oracle.send(owner, "settleAssertion", assertion)
    if not oracle.call("getAssertionResult", assertion):
        raise ChainError("UMA did not settle for the assertion")
    return asserted.gas, settled.gas


def _word(name: str) -> bytes:
    return name.encode().ljust(32, b"\0")
