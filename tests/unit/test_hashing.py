"""Hashes: layouts word by word, and signatures against eth_account's EIP-712."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from pouw.errors import ContentError, DocumentError
from pouw.hashing import (
    canonical_json,
    checksum_address,
    commitment,
    data_key_of,
    domain_separator,
    header_hash,
    keccak,
    key_hash_of,
    pool_history,
    raw_cid,
    raw_digest,
    recover_signer,
    reveal_digest,
    reveal_hash,
    round_seed,
    sha256,
    vote_key,
)
from pouw.types import Address, Header, PoolChange, RoundNumber, TaskId, Verdict

CHAIN = 31337
ARENA = Address("0x5FbDB2315678afecb367f032d93F642f64180aa3")
ACCOUNT = Account.from_key("0x" + "11" * 32)
MINER = Address(ACCOUNT.address)
DIGEST, SALT = keccak(b"manifest"), keccak(b"salt")
ROUND = RoundNumber(7)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def word(value: int | str | bytes) -> bytes:
    """One ABI word: numbers and addresses to the right, bytes to the left."""
    if isinstance(value, str):
        value = int(value, 16)
    if isinstance(value, bytes):
        return value.ljust(32, b"\0")
    return value.to_bytes(32, "big")


def words(*values: int | str | bytes) -> bytes:
    return keccak(b"".join(map(word, values)))


def typed_data(claim: int, **changed: Any) -> dict[str, Any]:
    """The reveal as a wallet is shown it."""
    domain = [
        ("name", "string"),
        ("version", "string"),
        ("chainId", "uint256"),
        ("verifyingContract", "address"),
    ]
    reveal = [
        ("round", "uint64"),
        ("miner", "address"),
        ("manifestDigest", "bytes32"),
        ("claimedScore", "uint32"),
    ]
    message = {"round": ROUND, "miner": MINER, "manifestDigest": DIGEST, "claimedScore": claim}
    return {
        "types": {
            "EIP712Domain": [{"name": name, "type": kind} for name, kind in domain],
            "Reveal": [{"name": name, "type": kind} for name, kind in reveal],
        },
        "primaryType": "Reveal",
        "domain": {
            "name": "PoUW",
            "version": "1",
            "chainId": CHAIN,
            "verifyingContract": ARENA,
        },
        "message": message | changed,
    }


def wallet_signature(claim: int, **changed: Any) -> bytes:
    signable = encode_typed_data(full_message=typed_data(claim, **changed))
    return bytes(ACCOUNT.sign_message(signable).signature)


def test_domain_separator__equals_eth_account() -> None:
    signable = encode_typed_data(full_message=typed_data(1))
    assert domain_separator(CHAIN, ARENA) == signable.header


@pytest.mark.parametrize("claim", [0, 850_000, 1_000_000])
def test_recover_signer__wallet_signature__is_the_miner(claim: int) -> None:
    digest = reveal_hash(domain_separator(CHAIN, ARENA), ROUND, MINER, DIGEST, claim)
    assert recover_signer(digest, wallet_signature(claim)) == MINER


@pytest.mark.parametrize(
    "changed",
    [{"round": 8}, {"miner": ARENA}, {"manifestDigest": SALT}, {"claimedScore": 850_001}],
)
def test_recover_signer__any_field_signed_otherwise__is_somebody_else(
    changed: dict[str, Any],
) -> None:
    digest = reveal_hash(domain_separator(CHAIN, ARENA), ROUND, MINER, DIGEST, 850_000)
    assert recover_signer(digest, wallet_signature(850_000, **changed)) != MINER


@pytest.mark.parametrize(("chain", "arena"), [(1, ARENA), (CHAIN, MINER)])
def test_recover_signer__signed_for_another_deployment__is_somebody_else(
    chain: int, arena: Address
) -> None:
    digest = reveal_hash(domain_separator(chain, arena), ROUND, MINER, DIGEST, 850_000)
    assert recover_signer(digest, wallet_signature(850_000)) != MINER


def test_recover_signer__forms_that_openzeppelin_refuses__are_nobody() -> None:
    digest = reveal_hash(domain_separator(CHAIN, ARENA), ROUND, MINER, DIGEST, 850_000)
    good = wallet_signature(850_000)
    r, s, v = good[:32], int.from_bytes(good[32:64], "big"), good[64]
    high = r + (ORDER - s).to_bytes(32, "big") + bytes([27 + 28 - v])
    refused = [
        b"",
        good[:64],
        good + b"\0",
        good[:64] + bytes([v - 27]),
        good[:64] + bytes([v + 2]),
        high,
        bytes(64) + bytes([v]),
        b"\xff" * 32 + good[32:],
    ]
    assert recover_signer(digest, good) == MINER
    assert [recover_signer(digest, form) for form in refused] == [None] * len(refused)


def test_commitment__layout__is_words() -> None:
    kind = keccak(
        b"Commit(uint256 chainId,address arena,uint64 round,address miner,"
        b"bytes32 manifestDigest,bytes32 salt)"
    )
    expected = words(kind, CHAIN, ARENA, ROUND, MINER, DIGEST, SALT)
    assert commitment(CHAIN, ARENA, ROUND, MINER, DIGEST, SALT) == expected


def test_reveal_digest__layout__is_22_bytes_of_words() -> None:
    assert reveal_digest(DIGEST, b"signature") == words(DIGEST, keccak(b"signature"))[:22]


def test_pool_history__layout__is_words() -> None:
    before = keccak(b"before")
    expected = words(before, 2, 5, MINER, DIGEST, 10**18)
    found = pool_history(before, PoolChange.TOP_UP, TaskId(5), MINER, DIGEST, 10**18)
    assert found == expected


def test_header_hash__layout__is_words() -> None:
    parent, history, revealed, evidence = (keccak(bytes([i])) for i in range(4))
    header = Header(
        number=ROUND,
        parent=parent,
        task_id=TaskId(5),
        spec_digest=DIGEST,
        pool_history=history,
        verdict=Verdict.WINNER,
        winner=MINER,
        score=850_000,
        reveal_digest=revealed[:22],
        evidence_digest=evidence,
        closed_at=1_700_000_000,
    )
    expected = words(
        7, parent, 5, DIGEST, history, 1, MINER, 850_000, revealed[:22], evidence, 1_700_000_000
    )
    assert header_hash(header) == expected


def test_vote_key__layout__is_words() -> None:
    assert vote_key(Verdict.NO_TRUE_CLAIM, MINER) == words(2, MINER)


def test_round_seed__any_case_of_the_address__is_one_seed() -> None:
    expected = words(SALT, 7, MINER)
    assert round_seed(SALT, ROUND, MINER) == expected
    assert round_seed(SALT, ROUND, Address(MINER.lower())) == expected


def test_key_hash_of__hashes_twice() -> None:
    assert key_hash_of(SALT) == keccak(data_key_of(SALT)) == keccak(keccak(SALT))


@given(st.binary(min_size=20, max_size=20))
def test_checksum_address__any_account__is_that_of_eth_utils(account: bytes) -> None:
    assert checksum_address(account) == to_checksum_address(account)


def test_keccak__is_not_sha3() -> None:
    empty = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak(b"").hex() == empty


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [True, None, -2]}, '{"a":[true,null,-2],"b":1}'),
        ({"name": "K\N{LATIN SMALL LETTER O WITH DIAERESIS}ln"}, '{"name":"K\u00f6ln"}'),
        ({"text": 'a"\\\n'}, '{"text":"a\\"\\\\\\n"}'),
        ([], "[]"),
        (2**53, "9007199254740992"),
    ],
)
def test_canonical_json__has_one_form(value: Any, expected: str) -> None:
    assert canonical_json(value) == expected.encode()


@pytest.mark.parametrize(
    "value", [1.0, {"a": [0.5]}, {1: 2}, float("nan"), {"a": b"raw"}, {"a": {1}}, "\ud800"]
)
def test_canonical_json__no_document_value__is_refused(value: Any) -> None:
    with pytest.raises(DocumentError):
        canonical_json(value)


def test_raw_cid__known_block__has_its_known_cid() -> None:
    cid = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert raw_cid(sha256(b"")) == cid
    assert raw_digest(cid) == sha256(b"")


EMPTY = raw_cid(sha256(b""))


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "b",
        EMPTY.upper(),
        EMPTY[:-1],
        EMPTY[:-1] + "v",
        "z" + EMPTY[1:],
        "bafybeieu2xjow5winvkznczb2dioqpefkcxmws5oisjyymnwmr2qubo3pm",
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        "b\N{LATIN SMALL LETTER O WITH DIAERESIS}" + EMPTY[2:],
    ],
)
def test_raw_digest__not_the_one_string_of_a_raw_cid__is_refused(wrong: str) -> None:
    with pytest.raises(ContentError):
        raw_digest(wrong)
