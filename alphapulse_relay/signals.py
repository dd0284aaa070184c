"""The signals that end a process in order, or have it look again at what it reads.

Both are heeded in the reactor's own time, whatever it is at when they come.
"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


def heed_end(reactor: Any, act: Callable[[str], None]) -> None:
    """Have SIGTERM and SIGINT not end the process, but ``act`` be called with their names."""

    # twistd's own handler would end the process by the same signal once all is done: to a shell or
    # a supervisor one that left in order looks like one that was killed.
    def caught(number: int, _: FrameType | None) -> None:
        reactor.callFromThread(act, signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, caught)


def heed_hangup(reactor: Any, act: Callable[[], None]) -> None:
    """Have SIGHUP not end the process, but ``act`` be called."""
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(act))
