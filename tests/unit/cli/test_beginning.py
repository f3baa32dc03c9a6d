"""A role that starts before its chain does, as after a reboot, waits for it."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pouw.chain.accounts import dev_account
from pouw.chain.devnet import Devnet
from pouw.cli.main import main

ARENA = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
DEADLINE_SECONDS = 60


@contextlib.contextmanager
def started(*words: str) -> Iterator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """A command as a process, and the lines that it says; killed after a while in any case."""
    command = [sys.executable, "-m", "pouw.cli.main", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        watchdog = threading.Timer(DEADLINE_SECONDS, child.kill)
        watchdog.start()
        try:
            yield child, iter(child.stderr)
        finally:
            watchdog.cancel()
            child.kill()


def test_role__chain_does_not_answer_yet__waits_and_begins_when_it_does(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Devnet(folder / "chain", port=0, block_seconds=0) as devnet:
        url = devnet.url
        command = ["deploy", "--oracle", dev_account(5).address, "--rpc", url, "--json"]
        assert main(command) == 0
        arena = json.loads(capsys.readouterr().out)["arena"]

    words = ["publisher", "run", "--rpc", url, "--arena", arena, "--poll", "0.2"]
    with started(*words) as (child, lines):
        assert "does not answer" in next(lines)
        assert "is it running" in next(lines)
        with Devnet(folder / "chain", port=int(url.rsplit(":", 1)[1]), block_seconds=0):
            assert "idle: wait" in next(lines)
            child.send_signal(signal.SIGTERM)
            assert child.wait() == 0


def test_role__ended_while_it_waits_for_its_chain__ends(folder: Path) -> None:
    words = ["miner", "run", "--rpc", "http://127.0.0.1:9", "--arena", ARENA]
    with started(*words) as (child, lines):
        assert "does not answer" in next(lines)
        child.send_signal(signal.SIGTERM)
        assert child.wait() == 0


def test_role__one_step_where_the_chain_does_not_answer__is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["miner", "run", "--once", "--rpc", "http://127.0.0.1:9", "--arena", ARENA]
    assert main(words) == 1
    assert "does not answer" in capsys.readouterr().err


def test_role__no_contract_at_the_address__ends_at_once(
    arena: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["miner", "run", "--arena", dev_account(7).address]) == 1
    assert "no contract" in capsys.readouterr().err
