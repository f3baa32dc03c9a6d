import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pouw.cli.loop import Ending, ending_by_signals, is_running, read_status, run_role
from pouw.errors import ChainUnavailable, ConfigError, PouwError
from pouw.roles.base import Status


class Counting:
    """A role that does nothing but count its steps, and ends the loop after some."""

    def __init__(self, ending: Ending, steps: int, errors: tuple[PouwError, ...] = ()) -> None:
        self.steps = 0
        self.closed = False
        self.finished = False
        self._ending = ending
        self._last = steps
        self._errors = list(errors)

    def run_once(self) -> Status:
        self.steps += 1
        if self.steps >= self._last:
            self._ending.set()
        if self._errors:
            raise self._errors.pop(0)
        return Status("miner", "phase 1", "train", "commits end", {"step": self.steps})

    def finish(self) -> None:
        self.finished = not self.closed

    def close(self) -> None:
        self.closed = True


def test_run_role__once__waits_for_what_the_step_began(tmp_path: Path) -> None:
    role = Counting(Ending(), 3)
    run_role(role, tmp_path, Ending(), poll_seconds=0.01, once=True)
    assert role.steps == 1
    assert role.finished
    assert role.closed


def test_run_role__ended_by_a_signal__says_what_was_still_to_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = Ending()
    run_role(Counting(ending, 2), tmp_path, ending, poll_seconds=0.01, once=False)
    assert "ended; still to come: commits end" in capsys.readouterr().err


class Hosting(Counting):
    """A role beside which others are played from the same home, while it takes its step."""

    guests: tuple["Counting", ...] = ()

    def run_once(self) -> Status:
        for guest in self.guests:
            run_role(guest, self.home, Ending(), poll_seconds=0.01, once=True)
        return super().run_once()

    def with_guest(self, guest: Counting, home: Path) -> "Hosting":
        self.guests, self.home = (guest,), home
        return self


@pytest.mark.parametrize(("guest", "warned"), [(Hosting, True), (Counting, False)])
def test_run_role__the_same_role_twice_from_one_home__is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], guest: type[Counting], warned: bool
) -> None:
    role = Hosting(Ending(), 9).with_guest(guest(Ending(), 9), tmp_path)
    run_role(role, tmp_path, Ending(), poll_seconds=0.01, once=True)
    said = capsys.readouterr().err
    assert (f"another process plays this role from {tmp_path} already" in said) == warned


def test_run_role__until_it_is_ended__closes_the_role_and_writes_its_status(tmp_path: Path) -> None:
    ending = Ending()
    role = Counting(ending, 3)

    status = run_role(role, tmp_path, ending, poll_seconds=0.01, once=False)

    assert role.steps == 3
    assert role.closed
    assert status is not None
    said = read_status(tmp_path)
    assert said is not None
    assert time.time() - 60 < said.pop("looked_at_ms") / 1000 <= time.time()
    assert said.pop("block_at_ms") is None
    assert said == {
        "role": "miner",
        "phase": "phase 1",
        "doing": "train",
        "next": "commits end",
        "data": {"step": 3},
        "block": None,
        "error": None,
    }


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_run_role__log_on_a_full_disk__goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending()
    role = Counting(ending, 3, (ChainUnavailable("down"),))
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        run_role(role, tmp_path, ending, poll_seconds=0.01, once=False)
    assert role.steps == 3


def test_run_role__same_block_again__keeps_when_it_came(tmp_path: Path) -> None:
    ending, blocks, seen = Ending(), [7, 7, 8], list[tuple[int, float]]()

    class Looking(Counting):
        def run_once(self) -> Status:
            if said := read_status(tmp_path):
                seen.append((said["block"], said["block_at_ms"]))
            return super().run_once()

    role = Looking(ending, 3)
    run_role(
        role, tmp_path, ending, poll_seconds=0.1, once=False, block=lambda: blocks[role.steps - 1]
    )

    last = read_status(tmp_path)
    assert last is not None
    assert [block for block, _ in seen] == [7, 7]
    assert seen[0] == seen[1]
    assert (last["block"], last["block_at_ms"] > seen[1][1]) == (8, True)


def test_run_role__error_after_a_look__stands_beside_what_was_seen(tmp_path: Path) -> None:
    ending = Ending()

    class Failing(Counting):
        def run_once(self) -> Status:
            if self.steps == 1:
                self._errors = [ChainUnavailable("the chain does not answer")]
            return super().run_once()

    run_role(Failing(ending, 2), tmp_path, ending, poll_seconds=0.01, once=False)

    said = read_status(tmp_path)
    assert said is not None
    assert (said["error"], said["data"]) == ("the chain does not answer", {"step": 1})


def test_is_running__until_the_role_ends__is_true(tmp_path: Path) -> None:
    ending, seen = Ending(), list[bool]()

    class Asking(Counting):
        def run_once(self) -> Status:
            seen.append(is_running(tmp_path))
            return super().run_once()

    assert not is_running(tmp_path)
    run_role(Asking(ending, 2), tmp_path, ending, poll_seconds=0.01, once=False)
    assert seen == [True, True]
    assert not is_running(tmp_path)


def test_run_role__once__takes_one_step(tmp_path: Path) -> None:
    role = Counting(Ending(), 9)
    run_role(role, tmp_path, Ending(), poll_seconds=0.01, once=True)
    assert role.steps == 1
    assert role.closed


def test_run_role__error_that_may_pass__is_told_once_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = Ending()
    down = ChainUnavailable("the chain does not answer", hint="is it running?")
    role = Counting(ending, 3, (down, down))

    run_role(role, tmp_path, ending, poll_seconds=0.01, once=False)

    shown = capsys.readouterr().err
    assert role.steps == 3
    assert shown.count("the chain does not answer") == 1
    assert shown.count("is it running?") == 1


def test_run_role__wrong_settings__end_it(tmp_path: Path) -> None:
    role = Counting(Ending(), 9, (ConfigError("no such arena"),))
    with pytest.raises(ConfigError):
        run_role(role, tmp_path, Ending(), poll_seconds=0.01, once=False)
    assert role.closed


def test_run_role__bug__leaves_one_traceback_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Counting):
        def run_once(self) -> Status:
            if self.steps < 2:
                self.steps += 1
                raise ZeroDivisionError("nobody expected this")
            return super().run_once()

    ending = Ending()
    role = Broken(ending, 3)
    run_role(role, tmp_path, ending, poll_seconds=0.01, once=False)

    shown = capsys.readouterr().err
    (file,) = tmp_path.glob("crash-*.txt")
    assert role.steps == 3
    assert "nobody expected this" in file.read_text()
    assert shown.count("this is a bug in pouw") == 1
    assert "Traceback" not in shown


def test_run_role__bug_in_a_single_step__is_raised(tmp_path: Path) -> None:
    class Broken(Counting):
        def run_once(self) -> Status:
            raise ZeroDivisionError

    role = Broken(Ending(), 9)
    with pytest.raises(ZeroDivisionError):
        run_role(role, tmp_path, Ending(), poll_seconds=0.01, once=True)
    assert role.closed


def test_run_role__same_status_again__is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = Ending()
    run_role(Counting(ending, 4), tmp_path, ending, poll_seconds=0.01, once=False)
    assert capsys.readouterr().err.count("phase 1: train") == 1


def test_read_status__of_a_home_without_one__is_none(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending__signal__wakes_who_waits_and_restores_handlers(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with ending_by_signals() as ending:
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        begun = time.monotonic()
        assert ending.wait(30)
        assert time.monotonic() - begun < 10
    assert signal.getsignal(number) is before


def test_ending__second_interrupt__interrupts_at_once() -> None:
    with ending_by_signals() as ending:
        os.kill(os.getpid(), signal.SIGINT)
        assert ending.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ending__time_out__is_not_the_end() -> None:
    assert not Ending().wait(0.01)


def test_ending__standard_input_closes__ends() -> None:
    code = "from pouw.cli.loop import Ending; e = Ending(); e.watch_stdin(); print(e.wait(30))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        out, _ = child.communicate("a line changes nothing\n", timeout=60)
    assert out == "True\n"
