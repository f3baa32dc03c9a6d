"""Every leaf of trees/*.tree names one test, every test of the calls stands in a tree.

A leaf reads ``it should …  test_name``; its branch says given and when. Every call of IPoUW has a
tree, every custom error stands in one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ABI = json.loads(
    (HERE.parents[1] / "pouw" / "chain" / "artifacts" / "PoUW.json").read_text(encoding="utf-8")
)["abi"]
LEAF = re.compile(r"[├└]── (it should .+?)  (test_\w+)$")
# Errors of the libraries: a name too long for OpenZeppelin's EIP712, a token that fails.
OTHERS = {"InvalidShortString", "StringTooLong", "SafeERC20FailedOperation"}


def leaves() -> dict[str, str]:
    """Test name to what the leaf says, over all trees."""
    found: dict[str, str] = {}
    for tree in sorted((HERE / "trees").glob("*.tree")):
        for line in tree.read_text(encoding="utf-8").splitlines()[1:]:
            if match := LEAF.search(line):
                assert match[2] not in found, f"{match[2]} stands twice"
                found[match[2]] = match[1]
            else:
                assert "it should" not in line, f"{tree.name}: a leaf without a test: {line}"
    return found


def defined(*patterns: str) -> Counter[str]:
    """Names of the tests in the modules that match."""
    modules = [path for pattern in patterns for path in HERE.glob(pattern)]
    text = "\n".join(path.read_text(encoding="utf-8") for path in modules)
    return Counter(re.findall(r"^def (test_\w+)", text, re.MULTILINE))


def test_trees__every_leaf__has_a_test() -> None:
    assert set(leaves()) - set(defined("test_*.py")) == set()


def test_trees__every_test_of_a_call__has_a_leaf() -> None:
    tests = defined("test_call_*.py", "test_tokens.py")
    assert set(tests) - set(leaves()) == set()
    assert max(tests.values()) == 1


def test_trees__every_call__has_a_tree() -> None:
    calls = {
        entry["name"]
        for entry in ABI
        if entry["type"] == "function" and entry["stateMutability"] in ("payable", "nonpayable")
    }
    trees = {path.stem for path in (HERE / "trees").glob("*.tree")}
    assert trees == calls | {"constructor", "views", "PouwToken"}
    for path in (HERE / "trees").glob("*.tree"):
        assert path.read_text(encoding="utf-8").splitlines()[0] == path.stem


def test_trees__every_custom_error__stands_in_one() -> None:
    errors = {entry["name"] for entry in ABI if entry["type"] == "error"} - OTHERS
    said = " ".join(leaves().values())
    assert {error for error in errors if error not in said} == set()


def test_trees__a_revert_by_name__is_what_the_test_asserts() -> None:
    """The branch, the custom error and the test say the same word."""
    texts = [path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py")]
    bodies = {
        name: body
        for text in texts
        for name, body in re.findall(r"^def (test_\w+)(.*?)(?=^def |^@|\Z)", text, re.M | re.S)
    }
    for name, leaf in leaves().items():
        if match := re.match(r"it should revert with (\w+)", leaf):
            assert match[1] in bodies[name] or "refused(" in bodies[name], name
