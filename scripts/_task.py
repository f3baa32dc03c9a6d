"""What the ape scripts share: the artifact, a publication, its flags. Not a script itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ape
import click

from pouw.types import ZERO_ADDRESS

ARTIFACTS = Path(__file__).resolve().parent.parent / "pouw" / "chain" / "artifacts"

ERC20_APPROVE = [
    {
        "type": "function",
        "name": "approve",
        "stateMutability": "nonpayable",
        "inputs": [
            {"name": "spender", "type": "address"},
            {"name": "amount", "type": "uint256"},
        ],
        "outputs": [{"name": "", "type": "bool"}],
    }
]


@dataclass(frozen=True, slots=True)
class Publication:
    """What goes on chain of a task; digests are 32 bytes, the reward is in the asset's unit."""

    spec_digest: bytes
    key_hash: bytes
    min_score: int
    first: bool
    reward: int


def artifact(name: str = "PoUW") -> dict[str, Any]:
    """A contract as the package carries it: the bytecode that was tested."""
    content: dict[str, Any] = json.loads((ARTIFACTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def publish(arena: Any, task: Publication, account: Any) -> int:
    """Approve the asset where it is a token, publish with a fresh hint; the task's id."""
    parameters = arena.parameters()
    due = task.reward + task.reward * parameters.publisherBondBps // 10_000
    value = due
    if parameters.asset != ZERO_ADDRESS:
        ape.Contract(parameters.asset, abi=ERC20_APPROVE).approve(arena, due, sender=account)
        value = 0
    receipt = arena.publish(
        task.spec_digest,
        task.key_hash,
        task.min_score,
        task.first,
        task.reward,
        arena.hintFor(task.reward),
        sender=account,
        value=value,
    )
    (event,) = arena.TaskPublished.from_receipt(receipt)
    return int(event.taskId)


class Word(click.ParamType):
    """32 bytes in hexadecimal."""

    name = "bytes32"

    def convert(self, value: Any, param: Any, ctx: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        try:
            word = bytes.fromhex(value.removeprefix("0x"))
        except ValueError:
            word = b""
        if len(word) != 32:
            self.fail(f"{value!r} is not 32 bytes in hexadecimal", param, ctx)
        return word


def task_options(command: Any) -> Any:
    """The flags of a Publication."""
    for option in (
        click.option("--first", is_flag=True, help="The earliest claim of --min-score wins."),
        click.option(
            "--min-score", type=click.IntRange(0, 1_000_000), default=0, show_default=True
        ),
        click.option("--reward", type=click.IntRange(1), required=True, help="In wei."),
        click.option("--key-hash", type=Word(), required=True),
        click.option("--spec", "spec_digest", type=Word(), required=True, help="Its sha2-256."),
    ):
        command = option(command)
    return command
