"""Numbers as options take them, and as they are told.

Knows click; nothing of what the numbers stand for.
"""

import math
from typing import Any

import click

MOST = (1 << 64) - 1
"""The largest position, and number of messages, that a relay can be asked for: a u64."""


class FiniteRange(click.FloatRange):
    """A range of numbers that can be counted with: NaN and infinity are in none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the number."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class WholeNumber(click.ParamType[int]):
    """A number of messages, or a position: at least ``least``, and none has more than 64 bits."""

    name = "n"

    def __init__(self, least: int) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number."""
        text = str(value)
        plain = text.isascii() and text.isdecimal() and len(text) <= len(str(MOST))
        if not plain or not self._least <= int(text) <= MOST:
            self.fail(f"{text!r} is not a whole number from {self._least} on", param, ctx)
        return int(text)


def counted(number: int, noun: str, form: str = "") -> str:
    """Return the number, written in a format, and what it counts: "1 byte", "2 bytes"."""
    return f"{number:{form}} {noun}" + ("" if number == 1 else "s")
