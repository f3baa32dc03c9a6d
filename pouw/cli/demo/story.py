"""The story of the demo: two whole rounds by separate processes, then an audit by a new node."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pouw.cli.demo import cast as people
from pouw.cli.demo import tasks
from pouw.cli.demo.children import Child, Children, pouw, tail
from pouw.cli.demo.chronicle import Chronicle
from pouw.cli.demo.screen import Screen
from pouw.cli.loop import read_status
from pouw.cli.output import duration
from pouw.errors import ChainUnavailable, ProcessError

if TYPE_CHECKING:
    from pouw.chain.arena import ArenaClient
    from pouw.roles.view import View

ROUNDS: Final = 2
_PORT: Final = 8545
_START_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 1.0
_SLACK_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What the story leaves behind: the arena, who played, and what the audit said."""

    rpc: str
    arena: ArenaClient
    cast: people.Cast
    from_block: int
    audit_code: int


def play(out: Path, rpc: str | None, screen: Screen, children: Children) -> Stage:
    """Play both rounds and audit them; ProcessError where the story does not go on."""
    story = _Story(out, screen, children)
    story.prepare(rpc)
    story.publish(people.OFFERS[0])
    story.start_roles()
    for offer in people.OFFERS[1:]:
        story.publish(offer)
    story.follow()
    story.end_roles()
    code = story.audit()
    return Stage(story.rpc, story.arena, story.cast, story.from_block, code)


class _Story:
    arena: ArenaClient

    def __init__(self, out: Path, screen: Screen, children: Children) -> None:
        self._out = out
        self._screen = screen
        self._children = children
        self.cast = people.Cast(out / "roles")
        self.rpc = ""
        self.from_block = 0
        self._roles: list[str] = []
        self._chronicle: Chronicle | None = None

    def prepare(self, rpc: str | None) -> None:
        """Chain, accounts, money, arena and data."""
        from pouw.chain.accounts import dev_account
        from pouw.chain.arena import deploy
        from pouw.chain.rpc import Endpoint, EndpointRefused
        from pouw.chain.tx import Sender

        say = self._screen.say
        data = self._children.start(
            "data", [sys.executable, "-m", tasks.__name__, str(self._out / "data")], lasting=False
        )
        self.rpc = rpc or self._start_devnet()
        endpoint = Endpoint.connect(self.rpc)
        say(f"chain {endpoint.chain_id()} at {endpoint.url}")
        if rpc:
            # A chain that mines only when it is sent something never gets past a deadline.
            with contextlib.suppress(EndpointRefused):
                endpoint.request("evm_setIntervalMining", 1)
        self.cast.create()
        bank = Sender(endpoint, dev_account(0))
        self.cast.fund(bank)
        before = endpoint.block_number()
        oracles = tuple(self.cast.addresses[name] for name in people.ORACLES)
        parameters = people.parameters(oracles)
        self.arena = deploy(bank, parameters)
        self.from_block = self.arena.deployment_block(before)
        self.cast.configure(self.rpc, self.arena.address, self.from_block)
        self._chronicle = Chronicle(self.arena, self.cast, self.from_block)
        say(
            f"arena {self.arena.address}: {duration(parameters.phase1)} of Phase 1, "
            f"{duration(parameters.phase2)} of Phase 2, "
            f"{parameters.threshold} of {len(oracles)} oracles decide"
        )
        self._await(
            "the data sets",
            data,
            lambda: all(
                tasks.recipe_file(self._out / "data", name).exists()
                for name in ("brain2d", "brain3d")
            ),
        )

    def _start_devnet(self) -> str:
        port = _PORT if _is_free(_PORT) else 0
        arguments = ("--data", str(self._out / "chain"), "--port", str(port), "--json")
        child = self._children.start("devnet", pouw("devnet", *arguments, "--while-stdin-open"))
        self._await("the chain", child, lambda: _announced(child.log) is not None)
        return str(_announced(child.log))

    def _await(self, what: str, child: Child, ready: Callable[[], bool]) -> None:
        limit = time.monotonic() + _START_SECONDS
        while not ready():
            self._children.check()
            if time.monotonic() > limit:
                raise ProcessError(f"{what} did not come: {tail(child.log)}")
            time.sleep(0.1)

    def publish(self, offer: people.Offer) -> None:
        """Publish one task, as its publisher would from a shell."""
        folder = self._out / "data"
        source = f"brain{offer.dims}d"
        arguments = {
            "--title": offer.title,
            "--dims": str(offer.dims),
            "--reward": f"{offer.reward_wei}wei",
            "--minimum": f"{offer.min_score_ppm / 1e6:.6f}",
            "--modality": tasks.MODALITY,
            "--licence": tasks.LICENCE,
            "--citation": tasks.CITATION,
            "--recipe": str(tasks.recipe_file(folder, source).resolve()),
        }
        words = [word for pair in arguments.items() for word in pair]
        self._children.run(
            f"publish-{offer.name}",
            pouw(
                "publisher",
                "publish",
                str((folder / source).resolve()),
                *words,
                "--data-will-be-public",
                "--json",
            ),
            cwd=self.cast.home(offer.publisher),
        )
        self._tell()

    def start_roles(self) -> None:
        """Everybody but the publisher of the poor task, who waits for better times."""
        adversary = [sys.executable, "-m", "pouw.cli.demo.adversary"]
        open_stdin = "--while-stdin-open"
        self._start(people.PUBLISHER, pouw("publisher", "run", open_stdin))
        for actor in people.MINERS:
            self._start(actor.name, pouw(*actor.arguments, open_stdin), actor.niceness)
        self._start(people.LIAR, [*adversary, "over-claim"], 10)
        self._start(people.COPYCAT, [*adversary, "copycat"])
        for name in people.ORACLES:
            self._start(name, pouw(*people.ORACLE, open_stdin))

    def _start(self, name: str, command: list[str], niceness: int = 0) -> None:
        self._children.start(name, command, cwd=self.cast.home(name), niceness=niceness)
        self._roles.append(name)

    def follow(self) -> None:
        """Watch until both rounds are closed, every bond is settled and everybody is paid."""
        chronicle, parameters = self._chronicle, self.arena.parameters()
        assert chronicle is not None
        round_seconds = parameters.phase2 + parameters.key_window + parameters.phase1
        limit = time.monotonic() + ROUNDS * round_seconds + parameters.phase2 + _SLACK_SECONDS
        while not set(range(1, ROUNDS + 1)) <= chronicle.closed or self._owes():
            if time.monotonic() > limit:
                raise ProcessError(
                    "the rounds do not come to their end", hint=f"see {self._out / 'logs'}"
                )
            time.sleep(_POLL_SECONDS)
            self._children.check()
            self._tell()

    def _owes(self) -> bool:
        """Whether somebody's bond or credit is still in the arena."""
        assert self._chronicle is not None
        return bool(self._chronicle.unsettled) or any(
            self.arena.credit(address) for address in self.cast.addresses.values()
        )

    def _tell(self) -> View | None:
        from pouw.roles.view import read_view

        assert self._chronicle is not None
        try:
            for line in self._chronicle.read():
                self._screen.say(line)
            view = read_view(self.arena, 1)
        except ChainUnavailable as error:
            self._screen.say(str(error))
            return None
        boundary = view.next_boundary()
        phase = f"round {view.state.rounds}, {view.phase}"
        if boundary:
            phase += f"; {boundary[0]} in {duration(boundary[1] - view.now)}"
        said: list[tuple[str, dict[str, Any] | None]] = [
            (name, read_status(self.cast.home(name))) for name in self._roles
        ]
        self._screen.show(phase, said)
        return view

    def end_roles(self) -> None:
        """Everybody goes home; only the chain and the store remain."""
        self._children.end(*self._roles)

    def audit(self) -> int:
        """A new node, given only the chain and the store, rechecks everything; its exit code.

        Beside it the pictures are made, from the same sources.
        """
        self._screen.say("a new node audits both rounds, from the chain and the store alone")
        drawing = self._children.start(
            "pictures",
            [sys.executable, "-m", "pouw.cli.demo.pictures"],
            cwd=self._out,
            lasting=False,
        )
        code, _ = self._children.run(
            "node",
            pouw("node", "audit", "--rescore", "all", "--out", "audit.json", "--json"),
            {"POUW_HOME": str((self._out / "roles" / "node").resolve())},
            cwd=self._out,
            accept=(0, 2, 3),
        )
        self._await("the pictures", drawing, lambda: drawing.process.poll() is not None)
        self._children.check()
        return code


def _announced(log: Path) -> str | None:
    """The endpoint that a devnet printed, once it did."""
    try:
        document = json.loads(log.read_text().splitlines()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
    return str(document["rpc"]) if "rpc" in document else None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
