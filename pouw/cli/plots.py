"""Pictures of simulations, with their confidence bands (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pouw.errors import ConfigError
from pouw.files import advice

if TYPE_CHECKING:
    from pouw.ledger.simulate.double_spend import Attack
    from pouw.ledger.simulate.selection import Service


def draw_double_spend(attacks: Sequence[Attack], confirmations: int, out: Path) -> None:
    """Success against the attacker's share, a line for each number of honest miners."""
    figure, axes = _figure()
    for miners in dict.fromkeys(attack.miners for attack in attacks):
        own = [attack for attack in attacks if attack.miners == miners]
        shares = [attack.share for attack in own]
        label = "1 honest miner" if miners == 1 else f"{miners} honest miners"
        line = axes.plot(shares, [attack.success.value for attack in own], label=label)[0]
        low = [attack.success.low for attack in own]
        high = [attack.success.high for attack in own]
        axes.fill_between(shares, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    one = {attack.share: attack.by_hash for attack in attacks}
    shares = sorted(one)
    values = [one[share].value for share in shares]
    axes.plot(shares, values, color="black", linestyle="--", label="hash-based proof of work")
    low, high = ([getattr(one[share], end) for share in shares] for end in ("low", "high"))
    axes.fill_between(shares, low, high, color="black", alpha=0.2, linewidth=0)
    axes.axvline(0.5, color="grey", linewidth=0.5)
    axes.set_xlabel("attacker's share of all compute")
    axes.set_ylabel(f"payment overturned after {confirmations} confirmations")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, out)


def draw_selection(found: Mapping[float, Sequence[Service]], patience: int, out: Path) -> None:
    """Share of tasks selected in time against their reward, a line for each load."""
    figure, axes = _figure()
    for load, tenths in found.items():
        places = [one.tenth for one in tenths]
        line = axes.plot(places, [one.served for one in tenths], label=f"{load:g} tasks a round")[0]
        low, high = [one.served_low for one in tenths], [one.served_high for one in tenths]
        axes.fill_between(places, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("reward, tenths from the lowest to the highest")
    axes.set_ylabel(f"selected within {patience} rounds")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, out)


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "pictures need matplotlib", hint="pip install 'pouw[simulate]'"
        ) from error
    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(-0.02, 1.02)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, out: Path) -> None:
    try:
        figure.savefig(out, dpi=150)
    except OSError as error:
        raise ConfigError(f"cannot draw to {out}: {error.strerror}", hint=advice(error)) from error
