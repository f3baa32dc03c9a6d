import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pouw.chain.accounts import load_keystore
from pouw.cli.crash import write_traceback
from pouw.cli.main import cli, main
from pouw.config import read_settings
from pouw.errors import ChainUnavailable

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RPC", "ARENA", "STORE", "HOME", "KEYSTORE", "PASSWORD", "CONFIG"):
        monkeypatch.delenv(f"POUW_{name}", raising=False)


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            found += _commands(command, (*path, name))
        else:
            found.append((*path, name))
    return found


@pytest.mark.parametrize("words", _commands(cli), ids=" ".join)
def test_help__of_every_command__shows_an_example_and_json(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0

    shown = capsys.readouterr().out
    assert "Example:" in shown
    assert f"pouw {' '.join(words)}" in shown.split("Example:")[1]
    assert "--json" in shown


def test_help__of_a_role__shows_what_counts_where_nothing_is_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["miner", "run", "--help"]) == 0

    shown = " ".join(capsys.readouterr().out.split())
    defaults = read_settings({}, {}, tmp_path)
    for option, default in {
        "--rpc": defaults.rpc,
        "--confirmations": defaults.confirmations,
        "--max-fee-gwei": defaults.max_fee_gwei,
        "--store": f"{defaults.store[0]} below the current folder",
        "--home": "~/.pouw",
    }.items():
        assert f"(default: {default})" in shown.split(f" {option} ")[1].split(" --")[0]


def test_help__imports_nothing_heavy() -> None:
    heavy = "{'web3', 'torch', 'monai', 'numpy', 'eth', 'matplotlib', 'rich'}"
    code = (
        "import sys; from pouw.cli.main import main; main(['--help']);"
        f"sys.exit(str({heavy} & sys.modules.keys()) if {heavy} & sys.modules.keys() else 0)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_error__is_two_lines_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 1

    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: which arena?")
    assert lines[1].startswith("hint: name its address with --arena")
    assert len(lines) == 2


def test_error__with_json__is_one_document_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["status", "--json"]) == 1

    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"error", "hint"}


def test_usage_error__names_the_help_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publisher", "publish", "--reward", "lots"]) == 2

    shown = capsys.readouterr().err
    assert "no amount" in shown
    assert "hint: try `pouw publisher publish --help`" in shown


def test_chain_that_does_not_answer__is_said_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arena = "0x5FbDB2315678afecb367f032d93F642f64180aa3"

    assert main(["status", "--arena", arena, "--rpc", "http://127.0.0.1:9"]) == 1

    shown = capsys.readouterr().err
    assert "does not answer" in shown
    assert "Traceback" not in shown


def test_bug__leaves_its_traceback_in_a_file_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("nobody expected this")

    monkeypatch.setattr(cli.commands["status"], "callback", broken)

    assert main(["status"]) == 1

    shown = capsys.readouterr().err
    (file,) = (tmp_path / ".pouw").glob("crash-*.txt")
    assert "Traceback" not in shown
    assert "this is a bug in pouw" in shown
    assert str(file) in shown
    assert "nobody expected this" in file.read_text()


def test_multi_line_error__is_shown_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise ChainUnavailable("first\nsecond", hint="do\nthis")

    monkeypatch.setattr(cli.commands["status"], "callback", broken)
    main(["status"])

    assert capsys.readouterr().err.splitlines() == ["error: first second", "hint: do this"]


def test_interrupt__is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.commands["status"], "callback", interrupted)

    assert main(["status"]) == 130


@pytest.mark.parametrize(
    ("words", "signs"),
    [
        (("deploy",), True),
        (("publisher", "top-up"), True),
        (("miner", "run"), True),
        (("status",), False),
        (("miner", "watch"), False),
        (("data", "check"), False),
    ],
)
def test_interrupt__of_a_command_that_signs__says_that_a_transaction_may_be_out(
    words: tuple[str, ...],
    signs: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "invoke", interrupted)
    monkeypatch.setattr(command, "params", [one for one in command.params if not one.required])

    assert main([*words, "--json"]) == 130

    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["error"] == "interrupted"
    assert ("a transaction may have been sent" in said.err) is signs
    assert (document["hint"] is not None) is signs


def test_account_new__makes_a_keystore_that_opens_and_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POUW_PASSWORD", "correct horse")

    assert main(["account", "new", "me.json", "--json"]) == 0

    document = json.loads(capsys.readouterr().out)
    assert load_keystore(tmp_path / "me.json", "correct horse").address == document["address"]
    assert main(["account", "new", "me.json"]) == 1
    assert "exists already" in capsys.readouterr().err


def test_account_new__without_password__says_where_it_comes_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["account", "new", "me.json"]) == 1
    assert "POUW_PASSWORD_FILE" in capsys.readouterr().err


def test_bug__with_a_home__leaves_its_traceback_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli.commands["withdraw"], "callback", broken)
    main(["withdraw", "--home", "mine"])

    assert list((tmp_path / "mine").glob("crash-*.txt"))


def test_write_traceback__home_that_cannot_be_written__falls_back_to_the_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")

    assert write_traceback(ValueError("lost"), tmp_path / "file").parent == tmp_path
