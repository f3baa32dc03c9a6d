"""Deployment: parameters that make sense, code that fits, hashes as the package computes them."""

from __future__ import annotations

import json
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import ape
import pytest
from eth_abi import encode
from eth_tester.exceptions import TransactionFailed
from scene import Cast, Scene, parameters_of, without_arbiter

from pouw import hashing
from pouw.types import ZERO_ADDRESS, ZERO_WORD, Parameters, PoolChange, RoundNumber, TaskId

YEAR = 365 * 86_400
EIP170_BYTES = 24_576
ARTIFACT = Path(__file__).resolve().parents[2] / "pouw" / "chain" / "artifacts" / "PoUW.json"


def test_deploy__parameters__are_kept(arena: Scene) -> None:
    kept = arena.contract.parameters()
    assert (*kept[:12], tuple(kept[12]), *kept[13:]) == astuple(arena.parameters)


def test_deploy__fresh__is_empty(arena: Scene) -> None:
    contract = arena.contract
    assert tuple(contract.arena()) == (0, 0, 0, 0, False)
    assert contract.poolHistory() == ZERO_WORD
    assert contract.lastHeader() == hashing.domain_separator(1337, contract.address)
    assert arena.pool() == []
    assert contract.hintFor(1_000) == 0


def test_deploy__longest_windows__are_allowed(cast: Cast) -> None:
    Scene.deploy(
        cast,
        parameters_of(
            cast,
            phase1=YEAR,
            key_window=YEAR,
            reveal_window=YEAR,
            report_window=YEAR,
            challenge_window=YEAR,
            ruling_window=YEAR,
        ),
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("phase1", {"phase1": 0}),
        ("phase1", {"phase1": YEAR + 1}),
        ("keyWindow", {"key_window": 0}),
        ("keyWindow", {"key_window": YEAR + 1}),
        ("revealWindow", {"reveal_window": 0}),
        ("revealWindow", {"reveal_window": YEAR + 1}),
        ("reportWindow", {"report_window": 0}),
        ("reportWindow", {"report_window": YEAR + 1}),
        ("challengeWindow", {"challenge_window": 0}),
        ("challengeWindow", {"challenge_window": YEAR + 1}),
        ("rulingWindow", {"ruling_window": 0}),
        ("rulingWindow", {"ruling_window": YEAR + 1}),
        ("minReward", {"min_reward": 0}),
        ("publisherBondBps", {"publisher_bond_bps": 10_001}),
        ("oracleFeeBps", {"oracle_fee_bps": 10_001}),
        ("oracles", {"oracles": ()}),
        ("threshold", {"threshold": 0}),
        ("threshold", {"threshold": 1}),
        ("threshold", {"threshold": 4}),
    ],
)
def test_deploy__parameter_without_sense__reverts(
    cast: Cast, name: str, changes: dict[str, Any]
) -> None:
    refused(cast, parameters_of(cast, **changes), name)


@pytest.mark.parametrize("name", ["challengeWindow", "rulingWindow"])
def test_deploy__window_without_arbiter__reverts(cast: Cast, name: str) -> None:
    field = {"challengeWindow": "challenge_window", "rulingWindow": "ruling_window"}[name]
    refused(cast, without_arbiter(cast, **{field: 1}), name)


def test_deploy__committee_of_nobody_or_doubles__reverts(cast: Cast) -> None:
    one, two, three = (oracle.address for oracle in cast.oracles)
    refused(cast, parameters_of(cast, oracles=(one, ZERO_ADDRESS, three)), "oracles")
    refused(cast, parameters_of(cast, oracles=(one, two, one)), "oracles")


def test_deploy__largest_committee__is_sixteen(cast: Cast) -> None:
    addresses = tuple(ape.convert(1_000 + i, ape.types.AddressType) for i in range(17))
    usual = replace(parameters_of(cast), threshold=9)
    Scene.deploy(cast, replace(usual, oracles=addresses[:16]))
    refused(cast, replace(usual, oracles=addresses), "oracles")


def refused(cast: Cast, parameters: Parameters, name: str) -> None:
    """The deployment reverts with InvalidParameter and this name."""
    container = ape.project.PoUW
    data = container.constructor.serialize_transaction(
        astuple(parameters), sender=cast.stranger
    ).data
    expected = hashing.keccak(b"InvalidParameter(string)")[:4] + encode(["string"], [name])
    with pytest.raises(TransactionFailed) as caught:
        ape.chain.provider.web3.eth.call({"from": cast.stranger.address, "data": data})
    assert str(caught.value) == f"execution reverted: {expected!r}"


def test_code__size__fits_eip170(arena: Scene) -> None:
    assert 0 < len(arena.contract.code) <= EIP170_BYTES


def test_artifact__of_the_package__is_what_was_compiled(arena: Scene) -> None:
    """`ape run export_artifacts` makes it so; this is its `--check`, without compiling again."""
    kept = json.loads(ARTIFACT.read_text())
    compiled = arena.contract.contract_type
    assert kept["bytecode"] == compiled.deployment_bytecode.bytecode
    assert kept["abi"] == [item.model_dump(mode="json", exclude_none=True) for item in compiled.abi]
    assert kept["runtime_bytes"] == len(arena.contract.code)


@pytest.mark.parametrize("number", [0, 1, 2**64 - 1])
def test_hash__commitment__is_that_of_the_package(arena: Scene, number: int) -> None:
    miner = arena.cast.miners[0].address
    words = (hashing.sha256(b"manifest"), hashing.keccak(b"salt"))
    on_chain = arena.contract.commitmentOf(number, miner, *words)
    assert on_chain == hashing.commitment(
        1337, arena.contract.address, RoundNumber(number), miner, *words
    )


def test_hash__pool_history__is_that_of_the_package(arena: Scene) -> None:
    """Every kind of change in one history: publish, select, publish, top up, cancel."""
    publisher = arena.cast.publisher.address
    arena.publish(2_000, spec=b"\x01" * 32)
    arena.publish(3_000, spec=b"\x02" * 32)
    arena.publish(4_000, spec=b"\x03" * 32)
    arena.top_up(2, 5_000)
    arena.cancel(3)
    history = ZERO_WORD
    for kind, task_id, word, reward in (
        (PoolChange.PUBLISH, 1, b"\x01" * 32, 2_000),
        (PoolChange.SELECT, 1, b"\x01" * 32, 2_000),
        (PoolChange.PUBLISH, 2, b"\x02" * 32, 3_000),
        (PoolChange.PUBLISH, 3, b"\x03" * 32, 4_000),
        (PoolChange.TOP_UP, 2, b"\x02" * 32, 8_000),
        (PoolChange.CANCEL, 3, b"\x03" * 32, 0),
    ):
        history = hashing.pool_history(history, kind, TaskId(task_id), publisher, word, reward)
    assert arena.contract.poolHistory() == history
