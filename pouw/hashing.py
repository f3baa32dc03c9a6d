"""Hashes that the contract and the package must agree on, byte for byte.

``docs/protocol.md`` fixes every layout; ``tests/contracts`` asserts the same vectors on both sides.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from typing import Any, Final

from coincurve import PublicKey
from eth_utils import to_checksum_address
from sha3 import keccak_256

from pouw.errors import ContentError, DocumentError
from pouw.types import Address, Header, PoolChange, RoundNumber, TaskId, Verdict

MAX_DOCUMENT_BYTES: Final = 1 << 20
DOMAIN_NAME: Final = "PoUW"
DOMAIN_VERSION: Final = "1"
_HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_RAW_CID_PREFIX: Final = bytes.fromhex("01551220")


def keccak(data: bytes) -> bytes:
    """Keccak-256 as the EVM computes it."""
    digest: bytes = keccak_256(data).digest()
    return digest


def sha256(data: bytes | memoryview) -> bytes:
    """sha2-256: the digest of documents, and the multihash of every CID here."""
    return hashlib.sha256(data).digest()


COMMIT_TYPEHASH: Final = keccak(
    b"Commit(uint256 chainId,address arena,uint64 round,address miner,"
    b"bytes32 manifestDigest,bytes32 salt)"
)
REVEAL_TYPE: Final = "Reveal(uint64 round,address miner,bytes32 manifestDigest,uint32 claimedScore)"
REVEAL_TYPEHASH: Final = keccak(REVEAL_TYPE.encode())
DOMAIN_TYPEHASH: Final = keccak(
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; DocumentError on a float or a non-JSON value."""
    _refuse_floats(value)
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise DocumentError(f"cannot be written as canonical JSON: {error}") from error


@functools.lru_cache(maxsize=1 << 16)
def checksum_address(account: bytes) -> Address:
    """The EIP-55 text of an account's 20 bytes."""
    digits = account.hex()
    case = keccak(digits.encode()).hex()
    return Address(
        "0x" + "".join(d.upper() if c > "7" else d for d, c in zip(digits, case, strict=False))
    )


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise DocumentError(f"documents hold integers only, not {value!r}")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise DocumentError(f"keys are strings, not {key!r}")
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)


def raw_cid(digest: bytes) -> str:
    """The CIDv1 (raw codec, sha2-256, base32) of the single block with that digest."""
    return "b" + base64.b32encode(_RAW_CID_PREFIX + digest).decode().lower().rstrip("=")


def raw_digest(cid: str) -> bytes:
    """The 32-byte digest inside a raw CIDv1; ContentError where ``cid`` is something else.

    Every digest has exactly one string: other cases and other padding bits are refused.
    """
    text = cid[1:].upper()
    try:
        data = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError as error:
        raise ContentError(f"not a base32 CIDv1: {cid!r}", cid=cid) from error
    if len(data) != 36 or raw_cid(data[4:]) != cid:
        raise ContentError(f"not a CIDv1 of a raw sha2-256 block: {cid!r}", cid=cid)
    return data[4:]


def _abi(*values: bytes | int | str) -> bytes:
    """``abi.encode`` of static values: 32-byte words, integers and addresses (text).

    That an integer fits its Solidity type is the caller's business.
    """
    words = []
    for value in values:
        if isinstance(value, int):
            words.append(value.to_bytes(32))
        elif isinstance(value, str):
            words.append(bytes.fromhex(value[2:]).rjust(32, b"\0"))
        else:
            words.append(value)
        if len(words[-1]) != 32:
            raise ValueError(f"{value!r} is no word")
    return b"".join(words)


def commitment(
    chain_id: int,
    arena: Address,
    round_number: RoundNumber,
    miner: Address,
    manifest_digest: bytes,
    salt: bytes,
) -> bytes:
    """``PoUW.commitmentOf``: binds a manifest to chain, contract, round and miner."""
    return keccak(
        _abi(COMMIT_TYPEHASH, chain_id, arena, round_number, miner, manifest_digest, salt)
    )


def domain_separator(chain_id: int, arena: Address) -> bytes:
    """The EIP-712 domain separator of a deployment; also the parent of its first header."""
    return keccak(
        _abi(
            DOMAIN_TYPEHASH,
            keccak(DOMAIN_NAME.encode()),
            keccak(DOMAIN_VERSION.encode()),
            chain_id,
            arena,
        )
    )


def reveal_hash(
    domain: bytes,
    round_number: RoundNumber,
    miner: Address,
    manifest_digest: bytes,
    claimed_score: int,
) -> bytes:
    """The EIP-712 digest that a miner signs to reveal."""
    struct = keccak(_abi(REVEAL_TYPEHASH, round_number, miner, manifest_digest, claimed_score))
    return keccak(b"\x19\x01" + domain + struct)


def recover_signer(digest: bytes, signature: bytes) -> Address | None:
    """Who signed ``digest`` (65 bytes: r, s, v), or None where OpenZeppelin's ECDSA refuses it."""
    if len(signature) != 65 or signature[64] not in (27, 28):
        return None
    if int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        return None
    recoverable = signature[:64] + bytes([signature[64] - 27])
    try:
        public = PublicKey.from_signature_and_message(recoverable, digest, hasher=None)
    except ValueError:
        return None
    return checksum_address(keccak(public.format(compressed=False)[1:])[12:])


def reveal_digest(manifest_digest: bytes, signature: bytes) -> bytes:
    """The 22 bytes that an entry holds once revealed."""
    return keccak(_abi(manifest_digest, keccak(signature)))[:22]


def pool_history(
    before: bytes,
    kind: PoolChange,
    task_id: TaskId,
    publisher: Address,
    spec_digest: bytes,
    reward_after: int,
) -> bytes:
    """``poolHistory`` after one more change of the pool."""
    return keccak(_abi(before, int(kind), task_id, publisher, spec_digest, reward_after))


def header_hash(header: Header) -> bytes:
    """The hash that ``Round.header`` holds once the round is closed."""
    return keccak(
        _abi(
            header.number,
            header.parent,
            header.task_id,
            header.spec_digest,
            header.pool_history,
            int(header.verdict),
            header.winner,
            header.score,
            header.reveal_digest.ljust(32, b"\0"),
            header.evidence_digest,
            header.closed_at,
        )
    )


def vote_key(verdict: Verdict, winner: Address) -> bytes:
    """The key under which ``votes`` counts the oracles of one outcome."""
    return keccak(_abi(int(verdict), winner))


def data_key_of(test_key: bytes) -> bytes:
    """``dataKey = keccak256(testKey)``: opening the test set later proves the pair."""
    return keccak(test_key)


def key_hash_of(test_key: bytes) -> bytes:
    """``keyHash = keccak256(keccak256(testKey))``: the one word on chain at publication."""
    return keccak(data_key_of(test_key))


def round_seed(key: bytes, round_number: RoundNumber, miner: Address) -> bytes:
    """A miner's 32-byte seed: of the data key for training, of the test key for replay."""
    return keccak(_abi(key, round_number, to_checksum_address(miner)))
