"""The runner itself, on the real arena and a few forge tests: whom it kills, whom it must not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mutation.campaign import Campaign
from mutation.compiler import Compiler
from mutation.forge import BrokenBuild, Forge, Killer
from mutation.mutants import Mutant
from mutation.report import Explanation, report
from mutation.results import Fate, Result

ROOT = Path(__file__).resolve().parents[2]
QUEUE = "contracts/TaskQueue.sol"
KILLED = "insert: uint64 below = tasks[above].below; => uint64 below = tasks[above].above;"
RANK = "return otherReward > reward || (otherReward {} reward && other < taskId);"
# Where the left side is false the other reward is not higher: no input tells >= from ==.
EQUIVALENT = f"ranksAbove: {RANK.format('==')} => {RANK.format('>=')}"
STILLBORN = "locate: above = hint; => below = hint;"
HINTS = Killer("hints", ("--match-contract", "HintsTest"))
CANARY = Killer("canary", ("--match-contract", "CanaryTest"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contracts, with so few of the tests that they compile in seconds."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "contracts", root / "contracts")
    shutil.copy(ROOT / "foundry.toml", root)
    (root / "tests" / "forge").mkdir(parents=True)
    for name in ("Cheats.sol", "Stage.sol", "Hints.t.sol", "Canary.t.sol"):
        shutil.copy(ROOT / "tests" / "forge" / name, root / "tests" / "forge")
    for name in ("node_modules", "scripts"):
        (root / name).symlink_to(ROOT / name)
    return root


@pytest.fixture(scope="module")
def forge(repository: Path) -> Forge:
    return Forge(repository, repository / ".build" / "mutation")


@pytest.fixture(scope="module")
def compiler(forge: Forge) -> Iterator[Compiler]:
    with Compiler(forge.tree) as running:
        yield running


def campaign_of(forge: Forge, compiler: Compiler, killer: Killer = HINTS) -> Campaign:
    return Campaign(forge.tree.parent, compiler, forge, (killer,), {EQUIVALENT})


@pytest.fixture(scope="module")
def chosen(forge: Forge, compiler: Compiler) -> list[Mutant]:
    """A mutant of each kind, by name."""
    every = {mutant.name: mutant for mutant in campaign_of(forge, compiler).mutants([QUEUE])}
    assert len(every) > 200
    return [every[KILLED], every[EQUIVALENT], every[STILLBORN]]


@pytest.fixture(scope="module")
def results(forge: Forge, compiler: Compiler, chosen: list[Mutant]) -> dict[str, Result]:
    campaign = campaign_of(forge, compiler)
    return {result.name: result for result in campaign.run(chosen)}


def test_mutant__that_a_test_notices__is_killed_by_it(results: dict[str, Result]) -> None:
    assert results[KILLED].fate is Fate.KILLED
    assert results[KILLED].by.startswith("HintsTest.test_")


def test_mutant__that_no_input_tells_apart__survives(results: dict[str, Result]) -> None:
    assert results[EQUIVALENT].fate is Fate.SURVIVED


def test_mutant__that_does_not_compile__is_not_killed(results: dict[str, Result]) -> None:
    assert results[STILLBORN].fate is Fate.STILLBORN
    assert "Undeclared identifier" in results[STILLBORN].by


def test_results__of_a_run_that_was_cut_off__are_not_played_again(
    forge: Forge, compiler: Compiler, chosen: list[Mutant], results: dict[str, Result]
) -> None:
    with (forge.tree.parent / "results.jsonl").open("a") as file:
        file.write('{"key": "cut o')
    again = campaign_of(forge, compiler).results
    for mutant in chosen:
        known = again.known(mutant)
        assert known is not None
        assert known.fate is results[mutant.name].fate


def test_results__of_other_tests__count_only_where_they_are_trusted_and_kills(
    forge: Forge, compiler: Compiler, chosen: list[Mutant], results: dict[str, Result]
) -> None:
    test = forge.tree / "tests" / "forge" / "Canary.t.sol"
    before = test.read_text(encoding="utf-8")
    test.write_text(before + "// changed\n", encoding="utf-8")
    try:
        other = campaign_of(forge, compiler).results
    finally:
        test.write_text(before, encoding="utf-8")
    assert [other.known(mutant) for mutant in chosen] == [None, None, None]
    killed, survived, stillborn = (other.known(mutant, other_tests=True) for mutant in chosen)
    assert killed is not None
    assert killed.fate is Fate.KILLED
    assert survived is None
    assert stillborn is not None


def test_original__that_its_tests_refuse__stops_the_campaign(
    forge: Forge, compiler: Compiler, chosen: list[Mutant]
) -> None:
    fresh = Campaign(forge.tree.parent / "other", compiler, forge, (CANARY,))
    with pytest.raises(BrokenBuild, match="alwaysFails fails on the arena without"):
        list(fresh.run(chosen))


def test_forge__tests_that_do_not_compile__are_no_kill(
    forge: Forge, results: dict[str, Result]
) -> None:
    broken = forge.tree / "tests" / "forge" / "Broken.t.sol"
    broken.write_text("contract BrokenTest {", encoding="utf-8")
    try:
        with pytest.raises(BrokenBuild, match="exit code 1, failing test: none"):
            forge.play(HINTS, 0)
    finally:
        broken.unlink()


def test_forge__past_its_time__dies_with_its_children(repository: Path, tmp_path: Path) -> None:
    """A stand-in for forge that loops for ever, in a child of its own."""
    pids = tmp_path / "pids"
    endless = tmp_path / "forge"
    endless.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {pids}\nwait\n", encoding="utf-8")
    endless.chmod(0o755)
    patient = Killer("endless", (), clock_seconds=1.0)
    assert Forge(repository, tmp_path, endless).play(patient, 0) == "timeout"
    child = int(pids.read_text(encoding="utf-8"))
    for _ in range(100):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.05)
    pytest.fail(f"process {child} outlived its group")


def told(*results: Result, explained: tuple[str, ...], whole: bool = True) -> tuple[str, ...]:
    said = [Explanation(QUEUE, name, True, "because") for name in explained]
    return report(QUEUE, results, said, whole=whole).complaints


def test_report__claims__must_be_true(results: dict[str, Result]) -> None:
    killed, survived = results[KILLED], results[EQUIVALENT]
    assert told(killed, survived, explained=(EQUIVALENT,)) == ()
    complaint, below = told(killed, survived, explained=())
    assert below.startswith("50.0%")
    assert complaint.startswith("unexplained survivor")
    (complaint,) = told(killed, survived, explained=(EQUIVALENT, KILLED))
    assert complaint.startswith("said to survive, but killed HintsTest.test_")
    (complaint,) = told(killed, survived, explained=(EQUIVALENT, "gone"))
    assert complaint.startswith("said to survive, but there is no such mutant")


def test_report__too_many_survivors__complains() -> None:
    def one(number: int, fate: Fate) -> Result:
        return Result(str(number), QUEUE, number, str(number), fate)

    results = [one(n, Fate.KILLED) for n in range(94)] + [
        one(n, Fate.SURVIVED) for n in range(94, 100)
    ]
    said = [Explanation(QUEUE, str(n), False, "because") for n in range(94, 100)]
    figures = report(QUEUE, results, said, whole=True)
    assert figures.score == pytest.approx(0.94)
    assert figures.complaints == ("94.0% of those not equivalent are killed, 95% are asked for",)


@pytest.mark.parametrize(("claimed", "code"), [((EQUIVALENT,), 0), ((EQUIVALENT, KILLED), 1)])
def test_cli__exit_code__says_whether_claims_are_true(
    repository: Path,
    results: dict[str, Result],
    tmp_path: Path,
    claimed: tuple[str, ...],
    code: int,
) -> None:
    survivors = tmp_path / "survivors.toml"
    names = ", ".join(f"'{name}'" for name in claimed)
    survivors.write_text(
        f"[[survivor]]\npath = '{QUEUE}'\nequivalent = true\nbecause = 'so'\nmutants = [{names}]\n"
    )
    only = "|".join(f"^{re.escape(name)}$" for name in results)
    options = (
        "--repository",
        str(repository),
        "--survivors",
        str(survivors),
        "--only",
        only,
        "--json",
    )
    done = subprocess.run(
        [sys.executable, "-m", "mutation", *options, QUEUE],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    (figures,) = json.loads(done.stdout)["sources"]
    assert (figures["killed"], figures["equivalent"], figures["stillborn"]) == (1, 1, 1)
    assert len(figures["complaints"]) == code
