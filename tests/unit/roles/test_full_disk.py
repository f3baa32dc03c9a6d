"""A full disk beside a role: keys, commitments and votes leave all the same.

The disk is one of memory that the child mounts in a namespace of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from one_round import PARAMETERS, PUBLISHER, ROUND, TASK, TEST_KEY, WINNER, Stage

from pouw.chain.rpc import Endpoint
from pouw.hashing import data_key_of
from pouw.types import EntryState

MOUNTED = 'mount -t tmpfs -o size=24m none "$2" && exec "$0" "$@"'
BEGIN = """
import json, sys
from pathlib import Path
from pouw.chain.accounts import dev_account
from pouw.chain.arena import ArenaClient
from pouw.chain.rpc import Endpoint
from pouw.chain.tx import Sender
from pouw.journal import Journal
from pouw.roles.base import Errands, Setup
from pouw.roles.drafts import Draft, Drafts
from pouw.roles.outbox import JournalOutbox
from pouw.roles.publisher import Publisher
from pouw.storage.local import LocalStore

disk, url, arena, account, restart = Path(sys.argv[1]), *sys.argv[2:6]
home, said = disk / "home", []
endpoint = Endpoint.connect(url)

def setup(journal):
    sender = Sender(endpoint, dev_account(int(account)), JournalOutbox(journal))
    store = LocalStore(disk / "store")
    return Setup(
        ArenaClient(sender, arena), store, home, journal, 1, 0, lambda one: said.append(one.text)
    )

def fill():
    with (disk / "others").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass

def wait(seconds):
    endpoint.request("evm_increaseTime", seconds)
    endpoint.request("evm_mine")

journal = Journal(home / "journal.sqlite")
"""
PUBLISHER_RUNS = """
Drafts(journal).add(Draft(b"d" * 32, b"\\x07" * 32, "t", task_id=1, told=True, told_at=1), ())
publisher = Publisher(setup(journal), inline=True)
publisher.run_once()
fill()
if restart == "True":
    publisher.close()
    journal.close()
    fill()
    journal = Journal(home / "journal.sqlite")
    publisher = Publisher(setup(journal), inline=True)
did = []
for seconds in map(int, sys.argv[6:]):
    wait(seconds)
    fill()
    did.append(publisher.run_once().doing)
print(json.dumps({"did": did, "said": said}))
"""
ERRAND = """
world = setup(journal)
errands = Errands(world, inline=True)
fill()

def commit():
    world.store.put_bytes(bytes(100_000))
    journal.put("commitments", "1", "x" * 2_000)
    world.arena.commit(1, b"c" * 32)

for _ in range(2):
    errands.send("commit", commit)
print(json.dumps({"kept": len(journal.items("commitments")), "said": said}))
"""


@pytest.fixture
def stage(anvil_url: str) -> Iterator[Stage]:
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    endpoint = Endpoint.connect(anvil_url)
    yield Stage(endpoint)
    endpoint.close()


class Child:
    """Runs a script on a disk of its own."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.disk, self.file = stage, folder / "disk", folder / "script.py"
        self.disk.mkdir()

    def run(self, script: str, who: int, *waits: int, restart: bool = False) -> Any:
        """What it says of itself."""
        self.file.write_text(BEGIN + script)
        words = (self.stage.endpoint.url, self.stage.arena.address, who, restart, *waits)
        child = [sys.executable, self.file, self.disk, *map(str, words)]
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", MOUNTED, *child], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout)


@pytest.mark.parametrize("restart", [False, True])
def test_publisher__disk_is_full__releases_both_keys_in_time(
    stage: Stage, tmp_path: Path, restart: bool
) -> None:
    waits = (PARAMETERS.phase2, PARAMETERS.phase1)
    said = Child(stage, tmp_path).run(PUBLISHER_RUNS, PUBLISHER, *waits, restart=restart)

    assert said["did"] == ["release the data key", "open the test set"]
    assert stage.arena.task(TASK).round == ROUND
    assert stage.arena.round(ROUND).opened


def test_errand__disk_is_full__gives_up_what_was_set_aside_and_says_so(
    stage: Stage, tmp_path: Path
) -> None:
    stage.wait(PARAMETERS.phase2)
    stage.clients[PUBLISHER].release_data_key(data_key_of(TEST_KEY))

    said = Child(stage, tmp_path).run(ERRAND, WINNER)

    assert stage.arena.entry(ROUND, stage.address(WINNER)).state is EntryState.COMMITTED
    assert said["kept"] == 1
    (warning,) = said["said"]
    assert "the disk is full" in warning
