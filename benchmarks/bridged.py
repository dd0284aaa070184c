"""What bridges do: how much goes from relay to relay, how soon, and what that costs the relay here.

A part of a run, as those in ``parts``. In each round two relays of its own are joined; the relay
alone, and programs that use NATS by nats-py, are measured in turn beside them.
"""

import copy
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import wire
from benchmarks.bridge_systems import CPUTime, Hub, Joined, cpu_time
from benchmarks.browsers import LATENCY_LIMIT, QUIET, figures_of
from benchmarks.loads import Figure, Load
from benchmarks.measure import MeasurementError, measure
from benchmarks.parts import Figures, complete, in_turn, middle, settle
from benchmarks.summary import Check
from benchmarks.systems import JournalRelay, System

HERE = Path(__file__).parent
RATE_LEAST = 1_000_000
"""Messages per second from relay to relay."""
DISTINCT = 16 << 20
"""Bytes of a write: more than a bridge has under way, so that no two messages there are alike."""
THROUGH = Load(
    *("bridged", "as much as goes", 1, ()), write_size=DISTINCT, seconds=2.0, warm_up=500_000
)
RANDOM = replace(THROUGH, random=wire.TLV_SIZE)
"""The same with content that no bridge can compress."""
PROGRAM_SECONDS = 0.5
"""How long programs by nats-py publish: what they take does not depend on it."""
PATIENCE = 60.0
"""Seconds for a program to end: a consumer may be far behind."""
BESIDE_FLOOD = replace(QUIET, seconds=8.0)
"""What is measured beside a flood: in less time the p99 strays by half, on two cores."""
SETTLED = 0.2
"""Seconds from the first messages of a flood to a measurement beside it."""
PROCESSES = ("relay A", "bridge A", "nats-server", "bridge B", "relay B")
ALONE, JOINED, INCOMPRESSIBLE, PROGRAMS = "relay", "joined", "incompressible", "nats-py"
WHO = {JOINED: "from relay to relay", ALONE: "at one relay", PROGRAMS: "of programs by nats-py"}
NOBODY, CONSUMER, BRIDGE = "nobody", "consumer", "bridge"
BESIDE = {
    CONSUMER: "one more consumer on the socket",
    BRIDGE: "a bridge",
}
"""Who gets all that comes while the relay is measured, besides a consumer that is always there."""
FLOODS = {JOINED: (THROUGH, "a flood"), INCOMPRESSIBLE: (RANDOM, "a flood of random content")}
"""What comes: each as fast as it would go from relay to relay."""


def measure_bridge(relay: JournalRelay, number: int, scale: float) -> Figures:
    """Measure two joined relays beside the one, and the one beside a bridge."""
    with tempfile.TemporaryDirectory(dir=relay.directory.parent) as name:
        joined = Joined(Path(name), scale)
        if why := joined.missing():
            raise MeasurementError(f"bridges: {why}")
        try:
            joined.start()
            settle_both(joined)
            figures = {**_through(joined, relay, number, scale)}
            figures.update(_latency(joined, relay, number, scale))
            joined.far_bridge.stop()  # which is on another machine in life
            for flood in FLOODS:
                rate = figures[f"through {flood}"]
                figures.update(_beside(joined, relay, number, scale, flood, rate))
        finally:
            joined.stop()
    return figures


def settle_both(joined: Joined) -> None:
    """Wait until nothing is under way between the relays, and all is on the disk."""
    settle(joined.near)
    settle(joined.far)
    os.sync()  # nats-server's files as well


class Usage:
    """CPU time that the processes between two relays use from now on."""

    def __init__(self, joined: Joined) -> None:
        self._processes = joined.processes
        self._before = self._now()

    def _now(self) -> dict[str, CPUTime]:
        return {who: cpu_time(pid) for who, pid in self._processes.items()}

    def figures(self, name: str, unit: float) -> Figures:
        """Return it by process, in the user's and the system's mode, each in so many seconds."""
        found = {who: now - self._before[who] for who, now in self._now().items()}
        user = {f"{name} {who} user": used.user / unit for who, used in found.items()}
        return user | {f"{name} {who} system": used.system / unit for who, used in found.items()}


# How much goes


def _through(joined: Joined, relay: JournalRelay, number: int, scale: float) -> Figures:
    load, random = (replace(each, warm_up=int(each.warm_up * scale)) for each in (THROUGH, RANDOM))
    figures: dict[str, float] = {}

    def go_joined(name: str, load: Load) -> None:
        usage = Usage(joined)
        found = complete(measure(joined, load, scale))
        settle_both(joined)
        figures[f"through {name}"] = found.figure(Figure.RATE)
        figures.update(usage.figures(f"CPU {name}", (found.sent + load.warm_up) / 1e6))

    def go_relay() -> None:
        found = complete(measure(relay, load, scale))
        settle(relay)
        figures[f"through {ALONE}"] = found.figure(Figure.RATE)

    def go_programs() -> None:
        found = _publish_and_consume(joined.hub, "publish", PROGRAM_SECONDS * scale)
        figures[f"through {PROGRAMS}"] = found["count"] / found["seconds"]

    def go_blobs() -> None:
        with _program("blobs", joined.hub, PROGRAM_SECONDS * scale) as process:
            found = result_of(process)
        figures["through blobs"] = found["bytes"] / found["seconds"] / wire.MESSAGE_SIZE

    in_turn(
        number,
        partial(go_joined, JOINED, load),
        partial(go_joined, INCOMPRESSIBLE, random),
        go_relay,
        go_programs,
        go_blobs,
    )
    return figures


def _publish_and_consume(hub: Hub, kind: str, seconds: float) -> dict[str, float]:
    """Return what a program found that consumed what another one published."""
    with _program("consume", hub, 0) as consumer:
        wait_until_ready(consumer)
        with _program(kind, hub, seconds) as publisher:
            sent = result_of(publisher)["sent"]
        found: dict[str, float] = result_of(consumer)
    if found["count"] != sent:
        raise MeasurementError(f"nats-py: {sent - found['count']:,} messages did not come")
    return found


@contextmanager
def _program(kind: str, hub: Hub, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    command = (sys.executable, "-m", "benchmarks.bridge_nats", kind, hub.url, str(seconds))
    with started(command) as process:
        yield process


@contextmanager
def started(command: Sequence[str | Path]) -> Iterator["subprocess.Popen[str]"]:
    """Run a program, which goes on until its standard input ends, or has nothing left to do."""
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=HERE.parent
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_ready(process: "subprocess.Popen[str]") -> None:
    """Wait until a program has said that it is, or has ended."""
    assert process.stdout is not None
    process.stdout.readline()


def result_of(process: "subprocess.Popen[str]") -> Any:
    """Have a program end, and return what it then says, as JSON.

    Raises :class:`MeasurementError` if it fails.
    """
    try:
        found, failure = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise MeasurementError("a program beside the relay does not end") from None
    if process.returncode:
        lines = failure.strip().splitlines() or ["it said nothing"]
        raise MeasurementError(f"a program beside the relay failed: {lines[-1]}")
    return json.loads(found)


# How soon


def _latency(joined: Joined, relay: JournalRelay, number: int, scale: float) -> Figures:
    figures: dict[str, float] = {}

    def go(name: str, system: System) -> None:
        usage = Usage(joined)
        found = complete(measure(system, QUIET, scale))
        figures.update({f"{name} p50": found.p50_us, f"{name} p99": found.p99_us})
        if system is joined:
            figures.update(usage.figures("CPU paced", found.sent / 1e3))

    def go_programs() -> None:
        found = _publish_and_consume(joined.hub, "timed", QUIET.seconds * scale)
        figures.update({f"{PROGRAMS} {name}": found[name] for name in ("p50", "p99")})

    in_turn(number, partial(go, JOINED, joined), partial(go, ALONE, relay), go_programs)
    return figures


# What it costs the relay here


def _beside(
    joined: Joined, relay: JournalRelay, number: int, scale: float, flood: str, rate: float
) -> Figures:
    """Measure two peers at a relay while others publish a flood, which a bridge gets, or nobody."""
    figures: dict[str, float] = {}
    load, _ = FLOODS[flood]

    def go(who: str, at: JournalRelay) -> None:
        program = ("-m", "benchmarks.bridge_flood", _path(at), str(rate), str(load.random))
        with ExitStack() as stack:
            if who == CONSUMER:
                visitor = (sys.executable, HERE / "visitors.py", "socket", "0", _path(at))
                wait_until_ready(stack.enter_context(started(visitor)))
            process = stack.enter_context(started((sys.executable, *program)))
            wait_until_ready(process)
            held = _held_seconds(at)
            began = time.monotonic()
            time.sleep(SETTLED * scale)
            found = complete(measure(_own_messages(at), BESIDE_FLOOD, scale))
            sent = result_of(process)
            lasted = time.monotonic() - began
        settle(at)
        name = f"{flood} {who}"
        figures.update(figures_of(name, found))
        figures[f"{name} flood"] = sent / lasted
        figures[f"{name} held"] = _held_seconds(at) - held

    in_turn(
        number,
        *(partial(go, who, relay) for who in (NOBODY, CONSUMER)),
        partial(go, BRIDGE, joined.near),
    )
    return figures


def _held_seconds(relay: JournalRelay) -> float:
    """Return for how long the relay has left publishers unread, as consumers were behind."""
    return float(relay.status()["counters"]["held_seconds"])


def _path(relay: JournalRelay) -> Path:
    return relay.directory / "socket"


def _own_messages(relay: JournalRelay) -> JournalRelay:
    """Return the relay as peers see it that want none of the flood."""
    filtered = copy.copy(relay)
    filtered.greet = _open_filtered
    return filtered


def _open_filtered(connection: socket.socket, *, consumer: bool) -> None:  # noqa: ARG001
    wire.open_filtered(connection, consumer=True)


# What it comes to


def judge_bridge(rounds: Sequence[Figures]) -> Sequence[Check]:
    """Judge what goes from relay to relay, and how much later others are for it."""
    return [
        _judge_through(rounds),
        _tell_cpu(f"CPU {JOINED}", "a million messages", rounds),
        _tell_incompressible(rounds),
        _tell_cpu(f"CPU {INCOMPRESSIBLE}", "a million messages with random content", rounds),
        *(_tell_latency(who, rounds) for who in WHO),
        _tell_cpu("CPU paced", "1,000 messages, at 1,000 a second", rounds),
        *(_judge_beside(flood, who, rounds) for flood in FLOODS for who in BESIDE),
    ]


def _judge_through(rounds: Sequence[Figures]) -> Check:
    rate, alone, programs, blobs = (
        middle(rounds, f"through {who}") for who in (JOINED, ALONE, PROGRAMS, "blobs")
    )
    part = median(each[f"through {JOINED}"] / each["through blobs"] for each in rounds)
    measured = (
        f"{rate:,.0f} messages/s (one relay {alone:,.0f}, one by one by nats-py {programs:,.0f}, "
        f"JetStream alone {blobs:,.0f} in messages of 1 MiB: {part:.2f} times that)"
    )
    label = "as much as goes, from relay to relay over bridges and JetStream"
    return Check(label, measured, f"≥ {RATE_LEAST:,} messages/s", rate >= RATE_LEAST)


def _tell_incompressible(rounds: Sequence[Figures]) -> Check:
    part = median(each[f"through {INCOMPRESSIBLE}"] / each["through blobs"] for each in rounds)
    rate = middle(rounds, f"through {INCOMPRESSIBLE}")
    measured = f"{rate:,.0f} messages/s ({part:.2f} times what JetStream alone stores)"
    label = "as much as goes, from relay to relay, of random content that cannot be compressed"
    return Check(label, measured, "", None)


def _tell_cpu(name: str, what: str, rounds: Sequence[Figures]) -> Check:
    used = {
        who: (middle(rounds, f"{name} {who} user"), middle(rounds, f"{name} {who} system"))
        for who in PROCESSES
    }
    each = ", ".join(f"{who} {user:.2f} + {own:.2f}" for who, (user, own) in used.items())
    total = sum(sum(both) for both in used.values())
    measured = f"{total:.2f} s of a core: {each} (user + system)"
    return Check(f"CPU time for {what}, from relay to relay", measured, "", None)


def _tell_latency(who: str, rounds: Sequence[Figures]) -> Check:
    p50, p99 = middle(rounds, f"{who} p50"), middle(rounds, f"{who} p99")
    label = f"{QUIET.label}, {WHO[who]}"
    return Check(label, f"p50 {p50:,.0f} µs, p99 {p99:,.0f} µs", "", None)


def _judge_beside(flood: str, who: str, rounds: Sequence[Figures]) -> Check:
    name, without = f"{flood} {who}", f"{flood} {NOBODY}"
    later = {
        figure: median(each[f"{name} {figure}"] / each[f"{without} {figure}"] for each in rounds)
        for figure in ("p50", "p99")
    }
    p50, p99, messages, cpu = (
        (middle(rounds, f"{name} {figure}"), middle(rounds, f"{without} {figure}"))
        for figure in ("p50", "p99", "flood", "cpu")
    )
    measured = (
        f"{later['p99']:.2f} times: {p99[0]:,.0f} µs, without {p99[1]:,.0f} "
        f"(p50 {later['p50']:.2f} times: {p50[0]:,.0f} µs, without {p50[1]:,.0f}; "
        f"the relay takes {cpu[0]:.1%} of a core, without {cpu[1]:.1%}; "
        f"beside it {messages[0]:,.0f} messages/s, without {messages[1]:,.0f}; "
        f"publishers were held for {middle(rounds, f'{name} held'):.2f} s)"
    )
    _, what = FLOODS[flood]
    label = f"p99 of {QUIET.label}, beside {what} that goes to {BESIDE[who]}"
    if who != BRIDGE:
        return Check(label, measured, "", None)
    return Check(label, measured, f"≤ {LATENCY_LIMIT:g} times", later["p99"] <= LATENCY_LIMIT)
