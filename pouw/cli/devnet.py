"""``pouw devnet``: the embedded chain."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from pouw.cli.loop import ending_by_signals
from pouw.cli.options import Call, example, settings_options


@click.command(
    epilog=example(
        "pouw devnet --data my-chain --port 8545",
        'pouw devnet --data "$(ls -d demo/*/chain | tail -1)"  # that of the last `make demo`',
    )
)
@settings_options()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the chain; one that is there already goes on where it ended.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8545, show_default=True, help="0: a free one."
)
@click.option(
    "--block-seconds",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Seconds a block (at least 1); 0: a block for each transaction.",
)
@click.option(
    "--while-stdin-open",
    is_flag=True,
    help="End when standard input ends (for whoever starts this as a child).",
)
def devnet(
    call: Call, data: Path, host: str, port: int, block_seconds: float, while_stdin_open: bool
) -> None:
    """Run an Ethereum chain on this machine, for development.

    Its ten accounts are those of the mnemonic `test test test test test test test test test test
    test junk`, with 10,000 ether each: anybody has their keys, and `pouw account import me.json
    --devnet 0` makes the first one yours. Ctrl-C ends it; nothing is lost.
    """
    from pouw.chain.accounts import DEV_ACCOUNTS, DEV_CHAIN_ID, dev_account
    from pouw.chain.devnet import Devnet

    with ending_by_signals() as ending:
        if while_stdin_open:
            ending.watch_stdin()
        server = Devnet(data, host, port, block_seconds)
        document = {
            "rpc": server.url,
            "chain_id": DEV_CHAIN_ID,
            "data": str(data),
            "accounts": [dev_account(index).address for index in range(DEV_ACCOUNTS)],
        }
        call.output.result(
            document,
            f"{server.url} (chain {DEV_CHAIN_ID}, kept in {data})\n"
            "an account with ether: `pouw account import me.json --devnet 0`, up to "
            f"{DEV_ACCOUNTS - 1}",
        )

        def end() -> None:
            ending.wait()
            server.end()

        threading.Thread(target=end, daemon=True).start()
        server.serve_forever()
