"""What is asked of the relay's journal alone, each by two functions.

``measure_x(relay, number, scale)`` finds the figures of round ``number``: the relay runs, and its
journal is full, before and after. ``judge_x(rounds)`` tells what all rounds come to. Loads last
``scale`` times their length. Raised are ``OSError``, ``MeasurementError`` and ``StartError``.
"""

import contextlib
import copy
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks import page_cache, stores, wire
from benchmarks.loads import LOADS, WARM_UP, Figure, Load
from benchmarks.measure import Measurement, MeasurementError, measure
from benchmarks.replay import Replay, replay
from benchmarks.summary import OURS, Check
from benchmarks.systems import JournalRelay, Relay, System

GIB = 1 << 30
REPLAY_LEAST = 1e9
"""Bytes per second of a replay."""
FRESH_LEAST, FILTER_LEAST = 0.6, 0.7
"""What must be left of the messages per second: with a journal that is new, and with a filter."""
COLD_LIMIT = 1.1
"""How much later messages may be (p99) while another peer is sent what is only on the disk."""
START_LIMIT = 1.0
"""Seconds, for each GiB that is kept, until a relay serves that was killed."""
CUT_SHORT = 1 << 20
"""Bytes published right before it is killed."""
IDLE_SHARE = 0.05
IDLE_SECONDS = 0.5
"""A relay is at rest when it takes less than that part of a core for so long: at start it reads all
of its journal, in the background."""
IDLE_PATIENCE = 120.0
"""Seconds for it to come to rest."""

BY_KEY = {load.key: load for load in LOADS}
THROUGH = BY_KEY["through-1"], BY_KEY["through-3"]
"""The loads that ask how much goes through."""
PACED = BY_KEY["timed-1"]
BESIDE = replace(BY_KEY["timed-3"], seconds=0.3)
"""The load beside which a history is replayed: short, to be over before the replay is."""

Figures = Mapping[str, float]
"""What one round found, by name."""
SomeSystem = TypeVar("SomeSystem", bound=System)


def middle(rounds: Sequence[Figures], name: str) -> float:
    """Return the median of a figure over the rounds that have it."""
    return median(each[name] for each in rounds if name in each)


def in_turn(number: int, *actions: Callable[[], None]) -> None:
    """Do all of them; which is first changes from round to round."""
    first = number % len(actions)
    for action in (*actions[first:], *actions[:first]):
        action()


def complete(measurement: Measurement) -> Measurement:
    """Return it. Raises :class:`MeasurementError` if a consumer did not get everything."""
    if not measurement.complete:
        raise MeasurementError("not every consumer got every message")
    return measurement


def at_least(label: str, found: float, least: float) -> Check:
    """Judge a ratio that must not be less."""
    return Check(label, f"{found:.2f}", f"≥ {least:g}", found >= least)


@contextlib.contextmanager
def _new(kind: type[SomeSystem], beside: JournalRelay) -> Iterator[SomeSystem]:
    """Yield a system that is to be started in a new directory on the same disk; end both."""
    with tempfile.TemporaryDirectory(dir=beside.directory.parent) as name:
        system = kind(Path(name), beside.scale)
        try:
            yield system
        finally:
            system.stop()


def settle(relay: JournalRelay) -> None:
    """Wait until a relay is at rest, and what it wrote is on the disk.

    Raises :class:`MeasurementError` if it never is.
    """
    deadline = time.monotonic() + IDLE_PATIENCE
    while time.monotonic() < deadline:
        before = _cpu_seconds(relay.pid)
        time.sleep(IDLE_SECONDS)
        if _cpu_seconds(relay.pid) - before < IDLE_SHARE * IDLE_SECONDS:
            page_cache.write_back(relay.journal)
            return
    raise MeasurementError("the relay does not come to rest")


def _cpu_seconds(pid: int) -> float:
    """Return what all threads of a process have used (the id is clock_getcpuclockid(3)'s)."""
    return time.clock_gettime(~pid << 3 | 2)


def _kept(relay: Relay) -> int:
    log = relay.status()["log"]
    return int(log["head"]) - int(log["tail"])


# Replay


def measure_replay(relay: JournalRelay, _number: int, _scale: float) -> Figures:
    """Receive all that is kept."""
    with relay.connect(consumer=True) as connection:
        found = replay(connection)
    return {"bytes": found.size, "seconds": found.seconds}


def judge_replay(rounds: Sequence[Figures]) -> Sequence[Check]:
    """Judge how fast that goes."""
    rate = median(each["bytes"] / each["seconds"] for each in rounds)
    label = f"replay of all that is kept, {middle(rounds, 'bytes') / GIB:.2f} GiB, to one reader"
    met = rate >= REPLAY_LEAST
    return [Check(label, f"{rate / 1e9:.2f} GB/s", f"≥ {REPLAY_LEAST / 1e9:g} GB/s", met)]


# A new journal


def measure_fresh(relay: JournalRelay, number: int, scale: float) -> Figures:
    """Measure relays just started, one on an empty directory and one without a journal."""
    figures = {}

    def go(kind: type[Relay]) -> None:
        with _new(kind, relay) as fresh:
            fresh.start()
            found = complete(measure(fresh, THROUGH[0], scale))
        figures[kind.key] = found.figure(Figure.RATE)

    in_turn(number, partial(go, JournalRelay), partial(go, Relay))
    return figures


def judge_fresh(rounds: Sequence[Figures]) -> Sequence[Check]:
    """Judge what a new journal costs, whose files are being made."""
    found = median(each[JournalRelay.key] / each[OURS] for each in rounds)
    label = f"with a new journal / without: {Figure.RATE}, {THROUGH[0].label}"
    return [at_least(label, found, FRESH_LEAST)]


# Live beside a replay from the disk


def measure_cold(relay: JournalRelay, number: int, scale: float) -> Figures:
    """Measure a live load beside a replay of a journal that is not in memory, and without one."""
    relay.stop()
    relay.start()  # what it sent has to be mapped by no process before it leaves memory
    settle(relay)
    figures: dict[str, float] = {}
    in_turn(
        number,
        lambda: figures.update(_beside_replay(relay, scale)),
        lambda: figures.update(alone=complete(measure(relay, BESIDE, scale)).p99_us),
    )
    return figures


def _beside_replay(relay: JournalRelay, scale: float) -> Figures:
    cold = page_cache.drop(relay.journal)
    reader = LateReader(relay)
    reader.start()
    found = complete(measure(relay, BESIDE, scale))
    reader.join()
    if reader.found is None:
        raise MeasurementError(f"the replay beside a load: {reader.failure}")
    lasted = reader.found.seconds
    covered = min(1.0, lasted / (BESIDE.seconds * scale))
    return {
        "beside": found.p99_us,
        "cold": cold,
        "covered": covered,
        "bytes": reader.found.size,
        "seconds": lasted,
    }


class LateReader(threading.Thread):
    """Joins as a consumer, and asks for the history when the load's warm-up has gone by."""

    def __init__(self, relay: Relay) -> None:
        super().__init__(daemon=True)
        self.found: Replay | None = None
        self.failure: Exception | None = None
        self._connection = relay.connect(consumer=True)

    def run(self) -> None:
        """Receive it."""
        with self._connection:
            try:
                for _ in range(WARM_UP):
                    wire.receive_message(self._connection)
                self.found = replay(self._connection)
            except (OSError, ValueError) as error:
                self.failure = error


def judge_cold(rounds: Sequence[Figures]) -> Sequence[Check]:
    """Judge how much later the live messages are."""
    found = median(each["beside"] / each["alone"] for each in rounds)
    speed = median(each["bytes"] / each["seconds"] for each in rounds) / 1e9
    measured = (
        f"{middle(rounds, 'beside'):,.0f} µs, without it {middle(rounds, 'alone'):,.0f}: "
        f"{found:.2f} times ({middle(rounds, 'cold'):.0%} of the files were on the disk only, "
        f"the replay went at {speed:.2f} GB/s "
        f"and lasted for {middle(rounds, 'covered'):.0%} of the load)"
    )
    label = f"p99 of {BESIDE.label}, beside a replay of {middle(rounds, 'bytes') / GIB:.2f} GiB"
    return [Check(label, measured, f"≤ {COLD_LIMIT:g} times", found <= COLD_LIMIT)]


# Filters


def measure_filter(relay: JournalRelay, number: int, scale: float) -> Figures:
    """Measure consumers with a filter that all messages pass, and consumers with none."""
    filtered = copy.copy(relay)
    filtered.greet = wire.open_filtered
    figures = {}

    def go(seen: Relay, load: Load, name: str) -> None:
        figures[name] = complete(measure(seen, load, scale)).figure(Figure.RATE)

    for load in THROUGH:
        in_turn(
            number,
            partial(go, filtered, load, f"{load.key} filtered"),
            partial(go, relay, load, load.key),
        )
    return figures


def judge_filter(rounds: Sequence[Figures]) -> Sequence[Check]:
    """Judge what the filter costs."""
    return [
        at_least(
            f"with a filter that all pass / without: {Figure.RATE}, {load.label}",
            median(each[f"{load.key} filtered"] / each[load.key] for each in rounds),
            FILTER_LEAST,
        )
        for load in THROUGH
    ]


# Start after a crash


def measure_start(relay: JournalRelay, _number: int, _scale: float) -> Figures:
    """Kill the relay and start it again; and start one on an empty directory."""
    relay.publish(CUT_SHORT)
    relay.kill()
    seconds = _start(relay)
    kept = _kept(relay)
    settle(relay)
    with _new(JournalRelay, relay) as empty:
        return {"seconds": seconds, "bytes": kept, "empty": _start(empty)}


def _start(relay: Relay) -> float:
    """Return how many seconds it takes until a relay says that it serves, and one can connect."""
    began = time.perf_counter()
    relay.start()
    relay.connect(consumer=True).close()
    return time.perf_counter() - began


def judge_start(rounds: Sequence[Figures]) -> Sequence[Check]:
    """Judge how long that takes for what is kept; the process itself is in it."""
    seconds, kept = middle(rounds, "seconds"), middle(rounds, "bytes") / GIB
    empty = middle(rounds, "empty")
    found = median(each["seconds"] / each["bytes"] * GIB for each in rounds)
    label = f"start after kill -9, with {kept:.2f} GiB kept"
    measured = f"{seconds:.2f} s, {found:.2f} s/GiB (with an empty directory {empty:.2f} s)"
    return [Check(label, measured, f"< {START_LIMIT:g} s/GiB", found < START_LIMIT)]


# Others that keep messages


def measure_stores(relay: JournalRelay, number: int, scale: float) -> Figures:
    """Measure what goes through the relay and through others, as far as they are there."""
    seconds = stores.SECONDS * scale
    figures = {}

    def go_relay() -> None:
        figures[relay.key] = stores.messages_a_second(stores.RelayStore(relay), seconds)

    def go(kind: type[System], store: type[stores.Store]) -> None:
        with _new(kind, relay) as system:
            system.start()
            figures[kind.key] = stores.messages_a_second(store(system), seconds)

    rivals = [
        partial(go, kind, store)
        for kind, store in stores.RIVALS
        if kind(relay.directory).missing() is None
    ]
    in_turn(number, go_relay, *rivals)
    return figures


def judge_stores(rounds: Sequence[Figures]) -> Sequence[Check]:
    """Tell it."""
    kinds: list[type[System]] = [JournalRelay, *(kind for kind, _ in stores.RIVALS)]
    return [
        Check(
            f"published, kept and consumed, by the generator in Python: {kind.label}",
            f"{middle(rounds, kind.key):,.0f} messages/s",
            "",
            None,
        )
        for kind in kinds
        if any(kind.key in each for each in rounds)
    ]
