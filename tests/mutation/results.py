"""What became of each mutant, one line of JSON each: a run that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from .mutants import Mutant


class Fate(StrEnum):
    """``STILLBORN`` mutants do not compile, ``SAME`` ones compile to the original's very bytes;
    whether an ``UNNOTICED`` one does is not known yet."""

    KILLED = "killed"
    UNNOTICED = "unnoticed"
    SURVIVED = "survived"
    STILLBORN = "stillborn"
    SAME = "same"


@dataclass(frozen=True)
class Result:
    """``key`` binds it to the mutated sources and the tests; ``by`` names the test that noticed."""

    key: str
    path: str
    line: int
    name: str
    fate: Fate
    by: str = ""
    seconds: float = 0.0


class Results:
    """Results on disk, appended one by one."""

    def __init__(self, file: Path, tree: Path) -> None:
        self._file = file
        self._tests = _digest(tree, "tests/forge", "*.sol") + _digest(tree, ".", "foundry.toml")
        self._contracts = {
            path.relative_to(tree).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted((tree / "contracts").rglob("*.sol"))
        }
        self._known: dict[str, Result] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a run that was killed
            self._known[entry["key"]] = Result(**{**entry, "fate": Fate(entry["fate"])})

    def key(self, mutant: Mutant, *, tests: bool = True) -> str:
        """What a result depends on: all contracts, one of them mutated, and the tests."""
        content = self._contracts[mutant.path].encode()
        parts = {
            **self._contracts,
            mutant.path: mutant.source(content),
            "tests": self._tests if tests else "",
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def known(self, mutant: Mutant, *, other_tests: bool = False) -> Result | None:
        """The mutant's result; with ``other_tests`` also one by the tests as they were before."""
        exact = self._known.get(self.key(mutant))
        if exact is not None or not other_tests:
            return exact
        before = self._known.get(self.key(mutant, tests=False))
        return None if before is None or before.fate in (Fate.SURVIVED, Fate.UNNOTICED) else before

    def add(self, mutant: Mutant, fate: Fate, by: str = "", seconds: float = 0.0) -> Result:
        """Write the result under the tests as they are, and as what was once found out."""
        keys = (self.key(mutant, tests=False), self.key(mutant))
        with self._file.open("a", encoding="utf-8") as file:
            for key in keys:
                result = Result(
                    key, mutant.path, mutant.line, mutant.name, fate, by, round(seconds, 2)
                )
                self._known[key] = result
                file.write(json.dumps(asdict(result)) + "\n")
        return result


def _digest(tree: Path, folder: str, pattern: str) -> str:
    digest = hashlib.sha256()
    for path in sorted((tree / folder).glob(pattern)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
