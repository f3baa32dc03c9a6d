"""``pouw``: the command line. The only place that builds adapters, and the last to see errors.

Command modules import what is heavy (torch, the chain) inside their functions, so that ``--help``
is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

import pouw
from pouw.cli.crash import write_traceback
from pouw.cli.output import show_error
from pouw.errors import PouwError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(pouw.__version__, prog_name="pouw")
def cli() -> None:
    """Proof of useful work for biomedical image segmentation, as an Ethereum dApp.

    \b
    pouw demo                  watch two whole rounds on this machine
    pouw status                what the arena does now, and what you can do next
    pouw publisher publish     offer a reward for a model
    pouw miner run             train and compete
    pouw oracle run            score what was revealed
    pouw node audit            check every past payment yourself
    """


def _register() -> None:
    from pouw.cli import (
        account,
        arbiter,
        arena,
        data,
        devnet,
        miner,
        node,
        oracle,
        pool,
        predict,
        provenance,
        publisher,
        scoring,
        simulate,
        status,
        store,
    )
    from pouw.cli.demo import command as demo

    for command in (
        demo.demo,
        devnet.devnet,
        publisher.publisher,
        data.data,
        miner.miner,
        oracle.oracle,
        node.node,
        simulate.simulate,
        scoring.score,
        predict.predict,
        provenance.provenance,
        status.status,
        store.store,
        arena.deploy,
        arena.sync,
        arena.finalize,
        arena.reclaim,
        arena.withdraw,
        arbiter.challenge,
        arbiter.rule,
        account.account,
    ):
        cli.add_command(command)
    for command in (pool.top_up, pool.cancel):
        publisher.publisher.add_command(command)


_register()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code.

    0: done; 1: an error; 2: wrong usage, or an audit that found a lie; 130: interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        code = cli.main(given, prog_name="pouw", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except PouwError as error:
        show_error(str(error), error.hint, as_json=as_json)
        return 1
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "pouw"
        show_error(error.format_message(), f"try `{where} --help`", as_json=as_json)
        return 2
    except click.ClickException as error:
        show_error(error.format_message(), None, as_json=as_json)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        show_error("interrupted", _hint_of_interrupted(given), as_json=as_json)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone; there is nobody to tell.
        sys.stderr.close()
        return 1
    except Exception as error:  # noqa: BLE001 - the outermost boundary: no traceback reaches a user
        file = write_traceback(error, _home(given))
        show_error(
            f"{type(error).__name__}: {error}",
            f"this is a bug in pouw; please report it with {file}",
            as_json=as_json,
        )
        return 1


def _hint_of_interrupted(arguments: list[str]) -> str | None:
    """What to do after a command that may have sent something; None for one that only reads."""
    command: click.Command = cli
    for word in arguments:
        if not isinstance(command, click.Group) or word not in command.commands:
            break
        command = command.commands[word]
    options = {option.name for option in command.params}
    if not {"keystore", "max_fee_gwei"} <= options:
        return None
    if "home" not in options:  # nothing remembers what it sent, so that it would send it twice
        return "a transaction may have been sent: look at the account before you run it again"
    return "a transaction may have been sent: run the same again, or see `pouw status`"


def _home(arguments: list[str]) -> Path:
    """The private folder, as far as one can tell without the settings: they may be what broke."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--home" and following:
            return Path(following)
        if word.startswith("--home="):
            return Path(word.removeprefix("--home="))
    return Path(os.environ.get("POUW_HOME") or Path.home() / ".pouw")


if __name__ == "__main__":
    sys.exit(main())
