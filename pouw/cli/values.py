"""Values as a user types them: amounts with a unit, scores as decimals, addresses."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import click

from pouw.types import SCORE_ONE_PPM

_UNITS = {"ether": 10**18, "eth": 10**18, "gwei": 10**9, "wei": 1}


class Amount(click.ParamType):
    """``1.5ether``, ``20 gwei`` or ``7wei``, to wei exactly; only nothing, ``0``, has no unit."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Wei."""
        if isinstance(value, int):
            return value
        text = str(value).strip().lower().replace("_", "")
        digits = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
        unit = text[len(digits) :].strip()
        number = _decimal(digits)
        if number is None or number < 0 or unit not in ("", *_UNITS):
            self.fail(f"{value!r} is no amount: write 1.5ether, 20gwei or 7wei", param, ctx)
        if number and not unit:
            whole = number == int(number)
            units = "{0}ether, {0}gwei or {0}wei" if whole else "{0}ether or {0}gwei"
            self.fail(f"{digits} what? write {units.format(digits)}", param, ctx)
        wei = number * _UNITS.get(unit, 0)
        if wei != int(wei):
            self.fail(f"{value!r} is not a whole number of wei", param, ctx)
        return int(wei)


class Fraction(click.ParamType):
    """A number between 0 and 1 with at most six decimals, to parts per million.

    ``name`` is what messages call it, ``such_as`` one that makes sense.
    """

    def __init__(self, name: str, such_as: str) -> None:
        self.name = name.lower()
        self._message = f"is no {name}: write a number from 0 to 1, such as {such_as}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parts per million."""
        if isinstance(value, int):
            return value
        number = _decimal(str(value))
        ppm = None if number is None else number * SCORE_ONE_PPM
        if ppm is None or ppm != int(ppm) or not 0 <= ppm <= SCORE_ONE_PPM:
            self.fail(f"{value!r} {self._message}", param, ctx)
        return int(ppm)


class AddressType(click.ParamType):
    """An account or contract, to its checksummed form."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The EIP-55 address."""
        from pouw.config import checked_address

        address = checked_address(str(value))
        if address is None:
            self.fail(f"{value!r} is no address (0x and 40 digits, checksum included)", param, ctx)
        return address


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number) < 10**40 else None


AMOUNT = Amount()
SCORE = Fraction("Dice", "0.85")
SHARE = Fraction("share", "0.25")
ADDRESS = AddressType()
