"""Fixtures of the contract tests: real contracts on the in-process EVM, compiled once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from scene import Cast, Scene, parameters_of

os.environ.setdefault(
    "SOLCX_BINARY_PATH", str(Path(__file__).resolve().parents[2] / "scripts" / "solc")
)


@pytest.fixture(scope="session")
def cast(accounts: Any) -> Cast:
    """Accounts by the part they play."""
    return Cast.of(accounts)


@pytest.fixture(scope="session")
def arena(cast: Cast) -> Scene:
    """The usual arena, idle; every test gets it as it was deployed."""
    return Scene.deploy(cast, parameters_of(cast))
