"""Runs forge, by the platform's binary: npm's wrappers exit 0 even when tests fail."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def forge(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of forge in the repository, its output captured."""
    binaries = sorted(ROOT.glob("node_modules/@foundry-rs/forge-*/bin/forge"))
    assert binaries, "npm ci installs forge's binary for this platform"
    return subprocess.run(
        [str(binaries[0]), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_forge__fuzz_tests__pass() -> None:
    done = forge("test", "--match-contract", "CallsTest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout


def test_forge__canary__fails_the_build() -> None:
    done = forge("test", "--match-contract", "CanaryTest")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the canary sings" in done.stdout
