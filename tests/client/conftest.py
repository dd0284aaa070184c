"""Where a scripted relay may listen, and time that only passes when it is told to."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def path() -> Iterator[Path]:
    """A place for a Unix socket: its path has room for 107 bytes, and pytest's are long."""
    with tempfile.TemporaryDirectory(prefix="client-") as directory:
        yield Path(directory) / "s.sock"


class FakeTime:
    """The module ``time``, but for the passing of time: that is what is slept."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.on_sleep: Callable[[], object] = list

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds + 1e-9  # as in life, a little more than was asked for
        self.on_sleep()


@pytest.fixture
def clock() -> FakeTime:
    return FakeTime()
