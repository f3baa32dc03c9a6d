"""A resident Solidity compiler: started once, then a second or two for each mutant."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

HERE = Path(__file__).resolve().parent
ENTRY: Final = "contracts/PoUW.sol"
CONTRACT: Final = "PoUW"
# wasm grows and never shrinks: a new process every so many mutants.
COMPILES_PER_PROCESS: Final = 150


@dataclass(frozen=True)
class Bytecode:
    """What deploys the arena; where it does not compile, errors and their first bytes."""

    creation: str = ""
    errors: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()


def settings(*, optimised: bool) -> dict[str, Any]:
    """Via IR, which the arena needs, and else as little work as possible; or as it is deployed.

    No metadata, so that equal code is equal bytes.
    """
    quick = {
        "enabled": True,
        "runs": 1,
        "details": {
            "cse": False,
            "constantOptimizer": False,
            "inliner": False,
            "yul": True,
            "yulDetails": {"stackAllocation": True, "optimizerSteps": ""},
        },
    }
    return {
        "evmVersion": "cancun",
        "viaIR": True,
        "optimizer": {"enabled": True, "runs": 1000} if optimised else quick,
        "debug": {"debugInfo": []},
        "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
        "outputSelection": {ENTRY: {CONTRACT: ["evm.bytecode.object"]}},
    }


class Compiler:
    """Compiles the arena below ``root``, with some of its sources replaced."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: subprocess.Popen[str] | None = None
        self._left = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def bytecode(self, sources: dict[str, str], *, optimised: bool = False) -> Bytecode:
        """The arena's creation code; ``sources`` (path to content) stand in for the files."""
        output = self._ask(sources, settings(optimised=optimised))
        errors = [entry for entry in output.get("errors", ()) if entry["severity"] == "error"]
        if errors:
            starts = tuple(
                entry["sourceLocation"]["start"]
                for entry in errors
                if entry.get("sourceLocation", {}).get("file") in sources
            )
            return Bytecode("", tuple(entry["formattedMessage"] for entry in errors), starts)
        return Bytecode(output["contracts"][ENTRY][CONTRACT]["evm"]["bytecode"]["object"])

    def syntax(self) -> dict[str, Any]:
        """Abstract syntax trees of every source that the arena needs, by path."""
        output = self._ask({}, {"outputSelection": {"*": {"": ["ast"]}}})
        return {path: source["ast"] for path, source in output["sources"].items()}

    def _ask(self, sources: dict[str, str], wanted: dict[str, Any]) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        entry = {ENTRY: (self._root / ENTRY).read_text(encoding="utf-8")}
        process.stdin.write(
            json.dumps({"sources": {**entry, **sources}, "settings": wanted}) + "\n"
        )
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the compiler ended with exit code {process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._left > 0:
            self._left -= 1
            return self._process
        self._stop()
        self._left = COMPILES_PER_PROCESS
        self._process = subprocess.Popen(
            ["node", str(HERE / "compiler.js"), str(self._root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
