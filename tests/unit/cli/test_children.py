import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pouw.cli.demo.children import ChildEnded, Children
from pouw.errors import ProcessError

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
FAMILY = [
    sys.executable,
    "-c",
    "import subprocess, sys, time;"
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid);"
    "sys.stdout.flush(); time.sleep(600)",
]


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    with Children(tmp_path, {}) as started:
        yield started


def _wait_for(log: Path) -> str:
    limit = time.monotonic() + 60
    while not log.read_text().endswith("\n"):
        assert time.monotonic() < limit
        time.sleep(0.02)
    return log.read_text()


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_close__ends_processes_and_what_they_started(children: Children) -> None:
    family = children.start("family", FAMILY)
    grandchild = int(_wait_for(family.log))

    children.close()

    assert family.process.returncode == -signal.SIGTERM
    limit = time.monotonic() + 10
    while _runs(grandchild) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not _runs(grandchild)


def test_end__by_name__leaves_the_others(children: Children) -> None:
    one, other = children.start("one", SLEEP), children.start("other", SLEEP)
    children.end("one")
    assert one.process.poll() is not None
    assert other.process.poll() is None
    children.check()


def test_check__process_that_died__names_it_with_its_last_lines(children: Children) -> None:
    code = "import sys; print('what went wrong'); sys.exit(3)"
    child = children.start("oracle-1", [sys.executable, "-c", code])
    child.process.wait(60)

    with pytest.raises(ChildEnded, match="oracle-1 ended with status 3") as caught:
        children.check()

    assert caught.value.lines == "what went wrong"
    assert str(child.log) in str(caught.value.hint)


def test_check__process_that_may_end__is_fine_unless_it_failed(children: Children) -> None:
    good = children.start("good", [sys.executable, "-c", ""], lasting=False)
    good.process.wait(60)
    children.check()

    bad = children.start("bad", [sys.executable, "-c", "raise SystemExit(1)"], lasting=False)
    bad.process.wait(60)
    with pytest.raises(ChildEnded, match="bad"):
        children.check()


def test_run__returns_what_it_printed_and_accepts_only_these_codes(children: Children) -> None:
    two = [sys.executable, "-c", "print('said'); raise SystemExit(2)"]
    assert children.run("audit", two, accept=(0, 2)) == (2, "said\n")
    with pytest.raises(ChildEnded):
        children.run("audit", two)


def test_run__too_long__is_ended(children: Children) -> None:
    with pytest.raises(ProcessError, match="took more than"):
        children.run("slow", SLEEP, timeout_seconds=0.2)
    children.close()
    children.check()


def test_start__program_that_is_not_there__says_so(children: Children) -> None:
    with pytest.raises(ProcessError, match="cannot be started"):
        children.start("ghost", ["/nowhere/at/all"])


def test_start__environment_and_niceness_reach_the_process(tmp_path: Path) -> None:
    code = "import os; print(os.environ['GREETING'], os.getpriority(os.PRIO_PROCESS, 0))"
    wait = "import time; time.sleep(0.5);"
    with Children(tmp_path, {"GREETING": "hello"}) as children:
        child = children.start(
            "nice", [sys.executable, "-c", wait + code], niceness=7, lasting=False
        )
        child.process.wait(60)
        expected = min(19, 7 + os.getpriority(os.PRIO_PROCESS, 0))
        assert child.log.read_text() == f"hello {expected}\n"
