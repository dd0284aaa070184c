"""One measurement: a system under a load, by the load generator ``load.c``."""

import json
import resource
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import wire
from benchmarks.compiled import compile_program
from benchmarks.loads import Figure, Load
from benchmarks.systems import System

PATIENCE = 180.0
"""Seconds after which a measurement has failed: the slowest takes some ten."""


class MeasurementError(Exception):
    """A system could not be measured: it closed connections, or let nobody join."""


@dataclass(frozen=True)
class Measurement:
    """What the load generator found.

    ``least_delivered`` is what the consumer with the fewest messages got of those ``sent``;
    ``delivered`` counts them for all consumers. ``seconds`` is from the first send to the last
    byte. CPU time is the hub's, of all its threads, and the generator's own reading thread's.
    Latencies are from the time at which a message was due to its receipt, in microseconds.
    """

    sent: int
    delivered: int
    least_delivered: int
    seconds: float
    hub_cpu_seconds: float
    reader_cpu_seconds: float
    p50_us: float
    p99_us: float
    max_us: float

    @property
    def complete(self) -> bool:
        """Whether every consumer got every message."""
        return self.sent > 0 and self.least_delivered >= self.sent

    def figure(self, which: Figure) -> float:
        """Return one figure, in its unit."""
        match which:
            case Figure.RATE:
                return self.least_delivered / self.seconds
            case Figure.P50:
                return self.p50_us
            case Figure.P99:
                return self.p99_us
            case Figure.CPU:
                return self.hub_cpu_seconds / max(self.delivered, 1) * 1e6


def allow_connections() -> int:
    """Raise the limit of open files as far as it goes, and return it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def measure(system: System, load: Load, scale: float) -> Measurement:
    """Measure a running system under a load of ``scale`` times its length.

    Raises :class:`MeasurementError` if the system gives up on it.
    """
    try:
        with ExitStack() as stack:
            publisher = stack.enter_context(system.connect(consumer=False))
            consumers = [
                stack.enter_context(system.connect(consumer=True)) for _ in range(load.consumers)
            ]
            return _run(system, load, scale, [publisher, *consumers])
    except (OSError, subprocess.SubprocessError) as error:
        raise MeasurementError(str(error)) from error


def _run(system: System, load: Load, scale: float, sockets: list[socket.socket]) -> Measurement:
    message = wire.build_sample()
    frame = system.framing.sent(message)
    arguments = (
        system.pid,
        frame.hex(),
        len(system.framing.sent_before),
        len(system.framing.got(message)),
        max(load.write_size // len(frame), 1),
        load.random,
        load.rate,
        load.seconds * scale,
        load.warm_up,
        *(each.fileno() for each in sockets),
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [compile_program("load"), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        pass_fds=[each.fileno() for each in sockets],
    )
    if done.returncode:
        raise MeasurementError(done.stderr.strip())
    return Measurement(**json.loads(done.stdout))
