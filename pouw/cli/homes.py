"""Whose a home is: one account's, in one arena of one chain.

What lies in a home goes by the numbers of rounds and tasks, which every arena counts anew: with
another arena or account a role would take what is there for its own, and reveal it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pouw.cli.loop import print_notice
from pouw.errors import ConfigError, JournalError
from pouw.files import advice

if TYPE_CHECKING:
    from pouw.chain.arena import ArenaClient
    from pouw.journal import Journal

_OTHERS: Final = 0o077
JOURNAL_FILE: Final = "journal.sqlite"
_SPACE: Final = "home"
_KEY: Final = "identity"


def make_folder(path: Path) -> Path:
    """``path`` as a folder, made for its owner alone where it is missing."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise JournalError(
            f"cannot make the private folder {path}: {error.strerror}", hint=advice(error)
        ) from error
    return path


def private_folder(path: Path) -> Path:
    """``path`` as a folder that only this user can read; ConfigError where it cannot be one."""
    from pouw.roles.base import Notice

    found = make_folder(path).stat()
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"the home {path} belongs to another user, who can read all that is kept there",
            hint="name a folder of your own with --home, such as a new one in it",
        )
    if found.st_mode & _OTHERS:
        with contextlib.suppress(OSError):
            path.chmod(0o700)
        if path.stat().st_mode & _OTHERS:
            raise ConfigError(
                f"other users can read the home {path}, and it cannot be made private",
                hint="name a folder on another disk with --home: this one knows no owners",
            )
        text = f"the home {path} could be read by other users until now; it is private from here on"
        print_notice(Notice("warning", text))
    return path


def bind_home(home: Path, journal: Journal, arena: ArenaClient) -> None:
    """Write down at the first use whose ``home`` is; ConfigError where it is somebody else's.

    A home of before this was written down becomes whose it is used as.
    """
    user = {
        "chain_id": arena.chain_id,
        "first_block": arena.first_block_hash(),
        "arena": arena.address,
        "account": arena.sender.address,
    }
    owner = journal.put_once(_SPACE, _KEY, user)
    if _is_same(owner, user):
        if owner["first_block"] is None:
            journal.put(_SPACE, _KEY, user)
        return
    if not _is_unused(home, journal):
        raise ConfigError(
            f"the home {home} is that of {_words(owner, user)}: what lies there is not for "
            f"{_words(user, owner)}",
            hint=f"name another folder, such as --home {home}-2; or go on there with the --arena "
            "and --keystore that it was used with",
        )
    journal.put(_SPACE, _KEY, user)


def _is_same(owner: dict[str, Any], user: dict[str, Any]) -> bool:
    """Whether both agree in all that they know: some endpoints keep no blocks as old as 0."""
    return all(owner[name] == user[name] or None in (owner[name], user[name]) for name in user)


def _is_unused(home: Path, journal: Journal) -> bool:
    """Whether nothing is in it but the name of an owner who was refused before he began."""
    files = (file.name for file in home.iterdir())
    return journal.spaces() == {_SPACE} and all(name.startswith(JOURNAL_FILE) for name in files)


def _words(who: dict[str, Any], other: dict[str, Any]) -> str:
    words = f"{who['account']} in the arena {who['arena']} on chain {who['chain_id']}"
    if who["first_block"] != other["first_block"]:
        words += f", which began with block {who['first_block']}"
    return words
