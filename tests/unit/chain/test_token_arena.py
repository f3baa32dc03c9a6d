"""The client in an arena whose asset is a token: it approves what a call takes, and no more."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest
from eth_abi import encode

from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient, deploy
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Call, Sender
from pouw.errors import ConfigError, Reverted
from pouw.hashing import keccak
from pouw.roles.means import check_means
from pouw.types import Address, Parameters

ROOT = Path(__file__).parents[3]
REWARD = 10**18


@pytest.fixture(scope="module")
def token_bytecode() -> bytes:
    if not (ROOT / "node_modules/solc").is_dir():
        pytest.skip("solc is not installed (npm ci)")
    name = "contracts/test/PlainToken.sol"
    question = {
        "language": "Solidity",
        "sources": {name: {"content": (ROOT / name).read_text()}},
        "settings": {
            "evmVersion": "cancun",
            "outputSelection": {name: {"PlainToken": ["evm.bytecode"]}},
        },
    }
    answer = subprocess.run(
        [ROOT / "scripts/solc/solc-v0.8.37", "--standard-json", "--base-path", ROOT],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=True,
    )
    contract = json.loads(answer.stdout)["contracts"][name]["PlainToken"]
    return bytes.fromhex(contract["evm"]["bytecode"]["object"])


def _selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


def test_publish__in_a_token_arena__approves_exactly_and_sends_no_ether(
    endpoint: Endpoint, parameters: Parameters, token_bytecode: bytes
) -> None:
    sender = Sender(endpoint, dev_account(1))
    token = sender.transact(Call("token", None, token_bytecode)).created
    assert token is not None
    client = deploy(sender, dataclasses.replace(parameters, asset=token))
    money = REWARD + parameters.bond_of(REWARD)
    mint = _selector("mint(address,uint256)") + encode(
        ["address", "uint256"], [sender.address, money]
    )
    with pytest.raises(Reverted):
        client.publish(b"\x01" * 32, b"\x02" * 32, 0, REWARD)
    with pytest.raises(ConfigError, match=f"needs {money} of the token {token} .* has 0 of"):
        check_means(client, money, gas=1)
    sender.transact(Call("mint", token, mint))
    check_means(client, money, gas=1)
    client.publish(b"\x01" * 32, b"\x02" * 32, 0, REWARD)
    assert _balance(endpoint, token, client.address) == money
    assert _balance(endpoint, token, sender.address) == 0
    assert client.approve(0) is None
    assert _allowance(endpoint, token, client) == 0


def _balance(endpoint: Endpoint, token: Address, account: Address) -> int:
    data = _selector("balanceOf(address)") + encode(["address"], [account])
    return _read(endpoint, token, data)


def _allowance(endpoint: Endpoint, token: Address, client: ArenaClient) -> int:
    pair = [client.sender.address, client.address]
    return _read(
        endpoint,
        token,
        _selector("allowance(address,address)") + encode(["address", "address"], pair),
    )


def _read(endpoint: Endpoint, token: Address, data: bytes) -> int:
    message = {"to": token, "data": "0x" + data.hex()}
    return int.from_bytes(endpoint.data("eth_call", message, "latest"), "big")
