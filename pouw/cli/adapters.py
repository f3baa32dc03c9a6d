"""Adapters from settings: the chain, the store and the journal that roles are handed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pouw.cli.homes import JOURNAL_FILE, bind_home, make_folder, private_folder
from pouw.cli.loop import print_notice
from pouw.config import Settings, checked_address, is_folder
from pouw.errors import ConfigError, ContentError

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from pouw.chain.arena import ArenaClient
    from pouw.chain.outgoing import Outbox, Policy
    from pouw.chain.reading import ArenaReader
    from pouw.roles.base import Observer, Setup
    from pouw.storage.local import LocalStore
    from pouw.storage.store import Store
    from pouw.types import Address


def load_account(settings: Settings) -> LocalAccount:
    """The account of ``--keystore``; ConfigError where none is named or it does not open."""
    from pouw.chain.accounts import load_keystore

    if settings.keystore is None:
        raise ConfigError(
            "this needs an account",
            hint="make one with `pouw account new FILE` and name it with --keystore FILE",
        )
    if settings.password is None:
        raise ConfigError(
            f"the keystore {settings.keystore} needs its password",
            hint="set POUW_PASSWORD, or POUW_PASSWORD_FILE to the path of a file that holds it",
        )
    return load_keystore(settings.keystore, settings.password)


def address_of_keystore(settings: Settings) -> Address | None:
    """Whose keystore it is, without the password; None where none is named or it hides that."""
    if settings.keystore is None:
        return None
    try:
        text = json.loads(settings.keystore.read_bytes()).get("address", "")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"cannot read the keystore {settings.keystore}") from error
    return checked_address("0x" + str(text).removeprefix("0x"))


def arena_address(settings: Settings) -> Address:
    """The arena; ConfigError where none is named."""
    if settings.arena is None:
        raise ConfigError(
            "which arena?", hint="name its address with --arena, POUW_ARENA or in pouw.toml"
        )
    return settings.arena


def open_reader(settings: Settings) -> ArenaReader:
    """The arena without an account."""
    from pouw.chain.reading import ArenaReader

    return ArenaReader.open(settings.rpc, arena_address(settings))


def open_arena(settings: Settings, outbox: Outbox | None = None) -> ArenaClient:
    """The arena with the account of ``--keystore``."""
    from pouw.chain.arena import ArenaClient

    return ArenaClient.connect(
        settings.rpc,
        arena_address(settings),
        load_account(settings),
        outbox=outbox,
        policy=policy_of(settings),
    )


def policy_of(settings: Settings) -> Policy:
    """How transactions are sent: what they may cost."""
    from pouw.chain.fees import GWEI
    from pouw.chain.outgoing import Policy

    # Not settings.confirmations: one thread sends in order, so whoever waits for depth sends the
    # next call, a reveal or a key whose window is short, that much later. Roles see at their next
    # step where a reorganisation undid a call of theirs, and send it again; a publication that was
    # undone they tell of.
    return Policy(max_fee_wei=settings.max_fee_gwei * GWEI)


def first_block(settings: Settings, arena: ArenaReader) -> int:
    """Where the arena's history begins: the setting, or its deployment."""
    return arena.deployment_block() if settings.from_block is None else settings.from_block


@contextmanager
def setup_for(settings: Settings, *, keeps_content: bool = True) -> Iterator[Setup]:
    """What a role is given; its journal is closed when the block ends.

    ConfigError where its home is another account's or another arena's, or where what it makes
    cannot be kept in the first place of its store.
    """
    from pouw.journal import Journal
    from pouw.roles.base import Setup
    from pouw.roles.outbox import JournalOutbox

    if keeps_content:
        check_own_place(settings.store[0])
    home = private_folder(settings.home)
    with Journal(home / JOURNAL_FILE) as journal:
        arena = open_arena(settings, JournalOutbox(journal))
        bind_home(home, journal, arena)
        yield Setup(
            arena=arena,
            store=role_store(settings),
            home=home,
            journal=journal,
            confirmations=settings.confirmations,
            from_block=first_block(settings, arena),
            notify=print_notice,
        )


def observer_for(settings: Settings, *, reads_store: bool = False) -> Observer:
    """What a node is given: it looks on and needs no account.

    With ``reads_store``, ConfigError as ``check_places`` has it.
    """
    from pouw.roles.base import Observer

    if reads_store:
        check_places(settings.store)
    arena = open_reader(settings)
    return Observer(
        arena=arena,
        store=open_store(settings),
        home=make_folder(settings.home),
        confirmations=settings.confirmations,
        from_block=first_block(settings, arena),
    )


def check_places(places: tuple[str, ...]) -> None:
    """ConfigError where a folder to read from is absent: made empty, it would look healthy.

    The first place may be made where others follow it: what is fetched from them is kept there.
    """
    first, *others = places
    for place in others or (first,):
        if is_folder(place) and not Path(place).is_dir():
            raise ConfigError(
                f"there is no store at {place}",
                hint="--store names where the content is: a folder, ipfs:ADDRESS or the URL of a "
                "gateway",
            )


def check_own_place(place: str) -> None:
    """ConfigError where nothing can be kept in ``place``, the first: found out late, it costs."""
    from pouw.storage.local import LocalStore

    if is_folder(place):
        try:
            LocalStore(Path(place)).check_writable()
        except ContentError as error:
            raise ConfigError(
                f"what others are to read cannot be kept in {place}: {error}",
                hint=error.hint or "name another folder first: --store FOLDER",
            ) from error
    elif not place.startswith("ipfs:"):  # a daemon is asked when it is opened
        raise ConfigError(
            f"{place} is a gateway: it can only be read, and this keeps content of its own",
            hint=f"name a folder or an IPFS daemon of yours first: --store pouw-store,{place}",
        )


def open_store(settings: Settings) -> Store:
    """The places of ``--store`` as one; what it connects to is let go when the command ends."""
    if len(settings.store) == 1 and is_folder(settings.store[0]):
        return local_store(settings)
    return role_store(settings)


def role_store(settings: Settings) -> Store:
    """As ``open_store``, for whoever judges others: a block damaged here is one that is missing.

    That a lone folder of ours is damaged says nothing about what a miner or publisher put there.
    """
    from pouw.storage.mirrors import Mirrors

    store = Mirrors([(place, _open_place(place)) for place in settings.store])
    context = click.get_current_context(silent=True)
    if context is not None:
        context.call_on_close(store.close)
    return store


def local_store(settings: Settings) -> LocalStore:
    """The folder that is the first place of ``--store``; ConfigError where that is none."""
    from pouw.storage.local import LocalStore

    if not is_folder(settings.store[0]):
        raise ConfigError(
            f"this needs a folder, not {settings.store[0]}",
            hint="name the folder of public content first: --store FOLDER",
        )
    return LocalStore(Path(settings.store[0]))


def _open_place(place: str) -> Store:
    from pouw.storage.gateway import GatewayStore
    from pouw.storage.ipfs import IpfsStore
    from pouw.storage.local import LocalStore

    if is_folder(place):
        return LocalStore(Path(place))
    if place.startswith("ipfs:"):
        return IpfsStore(place.removeprefix("ipfs:"))
    return GatewayStore(place)
