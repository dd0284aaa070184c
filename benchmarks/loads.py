"""The loads, and what is expected of the relay under each of them."""

from dataclasses import dataclass, replace
from enum import StrEnum

WRITE_SIZE = 64 * 1024
"""Bytes of a publisher's write in the loads that ask how much goes through."""
WARM_UP = 1_000
"""Messages before a measurement: they fill caches and grow buffers."""
FILL = 5_000
"""Messages after which a stalled consumer's socket is full: five times what fits (208 KiB)."""


class Figure(StrEnum):
    """What is told of a load."""

    RATE = "messages/s"
    P50 = "p50"
    P99 = "p99"
    CPU = "CPU per delivery"

    @property
    def unit(self) -> str:
        """The unit of its values."""
        return "messages/s" if self is Figure.RATE else "µs"

    @property
    def more_is_better(self) -> bool:
        """Whether the larger of two is the better one."""
        return self is Figure.RATE


@dataclass(frozen=True)
class Target:
    """What is expected of a figure of the relay, as a part or a multiple of the floor's."""

    figure: Figure
    limit: float

    def met_by(self, ratio: float) -> bool:
        """Return whether a figure that is ``ratio`` times the floor's is good enough."""
        return ratio >= self.limit if self.figure.more_is_better else ratio <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.figure.more_is_better else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Load:
    """One publisher and so many ``consumers``.

    ``rate`` is in messages per second, each sent when it is due; 0 sends as much as goes. Writes
    are of ``write_size`` bytes, or of one message. ``seconds`` is how long it publishes. Of each
    message in a write the last ``random`` bytes are unlike those of all others.
    """

    key: str
    label: str
    consumers: int
    targets: tuple[Target, ...]
    rate: int = 0
    write_size: int = 0
    random: int = 0
    seconds: float = 0.6
    warm_up: int = WARM_UP


def _through(key: str, consumers: int, write_size: int) -> Load:
    size = "64 KiB" if write_size else "one message"
    label = f"{size} per write, to {consumers}"
    targets = Target(Figure.RATE, 0.9), CPU_TARGET
    return Load(key, label, consumers, targets, write_size=write_size)


def _timed(key: str, rate: int, consumers: int, seconds: float, *targets: Target) -> Load:
    label = f"{rate:,} a second, to {consumers:,}"
    return Load(key, label, consumers, (*targets, CPU_TARGET), rate=rate, seconds=seconds)


CPU_TARGET = Target(Figure.CPU, 1.3)
FEW = Target(Figure.P50, 1.15), Target(Figure.P99, 1.5)
MANY = Target(Figure.P50, 1.1)

LOADS = (
    _through("through-1", 1, WRITE_SIZE),
    _through("through-3", 3, WRITE_SIZE),
    _through("through-10", 10, WRITE_SIZE),
    _through("single-3", 3, 0),
    _timed("timed-1", 1_000, 1, 1.0, *FEW),
    _timed("timed-3", 10_000, 3, 0.6, *FEW),
    _timed("timed-100", 200, 100, 0.8, MANY),
    _timed("timed-1000", 20, 1_000, 1.0, MANY),
)
"""The loads that all systems are under."""

READERS = 998
"""With the publisher and one that reads nothing these are 1,000 peers."""
ALL_READ = Load("all-read", "998 that read", READERS, (), rate=50, seconds=1.5, warm_up=FILL)
ONE_STALLED = replace(ALL_READ, key="one-stalled", label="998 that read and one that does not")
STALLED_LIMIT = 1.1
"""How much slower the others may be (p99) for one that stalls."""

PURE_LOAD = "through-3"
PURE_LEAST = 365_000
"""Messages per second under that load of the system that the relay replaces."""
