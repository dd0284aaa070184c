"""Whether something grows: samples of a process over time, and a line through them."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_MEMORY = re.compile(r"^(VmRSS|RssAnon):\s+(\d+) kB$", re.MULTILINE)


class Sample(NamedTuple):
    """A process at a moment: seconds on any clock, resident memory in KiB, open descriptors.

    ``resident`` has the files that it has mapped, as far as they are in memory: the journal. For
    ``descriptors`` see :func:`count_descriptors`.
    """

    at: float
    resident: int
    anonymous: int
    descriptors: int


@dataclass(frozen=True)
class Slope:
    """Of a line, with its standard error: KiB per hour."""

    per_hour: float
    error: float

    def __str__(self) -> str:
        return f"{self.per_hour:+,.0f} KiB/hour (standard error {self.error:,.0f})"


def take_sample(pid: int, at: float) -> Sample:
    """Look at a process. Raises ``OSError`` if there is none (proc_pid_status(5))."""
    text = Path(f"/proc/{pid}/status").read_text()
    memory = {name: int(number) for name, number in _MEMORY.findall(text)}
    return Sample(at, memory["VmRSS"], memory["RssAnon"], count_descriptors(pid))


def count_descriptors(pid: int) -> int:
    """Return how many descriptors a process has open, but for files on a disk: the journal's."""
    return sum(not target.startswith("/") for target in _targets(pid))


def _targets(pid: int) -> Iterator[str]:
    """Yield what each descriptor leads to (proc_pid_fd(5))."""
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed by now
            yield os.readlink(f"/proc/{pid}/fd/{descriptor}")


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Return that of the line that is nearest to the points, by least squares.

    A point is a moment in seconds and KiB. Of fewer than three the error is not a number. Where a
    sample resembles the one before it, as memory does, the error is rather larger than stated.
    """
    number = len(points)
    if number < 3:
        return Slope(math.nan, math.nan)
    middle_x, middle_y = (sum(values) / number for values in zip(*points, strict=True))
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    steep = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
    rest = sum((y - middle_y - steep * (x - middle_x)) ** 2 for x, y in points)
    error = math.sqrt(rest / (number - 2) / spread)
    return Slope(steep * 3600, error * 3600)
