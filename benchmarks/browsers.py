"""What those at the side port do to peers on the Unix socket: browsers, and those who misbehave.

A part of a run, as those in ``parts``. A load is measured beside visitors of each kind, which
``visitors.py`` plays, and beside nobody, in turn.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import wire
from benchmarks.loads import Load
from benchmarks.measure import Measurement, MeasurementError, measure
from benchmarks.parts import BY_KEY, Figures, complete, in_turn, middle, settle
from benchmarks.summary import Check
from benchmarks.systems import JournalRelay

PROGRAM = Path(__file__).with_name("visitors.py")
PATIENCE = 10.0
"""Seconds for visitors to leave."""
LATENCY_LIMIT = 1.1
"""How much later messages may be (p99) beside visitors."""
STALL_PIECE = 512 * 1024
"""Bytes published at once for a WebSocket to stall on: at 1 MiB behind it would be moved on."""
STALL_PIECES = 64
"""So many at most: its connection takes some 4 MiB."""
STALL_PAUSE = 0.03
"""Seconds after each: WebSockets are served 100 times a second."""

QUIET = replace(BY_KEY["timed-1"], key="quiet", seconds=2.0)
BUSY = Load(
    *("busy", "50,000 a second, 50 at a time, to 1", 1, ()),
    rate=50_000,
    write_size=50 * wire.MESSAGE_SIZE,
    seconds=1.0,
)


@dataclass(frozen=True)
class Visitors:
    """Those of one kind; ``key`` is what ``visitors.py`` calls them.

    Of those that are not ``limited`` is told what they do, to compare the others with.
    """

    key: str
    label: str
    loads: Sequence[Load] = (QUIET, BUSY)
    limited: bool = True


NOBODY = Visitors("nobody", "nobody")
STALLED = Visitors("stalled", "a WebSocket that reads nothing")
VISITORS = (
    Visitors("socket", "one more consumer on the socket", limited=False),
    Visitors("pages", "ten pages"),
    Visitors("binary", "a WebSocket"),
    Visitors("json", "a WebSocket with format=json"),
    STALLED,
    Visitors("half-open", "1,000 half-open connections", (QUIET,)),
    Visitors("wrong", "200 wrong requests a second", (QUIET,)),
)


def measure_browsers(relay: JournalRelay, number: int, scale: float) -> Figures:
    """Measure the loads beside each kind of visitors, and beside nobody."""
    figures: dict[str, float] = {}

    def go(load: Load, visitors: Visitors) -> None:
        settle(relay)
        if visitors is NOBODY:
            found = complete(measure(relay, load, scale))
        else:
            found, done = measure_beside(visitors, relay, load, scale)
            figures[f"{load.key} {visitors.key} done"] = done
        figures.update(figures_of(f"{load.key} {visitors.key}", found))

    for load in (QUIET, BUSY):
        kinds = [NOBODY, *(each for each in VISITORS if load in each.loads)]
        in_turn(number, *(partial(go, load, each) for each in kinds))
    return figures


def measure_beside(
    visitors: Visitors, relay: JournalRelay, load: Load, scale: float, port: int | None = None
) -> tuple[Measurement, float]:
    """Measure a load while visitors are there; also return how much those did.

    They come to ``port``: the side port, if it is left out. Raises :class:`MeasurementError` if
    they could not do what they should, and as ``measure`` does.
    """
    where = str(port or relay.port), relay.directory / "socket"
    command = (sys.executable, PROGRAM, visitors.key, *where)
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # they are there
            if visitors is STALLED:
                _stall(relay)
            found = complete(measure(relay, load, scale))
            done, failure = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"{visitors.label}: did not leave") from None
        finally:
            process.kill()
    if process.returncode:
        raise MeasurementError(f"{visitors.label}: {failure.strip() or 'ended too early'}")
    return found, float(done)


def _stall(relay: JournalRelay) -> None:
    """Publish until the WebSocket has not taken all of it, and the relay is at rest again."""
    for _ in range(STALL_PIECES):
        relay.publish(STALL_PIECE)
        time.sleep(STALL_PAUSE)
        found = {(peer["transport"], peer["state"]) for peer in relay.status()["peers"]}
        if ("websocket", "behind") in found:
            settle(relay)
            return
    raise MeasurementError(f"{STALLED.label}: has taken everything")


def figures_of(name: str, found: Measurement) -> Figures:
    """Return what is told of a measurement: latencies in µs, CPU time as a part of a core's."""
    share = found.hub_cpu_seconds / found.seconds
    return {f"{name} p50": found.p50_us, f"{name} p99": found.p99_us, f"{name} cpu": share}


def judge_browsers(rounds: Sequence[Figures]) -> Sequence[Check]:
    """Judge how much later messages are beside visitors."""
    return [
        _judge(load, visitors, rounds)
        for load in (QUIET, BUSY)
        for visitors in VISITORS
        if load in visitors.loads
    ]


def _judge(load: Load, visitors: Visitors, rounds: Sequence[Figures]) -> Check:
    there, alone = f"{load.key} {visitors.key}", f"{load.key} {NOBODY.key}"
    later = median(each[f"{there} p99"] / each[f"{alone} p99"] for each in rounds)
    p50, p99, cpu = (
        (middle(rounds, f"{there} {figure}"), middle(rounds, f"{alone} {figure}"))
        for figure in ("p50", "p99", "cpu")
    )
    measured = (
        f"{p99[0]:,.0f} µs, without {p99[1]:,.0f}: {later:.2f} times "
        f"(p50 {p50[0]:,.0f} µs, without {p50[1]:,.0f}; "
        f"the relay takes {cpu[0]:.1%} of a core, without {cpu[1]:.1%})"
    )
    label = f"p99 of {load.label}, beside {visitors.label}"
    if not visitors.limited:
        return Check(label, measured, "", None)
    return Check(label, measured, f"≤ {LATENCY_LIMIT:g} times", later <= LATENCY_LIMIT)
