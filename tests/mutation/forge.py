"""Plays forge's tests on a mutated arena, in a process group that dies as a whole.

Mutants loop for ever: what forge started is killed with it, by the group's number. The tests are
compiled once, in a copy of the tree below ``.build/mutation``, and deploy the bytecode in the file
that ``ARENA_CODE`` names.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ARENA: Final = Path(".build/arena.hex")
# Alternatives beside each other exceed what a chain would deploy; the seed makes runs repeatable.
ENVIRONMENT: Final = {
    "ARENA_CODE": str(ARENA),
    "FOUNDRY_CODE_SIZE_LIMIT": "100000000",
    "FOUNDRY_FUZZ_SEED": "0x706f7577",
    "FOUNDRY_INVARIANT_SHRINK_RUN_LIMIT": "0",
    "FOUNDRY_FUZZ_FAILURE_PERSIST_DIR": ".build/failures",
    "FOUNDRY_INVARIANT_FAILURE_PERSIST_DIR": ".build/failures",
}
SOLC: Final = """#!/bin/sh
if [ "$1" = --version ]; then printf '%s\\n' '{version}'; else exec '{solc}' "$@"; fi
"""


class BrokenBuild(RuntimeError):
    """Forge failed without a failing test: nothing was learnt about the mutant."""


@dataclass(frozen=True)
class Killer:
    """Some tests, and how much processor time, or time by the clock, one run of them may take.

    A busy machine makes nobody late; the clock is for what waits without using the processor.
    """

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    cpu_seconds: int = 60
    clock_seconds: float = 1200.0


# Not the crowds, which are slow, nor deployments, which are of the arena as it is.
ELSEWHERE: Final = "Canary|Invariants|Crowds|Deployment"
# Fast ones first: what one notices the next need not play.
KILLERS: Final = (
    Killer("directed", ("--no-match-contract", ELSEWHERE, "--no-match-test", "testFuzz_")),
    Killer("fuzz", ("--match-test", "testFuzz_"), {"FOUNDRY_FUZZ_RUNS": "24"}),
    Killer("invariants", ("--match-contract", "InvariantsTest"), {"FOUNDRY_INVARIANT_RUNS": "4"}),
)


class Forge:
    """Forge in a copy of the repository's contracts and forge tests."""

    def __init__(self, repository: Path, folder: Path, binary: Path | None = None) -> None:
        """``binary``: by default the platform's, since npm's wrappers exit 0 whatever happens."""
        self.tree = folder / "tree"
        binaries = (
            [binary]
            if binary
            else sorted(repository.glob("node_modules/@foundry-rs/forge-*/bin/forge"))
        )
        if not binaries:
            raise BrokenBuild("no forge: run `make node_modules/.installed`")
        self._binary = binaries[0]
        for name in ("contracts", "tests/forge"):
            shutil.rmtree(self.tree / name, ignore_errors=True)
            shutil.copytree(repository / name, self.tree / name)
        shutil.copy(repository / "foundry.toml", self.tree)
        (self.tree / ".build" / "visits").mkdir(parents=True, exist_ok=True)
        if not (self.tree / "node_modules").is_symlink():
            (self.tree / "node_modules").symlink_to(repository / "node_modules")
        self._solc = self._quick_solc(repository / "scripts" / "solc" / "solc-v0.8.37")

    def _quick_solc(self, solc: Path) -> Path:
        """Forge asks for the version at every start, and loading the compiler takes a second."""
        version = subprocess.run([solc, "--version"], capture_output=True, text=True, check=True)
        quick = self.tree / "solc-v0.8.37"
        quick.write_text(SOLC.format(version=version.stdout.strip(), solc=solc), encoding="utf-8")
        quick.chmod(0o755)
        return quick

    def build(self) -> None:
        """Compile the tests."""
        code, output = self._run(("build", "tests/forge"), Killer("build", (), cpu_seconds=600))
        if code != 0:
            raise BrokenBuild(output[-4000:])

    def deploy(self, creation: str) -> None:
        """Let the tests deploy this creation code from now on."""
        (self.tree / ARENA).write_text(creation, encoding="ascii")

    def play(self, killer: Killer, chosen: int) -> str:
        """Name of the first test that fails where ``chosen`` runs, ``timeout``, or nothing.

        Raises :class:`BrokenBuild` where forge fails for another reason.
        """
        shutil.rmtree(self.tree / ".build" / "failures", ignore_errors=True)
        options = ("--json", "--fail-fast", "--threads", "1")
        choice = ("--block-prevrandao", f"0x{chosen:064x}")
        code, output = self._run(("test", *options, *choice, *killer.arguments), killer)
        if code is None:
            return "timeout"
        failed = _failed(output)
        if (code == 0) == bool(failed) or code not in (0, 1):
            tail = output[-4000:]
            raise BrokenBuild(f"exit code {code}, failing test: {failed or 'none'}\n{tail}")
        return failed

    def _run(self, arguments: tuple[str, ...], killer: Killer) -> tuple[int | None, str]:
        """Exit code, none where it took too long, and output; leaves no process behind."""
        process = subprocess.Popen(
            [str(self._binary), *arguments],
            cwd=self.tree,
            env={
                **os.environ,
                **ENVIRONMENT,
                "FOUNDRY_SOLC": str(self._solc),
                **killer.environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (killer.cpu_seconds, killer.cpu_seconds))
        try:
            output, _ = process.communicate(timeout=killer.clock_seconds)
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        late = process.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
        return (None if late else process.returncode), output


def _failed(output: str) -> str:
    """The first failing test in forge's JSON, one line among those that report on the way."""
    for line in output.splitlines():
        if not line.startswith("{"):
            continue
        for suite, result in json.loads(line).items():
            tests: dict[str, Any] = (
                result.get("test_results", {}) if isinstance(result, dict) else {}
            )
            for test, outcome in tests.items():
                if outcome["status"] == "Failure":
                    return f"{suite.split(':')[-1]}.{test.split('(')[0]}"
    return ""
