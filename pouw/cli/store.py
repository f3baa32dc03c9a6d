"""``pouw store``: content by its CID, in a folder, an IPFS daemon or behind gateways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pouw.cli.adapters import check_places, local_store, open_store
from pouw.cli.loop import ending_by_signals
from pouw.cli.options import Call, example, settings_options
from pouw.errors import ContentNotFound, ContentTooLarge

if TYPE_CHECKING:
    from pouw.storage.cid import Leaves
    from pouw.storage.store import Store

DEFAULT_PORT: Final = 8088
MAX_CONNECTIONS: Final = 1024
_CID: Final = click.argument("cid")


@click.group()
def store() -> None:
    """Keep, fetch, check and serve content by its CID."""


@store.command(
    epilog=example(
        "pouw store add weights.safetensors",
        "pouw store add weights.safetensors --store ipfs:http://127.0.0.1:5001",
    )
)
@settings_options("store")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--pin/--no-pin", default=True, show_default=True, help="Keep it until unpinned.")
def add(call: Call, path: Path, pin: bool) -> None:
    """Put the file PATH into the first place of --store.

    The CID is the same everywhere: profile unixfs-v1-2025 (1 MiB chunks, raw leaves, width 1024).
    """
    from pouw.storage.cid import FileLeaves

    places = open_store(call.settings)
    with FileLeaves(path) as source, _bar(f"add {path.name}", source.bytes) as advance:
        stored = places.put_leaves(_Counted(source, advance))
    if pin:
        places.pin(stored.cid)
    call.output.result(
        {"cid": stored.cid, "bytes": stored.bytes, "pinned": pin},
        f"{stored.cid}  {stored.bytes} bytes{', pinned' if pin else ''}",
    )


@store.command(
    epilog=example(
        "pouw store get bafybei... --output weights.safetensors \\",
        "    --store pouw-store,https://trustless-gateway.link",
    )
)
@settings_options("store")
@_CID
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write (default: the CID, here).",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=0),
    default=1 << 40,
    help="Refuse what is larger, before it is fetched (default: 1 TiB).",
)
def get(call: Call, cid: str, output: Path | None, max_bytes: int) -> None:
    """Fetch the file CID, every block checked; after an interruption go on where it ended."""
    from pouw.storage.assemble import write_file
    from pouw.storage.unixfs import file_bytes

    places, target = _existing(call), output or Path(cid)
    size = file_bytes(cid, places.get_block)
    if size > max_bytes:
        raise ContentTooLarge(
            f"{cid} has {size} bytes, at most {max_bytes} are taken",
            cid=cid,
            hint="allow more with --max-bytes",
        )
    with _bar(f"get {target.name}", size) as advance:
        write_file(cid, target, size, places.get_block, resume=True, progress=advance)
    call.output.result(
        {"cid": cid, "bytes": size, "file": str(target)}, f"{target}  {size} bytes, checked"
    )


@store.command(
    epilog=example("pouw store pin bafybei... --store pouw-store,https://trustless-gateway.link")
)
@settings_options("store")
@_CID
def pin(call: Call, cid: str) -> None:
    """Keep CID in the first place of --store, fetching what it lacks from the others."""
    _existing(call).pin(cid)
    call.output.result({"cid": cid, "pinned": True}, f"{cid} pinned")


@store.command(epilog=example("pouw store unpin bafybei..."))
@settings_options("store")
@_CID
def unpin(call: Call, cid: str) -> None:
    """Let CID go from the first place of --store at its next collection."""
    _existing(call).unpin(cid)
    call.output.result({"cid": cid, "pinned": False}, f"{cid} unpinned")


@store.command("ls", epilog=example("pouw store ls --json"))
@settings_options("store")
def list_pins(call: Call) -> None:
    """List what is pinned in the first place of --store, with its size."""
    places = _existing(call)
    rows = [{"cid": cid, "bytes": _size(cid, places.get_block)} for cid in sorted(places.pins())]
    lines = [f"{row['cid']}  {'missing' if row['bytes'] is None else row['bytes']}" for row in rows]
    call.output.result({"pins": rows}, "\n".join(lines) or "nothing is pinned")


@store.command(epilog=example("pouw store verify", "pouw store verify bafybei... --json"))
@settings_options("store")
@click.argument("cids", metavar="[CID]...", nargs=-1)
@click.pass_context
def verify(context: click.Context, call: Call, cids: tuple[str, ...]) -> None:
    """Hash every block of each CID (default: of all that is pinned); exit code 2 on a fault.

    In a folder every fault is listed; elsewhere the first of each CID.
    """
    from pouw.storage.check import faults

    places = _existing(call)
    chosen = cids or tuple(sorted(places.pins()))
    found = []
    with _bar("verify", len(chosen)) as advance:
        for cid in chosen:
            found += [
                {"cid": cid, "block": fault.cid, "fault": str(fault)}
                for fault in faults(cid, places)
            ]
            advance(1)
    lines = [str(fault["fault"]) for fault in found]
    lines.append(f"{len(chosen)} checked, {len(found)} faults")
    call.output.result({"checked": len(chosen), "faults": found}, "\n".join(lines))
    context.exit(2 if found else 0)


@store.command(epilog=example("pouw store gc --grace 3600"))
@settings_options("store")
@click.option(
    "--grace",
    type=click.IntRange(min=0),
    default=3600,
    show_default=True,
    help="Spare blocks that were added in the last so many seconds.",
)
def gc(call: Call, grace: int) -> None:
    """Remove from the folder --store the blocks that no pin reaches.

    A daemon collects by itself, or by `ipfs repo gc`.
    """
    check_places(call.settings.store[:1])
    removed = local_store(call.settings).gc(grace)
    call.output.result({"removed_blocks": removed}, f"{removed} blocks removed")


@store.command(
    epilog=example(
        "pouw store serve --host 0.0.0.0 --port 8088",
        "pouw oracle run --store mine,http://miner.example:8088 ...",
    )
)
@settings_options("store")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port to listen at; 0: a free one.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, MAX_CONNECTIONS),
    default=64,
    show_default=True,
    help="Most connections at a time; further ones are told to come again.",
)
@click.option("--while-stdin-open", is_flag=True, help="End when standard input ends.")
def serve(call: Call, host: str, port: int, connections: int, while_stdin_open: bool) -> None:
    """Serve the folder --store over HTTP, to be read only, until a signal.

    A trustless gateway for people without a daemon: /ipfs/CID?format=raw and format=car. It speaks
    plain HTTP; readers check every block, so that is enough for public content.
    """
    from pouw.storage.serve import Server

    with ending_by_signals() as ending:
        if while_stdin_open:
            ending.watch_stdin()
        with Server(local_store(call.settings), host, port, connections) as server:
            call.output.result(
                {"url": server.url}, f"serving {server.store.directory} at {server.url}"
            )
            ending.wait()


def _existing(call: Call) -> Store:
    """The places of --store, for whoever has nothing to put there; ConfigError where one is not."""
    check_places(call.settings.store)
    return open_store(call.settings)


class _Counted:
    """``Leaves`` that tell how far they are."""

    def __init__(self, source: Leaves, advance: Callable[[int], Any]) -> None:
        self._source = source
        self._advance = advance

    @property
    def bytes(self) -> int:
        return self._source.bytes

    def leaf(self, index: int) -> memoryview:
        data = self._source.leaf(index)
        self._advance(len(data))
        return data

    def finish(self) -> None:
        self._source.finish()


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error where a person watches it."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from pouw.cli.output import console, is_terminal

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console(err=True), disable=not is_terminal()
    ) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda more: progress.update(bar, advance=more)


def _size(cid: str, fetch: Callable[[str], bytes]) -> int | None:
    """The size of the file, None where its root is not here."""
    from pouw.storage.unixfs import file_bytes

    try:
        return file_bytes(cid, fetch)
    except ContentNotFound:
        return None
