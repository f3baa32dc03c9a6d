"""A fresh anvil without fees or block limit, whose every receipt says what a call used."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from web3 import HTTPProvider, Web3
from web3.types import RPCEndpoint

from pouw.errors import ChainError, ConfigError
from pouw.types import Address

ROOT: Final = Path(__file__).resolve().parents[2]
SOLC: Final = ROOT / "scripts" / "solc" / "solc-v0.8.37"
MUCH_GAS: Final = 10**11
RICH_WEI: Final = 10**30
_START_SECONDS: Final = 30
_RECEIPT_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Compiled:
    """A contract that can be deployed."""

    abi: list[dict[str, Any]]
    bytecode: str

    @staticmethod
    def read(artifact: Path) -> Compiled:
        """From a JSON artifact with ``abi`` and ``bytecode``."""
        try:
            content = json.loads(artifact.read_text())
        except FileNotFoundError as error:
            raise ConfigError(f"{artifact} is not there", hint="run `make gas`") from error
        return Compiled(content["abi"], content["bytecode"])


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a transaction used, when it was executed, the contract it made, its events as sent."""

    gas: int
    timestamp: int
    created: str
    logs: list[dict[str, Any]]


class Chain:
    """Anvil: every account is rich and may act, a block per transaction."""

    def __init__(self, web3: Web3) -> None:
        self.web3 = web3
        self.id = web3.eth.chain_id
        self.url = str(getattr(web3.provider, "endpoint_uri", ""))
        self.accounts: Sequence[Any] = web3.eth.accounts
        self.ask("anvil_autoImpersonateAccount", True)

    def ask(self, method: str, *parameters: Any) -> Any:
        """One JSON-RPC request; ChainError where anvil refuses it."""
        answer = self.web3.provider.make_request(RPCEndpoint(method), list(parameters))
        if "error" in answer:
            raise ChainError(f"{method}: {answer['error']}")
        return answer["result"]

    def make_rich(self, account: str) -> None:
        """Give an account more than it can spend."""
        self.ask("anvil_setBalance", account, hex(RICH_WEI))

    def at(self, timestamp: int) -> None:
        """The next block is executed then."""
        self.ask("evm_setNextBlockTimestamp", timestamp)

    def send(self, data: str, sender: str, *, to: str | None = None, value: int = 0) -> Receipt:
        """Execute a transaction; ChainError where it reverts."""
        fields = {"from": sender, "data": data, "value": hex(value)}
        fields |= {"gas": hex(MUCH_GAS), "gasPrice": "0x0"} | ({"to": to} if to else {})
        hashed = self.ask("eth_sendTransaction", fields)
        deadline, pause = time.monotonic() + _RECEIPT_SECONDS, 0.001
        while (receipt := self.ask("eth_getTransactionReceipt", hashed)) is None:
            if time.monotonic() > deadline:
                raise ChainError(f"no receipt of {hashed} after {_RECEIPT_SECONDS} seconds")
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        if receipt["status"] != "0x1":
            raise ChainError(f"reverted: {data[:10]} from {sender} to {to}")
        block = self.ask("eth_getBlockByNumber", receipt["blockNumber"], False)
        return Receipt(
            gas=int(receipt["gasUsed"], 16),
            timestamp=int(block["timestamp"], 16),
            created=receipt["contractAddress"],
            logs=receipt["logs"],
        )

    def deploy(self, compiled: Compiled, *arguments: Any) -> Contract:
        """A new contract."""
        factory = self.web3.eth.contract(abi=compiled.abi, bytecode=compiled.bytecode)
        data = factory.constructor(*arguments).data_in_transaction
        return Contract(self, compiled, self.send(data, self.accounts[0]).created)


class Contract:
    """A deployed contract."""

    def __init__(self, chain: Chain, compiled: Compiled, address: str) -> None:
        self.chain = chain
        checked = Web3.to_checksum_address(address)
        self.address = Address(checked)
        self._bound = chain.web3.eth.contract(address=checked, abi=compiled.abi)

    def send(self, sender: str, name: str, *arguments: Any, value: int = 0) -> Receipt:
        """Execute a call."""
        data = self._bound.encode_abi(name, args=arguments)
        return self.chain.send(data, sender, to=self.address, value=value)

    def call(self, name: str, *arguments: Any, sender: str | None = None) -> Any:
        """What a call would return."""
        fields: Any = {"gas": MUCH_GAS} | ({"from": sender} if sender else {})
        return self._bound.functions[name](*arguments).call(fields)


@contextmanager
def anvil() -> Iterator[Chain]:
    """A fresh chain on a free port; it ends with the block."""
    binaries = sorted(ROOT.glob("node_modules/@foundry-rs/anvil-*/bin/anvil"))
    if not binaries:
        raise ConfigError("anvil is not installed", hint="run `make gas`")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(binaries[0]), "--port", str(port), "--silent", "--hardfork", "cancun"]
    command += ["--disable-block-gas-limit", "--base-fee", "0", "--prune-history"]
    command += ["--balance", str(RICH_WEI // 10**18)]
    process = subprocess.Popen(command)
    try:
        provider = HTTPProvider(f"http://127.0.0.1:{port}", request_kwargs={"timeout": 300})
        web3 = Web3(provider)
        deadline = time.monotonic() + _START_SECONDS
        while not web3.is_connected():
            if time.monotonic() > deadline:
                raise ChainError(f"anvil does not answer after {_START_SECONDS} seconds")
            time.sleep(0.05)
        yield Chain(web3)
    finally:
        process.terminate()
        process.wait()


def compile_contracts(*names: str) -> dict[str, Compiled]:
    """The contracts of those files of ``benchmarks/contracts``, compiled like the arena."""
    files = [ROOT / "benchmarks" / "contracts" / f"{name}.sol" for name in names]
    request = {
        "language": "Solidity",
        "sources": {str(f.relative_to(ROOT)): {"content": f.read_text()} for f in files},
        "settings": {
            "evmVersion": "cancun",
            "viaIR": True,
            "optimizer": {"enabled": True, "runs": 1000},
            "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object"]}},
        },
    }
    command = [str(SOLC), "--standard-json", "--base-path", "."]
    text = json.dumps(request)
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    problems = [e["formattedMessage"] for e in answer.get("errors", []) if e["severity"] == "error"]
    if problems:
        raise ConfigError("\n".join(problems))
    return {
        name: Compiled(contract["abi"], "0x" + contract["evm"]["bytecode"]["object"])
        for file in answer["contracts"].values()
        for name, contract in file.items()
    }
