"""How late a message comes: a publisher and a consumer in a process of their own.

``python -m tests.soak.latency SOCKET`` sends a message each :data:`EACH` seconds, and writes how
long it took to come back, in seconds, as a double each, until its standard input ends. The consumer
has a filter: what is measured is the relay, not how fast Python takes what others publish.
"""

import select
import subprocess
import sys
import threading
import time
from array import array
from pathlib import Path
from typing import Self

from alphapulse_relay.protocol_v2.control import Subscribe, build_control
from tests.soak.load import SIZE, signal_message
from tests.support import PATIENCE, Client

SOURCE = 60
EACH = 0.005
FLUSH_EACH = 100
"""Messages after which their figures are passed on: to measure must not disturb."""
PERCENTILES = (50, 99, 99.9)


class Latency:
    """Runs the process beside a relay. ``seconds`` is what it has measured so far."""

    def __init__(self, relay: Path) -> None:
        self.seconds = array("d")
        pipe = subprocess.PIPE
        command = (sys.executable, "-m", __name__, str(relay))
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._thread.join(PATIENCE)
        self._process.stdout.close()
        assert self._process.wait(PATIENCE) == 0, "a message did not come back"

    def check(self) -> None:
        assert self._process.poll() is None, "a message did not come back"

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := self._process.stdout.read(FLUSH_EACH * self.seconds.itemsize):
            self.seconds.frombytes(data)


def percentiles(seconds: "array[float]") -> list[float]:
    """Return :data:`PERCENTILES` of what was measured, in µs; of nothing, NaN."""
    ordered = sorted(seconds)
    if not ordered:
        return [float("nan")] * len(PERCENTILES)
    return [ordered[int(len(ordered) * each / 100)] * 1e6 for each in PERCENTILES]


def measure(path: Path) -> None:
    """Write figures until the standard input ends."""
    publisher, consumer = Client(path), Client(path)
    consumer.send(build_control(Subscribe(sources=frozenset({SOURCE})), timestamp=time.time_ns()))
    consumer.socket.recv(SIZE)  # the relay's answer
    found, sequence, due = array("d"), 0, time.monotonic()
    over = False
    while not over:
        early = due - time.monotonic()
        over = bool(select.select([sys.stdin], [], [], max(0, early))[0])
        # One that is late, since the one before it was, is as late as it was due.
        begun = time.monotonic() if early > 0 else due
        publisher.send(signal_message(SOURCE, sequence))
        assert len(consumer.receive(SIZE)) == SIZE
        found.append(time.monotonic() - begun)
        sequence += 1
        due += EACH
        if over or len(found) == FLUSH_EACH:
            sys.stdout.buffer.write(found)
            sys.stdout.flush()
            found = array("d")


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
