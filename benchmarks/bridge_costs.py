"""What a run and a byte cost bridges and NATS: figures for the model of ``scaling``.

``python -m benchmarks.bridge_costs`` joins two relays on this machine, and measures each part while
it alone has something to do, as far as that can be. It prints the fields of
:class:`scaling_parameters.Parameters`; those are the medians of a few runs.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import nats

from alphapulse_relay.client.blocking import Client
from alphapulse_relay.client.core import NOTHING
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from benchmarks import wire
from benchmarks.bridge_systems import CPUTime, Joined, cpu_time

ROUNDS = 5
RUNS = 2_000
"""Runs of one message that are published one after the other."""
PAUSE = 0.001
"""Seconds between two of these: each is stored before the next one comes."""
AT_ONCE = 100
"""Messages that wait for their acknowledgements together."""
FLOOD = 96 << 20
"""Bytes that are published at once: runs are as large as NATS takes then."""
SETTLE = 0.5
"""Seconds in which all that has come is dealt with."""
PATIENCE = 60.0
"""Seconds that anything may take."""
STREAM = "COST"
A, NATS, B = "bridge A", "nats-server", "bridge B"

Costs = dict[str, float]


class Place:
    """Two joined relays, and how far the stream between them has come."""

    def __init__(self, joined: Joined, client: nats.NATS) -> None:
        self.joined = joined
        self._client = client
        self._far = joined.connect(consumer=True)
        self._far.settimeout(PATIENCE)
        self.near = joined.connect(consumer=False)
        self._number = 0

    def close(self) -> None:
        """Close the connections to the relays."""
        self.near.close()
        self._far.close()

    def message(self) -> bytes:
        """Return another message."""
        self._number += 1
        content = build_tlv(21, bytes(wire.MESSAGE_SIZE - 34))
        return build_message(content, source=20, sequence=self._number, timestamp=time.time_ns())

    async def stored(self, more: int, before: Any) -> Any:
        """Wait until the stream has so many bytes of messages more; return how it is then."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = (await self._client.jetstream().stream_info("SIGNALS")).state
            if found.bytes - before.bytes >= more:
                return found
            await asyncio.sleep(0.02)
        raise TimeoutError("not all was stored")

    def taken(self, size: int) -> None:
        """Take so many bytes at the far relay."""
        while size > 0:
            size -= len(self._far.recv(1 << 20))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process do nothing for a while (SIGSTOP, signal(7))."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Usage:
    """CPU seconds that processes use from now on."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        self._processes = processes
        self._before = self._now()

    def of(self, who: str) -> float:
        """Return what one has used."""
        used = cpu_time(self._processes[who]) - self._before[who]
        return used.user + used.system

    def _now(self) -> Mapping[str, CPUTime]:
        return {who: cpu_time(pid) for who, pid in self._processes.items()}


async def costs_of_runs(place: Place) -> Costs:
    """Publish runs of one message, first without the far bridge."""
    joined, processes = place.joined, place.joined.processes
    before = await place.stored(0, _Nothing)
    with stopped(processes[B]):
        usage = Usage(processes)
        for _ in range(RUNS):
            place.near.sendall(place.message())
            await asyncio.sleep(PAUSE)
        after = await place.stored(RUNS * wire.MESSAGE_SIZE, before)
        runs = after.messages - before.messages
        found = {
            "bridge_outward_seconds_per_run": usage.of(A) / runs,
            "run_header_bytes": (after.bytes - before.bytes) / runs
            - RUNS * wire.MESSAGE_SIZE / runs,
        }
        usage = Usage(processes)
    await asyncio.to_thread(place.taken, RUNS * wire.MESSAGE_SIZE)
    await asyncio.sleep(SETTLE)
    per_run, delivered = usage.of(B) / runs, usage.of(NATS) / runs
    usage = Usage(joined.processes)
    for _ in range(RUNS):
        place.near.sendall(place.message())
        await asyncio.sleep(PAUSE)
    await asyncio.to_thread(place.taken, RUNS * wire.MESSAGE_SIZE)
    both = await place.stored(0, _Nothing)
    batches = both.messages - after.messages
    return {
        **found,
        "bridge_inward_seconds_per_run": per_run,
        "bridge_inward_seconds_per_batch": max(usage.of(B) / batches - per_run, 0.0),
        "nats_deliver_seconds_per_run": delivered,
    }


async def costs_of_bytes(place: Place) -> Costs:
    """Publish as much as goes, first without the far bridge."""
    processes = place.joined.processes
    size = FLOOD // wire.MESSAGE_SIZE * wire.MESSAGE_SIZE
    flood = b"".join(place.message() for _ in range(FLOOD // wire.MESSAGE_SIZE))
    before = await place.stored(0, _Nothing)
    with stopped(processes[B]):
        usage = Usage(processes)
        await asyncio.to_thread(place.near.sendall, flood)
        await place.stored(size, before)
        outward, store = usage.of(A) / size, usage.of(NATS) / size
        usage = Usage(processes)
    await asyncio.to_thread(place.taken, size)
    return {
        "bridge_outward_seconds_per_byte": outward,
        "nats_store_seconds_per_byte": store,
        "bridge_inward_seconds_per_byte": usage.of(B) / size,
        "nats_deliver_seconds_per_byte": usage.of(NATS) / size,
    }


async def costs_of_publishing(place: Place, client: nats.NATS) -> Costs:
    """Publish to JetStream, one by one and many at once.

    The one tells how long that takes, less the CPU time of this process; the other what it costs.
    """
    stream = client.jetstream()
    await stream.add_stream(name=STREAM, subjects=[STREAM])
    message = wire.build_sample()
    began, used = time.monotonic(), time.process_time()
    for _ in range(RUNS):
        await stream.publish(STREAM, message)
    took = time.monotonic() - began - (time.process_time() - used)
    usage = Usage(place.joined.processes)
    for _ in range(RUNS // AT_ONCE):
        await asyncio.gather(*(stream.publish(STREAM, message) for _ in range(AT_ONCE)))
    await stream.delete_stream(STREAM)
    return {
        "publish_round_trip_seconds": took / RUNS,
        "nats_store_seconds_per_run": usage.of(NATS) / (RUNS // AT_ONCE * AT_ONCE),
    }


def acknowledgement(place: Place) -> Costs:
    """Publish to a relay one by one; return what that takes less the CPU time of both."""
    relay = place.joined.near
    with Client(relay.directory / "socket", types=NOTHING, acknowledge=True) as client:
        client.publish(place.message(), wait=True)
        began, used = time.monotonic(), time.process_time()
        before = cpu_time(relay.pid)
        for _ in range(RUNS):
            client.publish(place.message(), wait=True)
        own = cpu_time(relay.pid) - before
        took = time.monotonic() - began - (time.process_time() - used) - own.user - own.system
    place.taken((RUNS + 1) * wire.MESSAGE_SIZE)
    return {"relay_ack_seconds": max(took / RUNS, 0.0)}


class _Nothing:
    """The state of a stream of which nothing is known."""

    bytes = 0


async def measured(joined: Joined, rounds: int) -> Costs:
    """Return the medians of so many rounds."""
    async with await nats.connect(joined.hub.url) as client:
        place = Place(joined, client)
        try:
            found: Sequence[Costs] = [await _round(place, client) for _ in range(rounds)]
        finally:
            place.close()
    return {name: median(each[name] for each in found) for name in found[0]}


async def _round(place: Place, client: nats.NATS) -> Costs:
    acknowledged = await asyncio.to_thread(acknowledgement, place)
    await asyncio.sleep(SETTLE)
    return {
        **acknowledged,
        **await costs_of_runs(place),
        **await costs_of_bytes(place),
        **await costs_of_publishing(place, client),
    }


def main() -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory(prefix="bridge-costs-", dir="/var/tmp") as name:
        # Compressed runs would tell what the messages are, not what a byte costs.
        joined = Joined(Path(name), options=("--compress", "never"))
        joined.start()
        try:
            found = asyncio.run(measured(joined, ROUNDS))
        finally:
            joined.stop()
    for field, value in found.items():
        sys.stdout.write(f"{field} {value:.3g}\n")


if __name__ == "__main__":
    main()
