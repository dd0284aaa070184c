"""Numbers as options take them, and as they are told.

Knows click; nothing of what the numbers stand for.
"""

import math
from typing import Any

import click


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


def counted(number: int, noun: str, form: str = "") -> str:
    """Return the number, written in a format, and what it counts: "1 byte", "2 bytes"."""
    return f"{number:{form}} {noun}" + ("" if number == 1 else "s")
