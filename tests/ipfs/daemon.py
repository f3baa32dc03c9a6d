"""Real IPFS daemons on free ports: Kubo where `ipfs` is on PATH, else the one from npm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import httpx

HERE = Path(__file__).parent
JSIPFS = HERE / "node_modules/.bin/jsipfs"
START_SECONDS = 120


def executable() -> tuple[str, dict[str, str]]:
    """The program, and what it needs in its environment."""
    kubo = shutil.which("ipfs")
    if kubo:
        return kubo, {}
    assert JSIPFS.exists(), "no IPFS daemon: put Kubo's `ipfs` on PATH or run `make test-ipfs` once"
    return str(JSIPFS), {"NODE_OPTIONS": f"--require {HERE / 'promise.cjs'}"}


def make_repository(folder: Path) -> Path:
    """A fresh repository whose daemon talks to nobody but clients on this machine."""
    program, environment = executable()
    subprocess.run(
        [program, "init", "--profile", "test"],
        env={**os.environ, **environment, "IPFS_PATH": str(folder)},
        check=True,
        capture_output=True,
        timeout=START_SECONDS,
    )
    config = json.loads((folder / "config").read_text())
    anywhere = "/ip4/127.0.0.1/tcp/0"
    config["Addresses"].update(API=anywhere, Gateway=anywhere, Swarm=[])
    if "RPC" in config["Addresses"]:  # js-ipfs has a second one, of its own kind
        config["Addresses"]["RPC"] = ""
    (folder / "config").write_text(json.dumps(config))
    return folder


class Daemon:
    """A daemon with a copy of ``repository`` until the block ends; wait, then use its ``rpc``."""

    def __init__(self, repository: Path, folder: Path) -> None:
        shutil.copytree(repository, folder)
        program, environment = executable()
        self.folder = folder
        self._log = (folder / "daemon.log").open("wb")
        self._process = subprocess.Popen(
            [program, "daemon", "--offline"],
            env={**os.environ, **environment, "IPFS_PATH": str(folder)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self.rpc = ""

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                parts = (self.folder / "api").read_text().strip().split("/")
                self.rpc = f"http://{parts[2]}:{parts[4]}"
                self.ask("version")
            except (OSError, IndexError, httpx.HTTPError):
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"no daemon: {(self.folder / 'daemon.log').read_text()}")

    def ask(self, method: str, **parameters: str) -> list[dict[str, Any]]:
        """The RPC without our client: the lines of the answer."""
        answer = httpx.post(f"{self.rpc}/api/v0/{method}", params=parameters, timeout=30)
        answer.raise_for_status()
        return [json.loads(line) for line in answer.text.splitlines() if line]

    def blocks(self) -> frozenset[str]:
        """Every block that the daemon has, by its CID as a raw block: codecs are not kept."""
        return frozenset(line["Ref"] for line in self.ask("refs/local"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
