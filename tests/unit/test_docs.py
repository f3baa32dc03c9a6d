"""The documents are true: every row names tests that exist, hashes are those of the package.

In `docs/protocol.md` and `docs/trust.md` the last column of every table is "held by": names of
tests, or in the latter the words "not defended".
"""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pouw.chain.abi import artifact
from pouw.hashing import (
    COMMIT_TYPEHASH,
    REVEAL_TYPEHASH,
    checksum_address,
    commitment,
    domain_separator,
    header_hash,
    keccak,
    pool_history,
    reveal_digest,
    reveal_hash,
)
from pouw.types import Address, Header, PoolChange, RoundNumber, TaskId, Verdict

ROOT = Path(__file__).resolve().parents[2]
HELD_BY = "held by"
UNDEFENDED = "not defended"
NAME = re.compile(r"`([^`]*)`")
SOLIDITY = re.compile(r"^    function ((?:test|testFuzz|invariant)_\w+)\(", re.MULTILINE)


@dataclass(frozen=True)
class Table:
    """One table of a document, its rows without the separator."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(text: str) -> list[Table]:
    """The tables of a Markdown text outside of code blocks, each with the heading above it."""
    found: list[Table] = []
    heading, block, code = "", [], False
    for line in [*text.splitlines(), ""]:
        code ^= line.startswith("```")
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("|") and not code:
            block.append(tuple(cell.strip() for cell in line.strip().strip("|").split("|")))
        elif block:
            found.append(Table(heading, block[0], tuple(block[2:])))
            block = []
    return found


@functools.cache
def existing() -> frozenset[str]:
    """Every test that pytest or forge collects here, but for the canary, which fails."""
    names: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        names |= {
            node.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        }
    for path in (ROOT / "tests" / "forge").glob("*.t.sol"):
        names |= set(SOLIDITY.findall(path.read_text(encoding="utf-8")))
    return frozenset(names - {"test_canary__alwaysFails"})


def problems(text: str, names: frozenset[str], *, undefended: bool) -> list[str]:
    """What is wrong with the tables of a document."""
    wrong: list[str] = []
    for table in tables(text):
        if table.columns[-1] != HELD_BY:
            wrong.append(f"{table.heading}: the last column is not {HELD_BY!r}")
            continue
        for row in table.rows:
            where = f"{table.heading}: {row[0] or row[1]}"
            cited = NAME.findall(row[-1])
            if len(row) != len(table.columns):
                wrong.append(f"{where}: {len(row)} cells, not {len(table.columns)}")
            if not cited and not (undefended and row[-1].startswith(UNDEFENDED)):
                wrong.append(f"{where}: no test")
            wrong += [f"{where}: no test {name}" for name in cited if name not in names]
    return wrong


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def table_of(name: str, heading: str, first_column: str) -> Table:
    (found,) = (
        table
        for table in tables(document(name))
        if table.heading == heading and table.columns[0] == first_column
    )
    return found


@pytest.mark.parametrize(("name", "undefended"), [("protocol.md", False), ("trust.md", True)])
def test_document__every_row__names_tests_that_exist(name: str, undefended: bool) -> None:
    assert problems(document(name), existing(), undefended=undefended) == []
    assert len(tables(document(name))) >= 5


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("| a | held by |\n| --- | --- |\n| x | `test_a` |", []),
        ("| a | held by |\n| --- | --- |\n| x | `test_b` |", ["H: x: no test test_b"]),
        ("| a | held by |\n| --- | --- |\n| x | `test_a` `test_b` |", ["H: x: no test test_b"]),
        ("| a | held by |\n| --- | --- |\n| x | |", ["H: x: no test"]),
        ("| a | held by |\n| --- | --- |\n| x | by trust |", ["H: x: no test"]),
        ("| a | held by |\n| --- | --- |\n| x | not defended: why |", []),
        ("| a | held by |\n| --- | --- |\n| x | y | `test_a` |", ["H: x: 3 cells, not 2"]),
        ("| a | b |\n| --- | --- |\n| x | y |", ["H: the last column is not 'held by'"]),
        ("```\n| a | b |\n```", []),
    ],
)
def test_problems__row_without_a_test_or_with_another__is_named(
    table: str, expected: list[str]
) -> None:
    assert problems(f"# H\n\n{table}\n", frozenset({"test_a"}), undefended=True) == expected


def test_problems__protocol__leaves_nothing_undefended() -> None:
    text = "# H\n\n| a | held by |\n| --- | --- |\n| x | not defended |\n"
    assert problems(text, frozenset(), undefended=False) == ["H: x: no test"]


def test_existing__tests_of_both_kinds__are_found_and_the_canary_is_none() -> None:
    assert {
        "test_existing__tests_of_both_kinds__are_found_and_the_canary_is_none",
        "testFuzz_commit__anyTime__onlyInPhase1",
        "invariant_theTen__afterEveryMove__hold",
    } < existing()
    assert "test_canary__alwaysFails" not in existing()


def test_protocol__calls__are_those_of_the_contract_and_their_errors_too() -> None:
    path = ROOT / "pouw" / "chain" / "artifacts" / "PoUW.json"
    abi = json.loads(path.read_text(encoding="utf-8"))["abi"]
    calls = table_of("protocol.md", "Calls", "call")
    named = [NAME.findall(row[0])[0] for row in calls.rows]
    assert sorted(named) == sorted(
        entry["name"]
        for entry in abi
        if entry["type"] == "function" and entry["stateMutability"] in ("payable", "nonpayable")
    )
    # The rest are the constructor's, a view's and the libraries'.
    told = {error for row in calls.rows for error in NAME.findall(row[2])}
    others = {"InvalidParameter", "InvalidShortString", "StringTooLong", "SafeERC20FailedOperation"}
    assert told == {error.name for error in artifact().errors.values()} - others


def test_protocol__parameters_and_invariants__are_complete() -> None:
    parameters = table_of("protocol.md", "Parameters", "parameter")
    named = [name for row in parameters.rows for name in NAME.findall(row[0])]
    (constructor,) = artifact().constructor
    assert len(named) == len(set(named)) == constructor.count(",") + 1
    invariants = table_of("protocol.md", "Invariants", "")
    assert [row[0] for row in invariants.rows] == [str(number) for number in range(1, 11)]


def word(position: int) -> int:
    return 256 * position + 1


def bytes_of(position: int) -> bytes:
    return word(position).to_bytes(32, "big")


def account(position: int) -> Address:
    return checksum_address(word(position).to_bytes(20, "big"))


def vectors() -> dict[str, bytes]:
    """The documented vectors by name."""
    lines = re.findall(r"^([\w -]+?) += 0x([0-9a-f]+)$", document("protocol.md"), re.MULTILINE)
    return {name: bytes.fromhex(digits) for name, digits in lines}


def preimage(column: str) -> bytes:
    """A column of the table of preimages, filled in as the text below it says."""
    table = table_of("protocol.md", "Hashes", "word")
    place = table.columns.index(column)
    given: dict[str, Callable[[], bytes]] = {
        "COMMIT_TYPEHASH": lambda: COMMIT_TYPEHASH,
        "typehash of `Reveal`": lambda: REVEAL_TYPEHASH,
        "keccak(signature)": lambda: keccak(b"\x33" * 65),
        "kind": lambda: bytes([2]).rjust(32, b"\0"),
        "verdict": lambda: bytes([1]).rjust(32, b"\0"),
        "revealDigest": lambda: vectors()["revealDigest"].ljust(32, b"\0"),
    }
    fields = [(int(row[0]), row[place]) for row in table.rows if row[place]]
    return b"".join(given.get(field, lambda at=at: bytes_of(at))() for at, field in fields)


def test_protocol__preimages__are_those_of_the_package() -> None:
    """The table, the vectors and the package's functions give the same bytes."""
    told = vectors()
    domain = domain_separator(word(1), account(2))
    number, task_id = RoundNumber(word(0)), TaskId(word(2))
    assert told["domain separator"] == domain
    assert told["commitment"] == keccak(preimage("commitment"))
    assert told["commitment"] == commitment(
        word(1), account(2), RoundNumber(word(3)), account(4), bytes_of(5), bytes_of(6)
    )
    struct = keccak(preimage("EIP-712 struct"))
    assert told["signed digest"] == keccak(b"\x19\x01" + domain + struct)
    assert told["signed digest"] == reveal_hash(
        domain, RoundNumber(word(1)), account(2), bytes_of(3), word(4)
    )
    assert told["revealDigest"] == keccak(preimage("revealDigest"))[:22]
    assert told["revealDigest"] == reveal_digest(bytes_of(0), b"\x33" * 65)
    assert told["poolHistory"] == keccak(preimage("poolHistory"))
    assert told["poolHistory"] == pool_history(
        bytes_of(0), PoolChange.TOP_UP, task_id, account(3), bytes_of(4), word(5)
    )
    header = Header(
        number=number,
        parent=bytes_of(1),
        task_id=task_id,
        spec_digest=bytes_of(3),
        pool_history=bytes_of(4),
        verdict=Verdict.WINNER,
        winner=account(6),
        score=word(7),
        reveal_digest=told["revealDigest"],
        evidence_digest=bytes_of(9),
        closed_at=word(10),
    )
    assert told["header"] == keccak(preimage("header")) == header_hash(header)
