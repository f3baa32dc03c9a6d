"""``pouw publisher``: offer a reward for a model, and serve the task's keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from pouw.cli.adapters import setup_for
from pouw.cli.commands import run_command, show_status
from pouw.cli.homes import JOURNAL_FILE
from pouw.cli.loop import loop_options
from pouw.cli.options import ACTOR, Call, example, settings_options
from pouw.cli.output import is_terminal
from pouw.cli.output import score as shown_score
from pouw.cli.published import published
from pouw.cli.values import AMOUNT, SCORE
from pouw.cli.winner import model
from pouw.errors import ConfigError

if TYPE_CHECKING:
    from pouw.ml.recipe import Proposal

_DIMS: Final[dict[str, Literal[2, 3]]] = {"2": 2, "3": 3}
NOTE = (
    "Training data, test set and the winner's model are public for ever once they are opened; the "
    "title and names of labels are at once; names of cases and texts in headers are left out; "
    "a publisher can leak to a friend; a colluding majority of oracles pays whom it likes."
)
_EASY_PPM, _HARD_PPM = 50_000, 990_000


@click.group()
def publisher() -> None:
    """Offer a reward for a segmentation model."""


publisher.add_command(model)


@publisher.command(
    epilog=example(
        "pouw publisher publish scans --reward 1ether --minimum 0.8 --data-will-be-public"
    )
)
@settings_options(*ACTOR)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--reward", type=AMOUNT, required=True, help="Escrowed reward, such as 1ether.")
@click.option("--minimum", type=SCORE, required=True, help="Smallest Dice that may be claimed.")
@click.option("--first", is_flag=True, help="The earliest commit above the minimum wins.")
@click.option(
    "--dims",
    type=click.Choice(["auto", *_DIMS]),
    default="auto",
    show_default=True,
    help="Axes of the network (auto: 2 for flat images).",
)
@click.option(
    "--network",
    type=click.Choice(["unet", "dynunet", "segresnet", "fcn34", "unet3d-paper"]),
    help="Default: planned from the data.",
)
@click.option("--title", help="What the task is about (default: the folder's name).")
@click.option(
    "--modality", help="Such as T1 MRI; CT is normalised by its own scale (default: if known)."
)
@click.option("--licence", default="not stated", show_default=True, help="Of the data.")
@click.option("--citation", default="not stated", show_default=True, help="Of the data.")
@click.option(
    "--training-seconds",
    type=click.IntRange(min=1),
    help="Suggested training budget (default: Phase 1).",
)
@click.option(
    "--provenance",
    type=click.Choice(["none", "manifest", "replay"]),
    default="manifest",
    show_default=True,
    help="What a model must show of its training.",
)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON with network, inference and caps (default: planned from the data).",
)
@click.option(
    "--retention-days",
    type=click.IntRange(0, 36_500),
    default=30,
    show_default=True,
    help="How long miners and oracles serve models that did not win.",
)
@click.option(
    "--data-will-be-public",
    is_flag=True,
    help="Confirm that everybody concerned agrees to the data becoming public.",
)
@click.option(
    "--again", is_flag=True, help="Publish the same images and options once more, and pay again."
)
@click.option(
    "--miners-may-know-the-test-set",
    "test_set_may_be_known",
    is_flag=True,
    help="Hide images that an earlier task shows to miners: who knows them may be paid.",
)
def publish(
    call: Call, folder: Path, *, minimum: int, recipe: Path | None, dims: str, **options: Any
) -> None:
    """Seal the data set in FOLDER, escrow a reward, enter the pool.

    FOLDER is of any kind that `pouw data check` knows; patch, spacing, normalisation and network
    are planned from it.

    Training data, test set and the winner's model are public for ever once they are opened.
    """
    from pouw.roles.publisher import Publisher, PublishRequest

    title = options.pop("title") or folder.resolve().name
    reward = options.pop("reward")
    seconds = options.pop("training_seconds")
    call.output.notice(NOTE)
    if not _EASY_PPM <= minimum <= _HARD_PPM:
        call.output.notice(f"warning: {_odd(minimum)}")
    with setup_for(call.settings) as setup:
        request = PublishRequest(
            folder=folder,
            title=title,
            spatial_dims=_DIMS.get(dims),
            reward_wei=reward,
            min_score_ppm=minimum,
            training_seconds=seconds or setup.arena.parameters().phase1,
            proposal=read_recipe(recipe) if recipe else None,
            **options,
        )
        role = Publisher(setup, inline=True)
        try:
            task_id = role.publish(request, _Progress(call).say)
        finally:
            role.close()
        document, text = published(setup, call.settings, task_id)
    call.output.result(
        {"title": title, "min_score_ppm": minimum, **document},
        f"task {task_id}: {title}, for Dice {shown_score(minimum)} or better\n{text}",
    )


@publisher.command(epilog=example("pouw publisher run --config publisher.toml"))
@settings_options(*ACTOR)
@loop_options
def run(call: Call, **loop: Any) -> None:
    """Release both keys of your tasks in their windows, close rounds, withdraw.

    A key that is late costs the publisher's bond: leave this running.
    """
    from pouw.roles.publisher import Publisher

    run_command(call, Publisher, **loop)


@publisher.command(epilog=example("pouw publisher status --config publisher.toml"))
@settings_options("home")
def status(call: Call) -> None:
    """What `pouw publisher run` last said of itself, when, and whether it runs."""
    show_status(call)


@publisher.command(epilog=example("pouw publisher names 5 > names.txt"))
@settings_options("home")
@click.argument("task", type=click.IntRange(min=1))
def names(call: Call, task: int) -> None:
    """What the cases of your TASK were called; others see neutral names.

    Only the home that published the task knows.
    """
    from pouw.journal import Journal
    from pouw.roles.drafts import Drafts
    from pouw.types import TaskId

    path = call.settings.home / JOURNAL_FILE
    if not path.exists():
        raise ConfigError(f"no journal {path}", hint="name the publisher's home with --home")
    with Journal(path) as journal:
        found = Drafts(journal).names_of(TaskId(task))
    lines = (f"{neutral}  {name}" for neutral, name in found.items())
    call.output.result({"task": task, "names": found}, "\n".join(lines))


def _odd(minimum: int) -> str:
    if minimum < _EASY_PPM:
        return f"a minimum of {shown_score(minimum)} pays for a model that has learnt nothing"
    return f"hardly any model reaches {shown_score(minimum)}; without one the fee is spent in vain"


def read_recipe(path: Path) -> Proposal:
    """A network, inference recipe and caps from JSON; ConfigError where it is not that."""
    from pydantic import ValidationError

    from pouw.documents import Caps, InferenceRecipe, Network
    from pouw.ml.recipe import Proposal

    try:
        parts = json.loads(path.read_bytes())
        if not isinstance(parts, dict) or set(parts) != {"network", "inference", "caps"}:
            raise ConfigError(f"{path} holds network, inference and caps, and nothing else")
        texts = {name: json.dumps(part) for name, part in parts.items()}
        return Proposal(
            Network.model_validate_json(texts["network"]),
            InferenceRecipe.model_validate_json(texts["inference"]),
            Caps.model_validate_json(texts["caps"]),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not readable JSON: {error}") from error


class _Progress:
    """Stages of publishing on standard error; percentages only where a person watches."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._said: tuple[str, int] | None = None

    def say(self, stage: str, done: int, total: int) -> None:
        tenths = 10 * done // max(1, total) if is_terminal() else 10 * (done >= total > 0)
        if (stage, tenths) != self._said:
            self._said = (stage, tenths)
            self._call.output.notice(f"{stage}: {10 * tenths} %")
