"""What a program does without a relay: it publishes to NATS by nats-py, and another one subscribes.

``python bridge_nats.py KIND URL SECONDS`` prints a line of JSON with what it found: ``publish`` and
``timed`` publish messages, as many as go or 1,000 a second, ``blobs`` has JetStream keep as large
ones as a server takes; ``consume`` prints a line when it has subscribed, and takes what the former
two publish, until an empty message.
"""

import asyncio
import json
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks import wire

SUBJECT = wire.CHANNEL.decode()
RATE = 1_000
"""Messages a second that are timed: as in the load of the relay's."""
AT_ONCE = 303
"""Messages published between two looks at the clock, and turns of the loop: 64 KiB."""
STREAM = "BLOBS"
IN_FLIGHT = 4
"""Blobs that wait for their acknowledgement: more do not make it faster."""
SPREAD = 0.05
"""Seconds from the start to the first timed message."""
TIMESTAMP = struct.Struct("<Q")
TIMESTAMP_OFFSET = 16
NO_LIMIT = -1
"""For what waits in a subscription: nothing is dropped, as nothing is by the relay."""

Found = Mapping[str, float]


async def publish(client: Client, seconds: float) -> Found:
    """Publish as much as goes."""
    message, sent = wire.build_sample(), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(AT_ONCE):
            await client.publish(SUBJECT, message)
        sent += AT_ONCE
        await client.flush()
    return await _end(client, sent)


async def publish_in_time(client: Client, seconds: float) -> Found:
    """Publish each message when it is due, which is its time."""
    message = bytearray(wire.build_sample())
    first = time.time() + SPREAD
    count = int(seconds * RATE)
    for number in range(count):
        due = first + number / RATE
        TIMESTAMP.pack_into(message, TIMESTAMP_OFFSET, int(due * 1e9))
        await asyncio.sleep(due - time.time())
        await client.publish(SUBJECT, bytes(message))
    return await _end(client, count)


async def _end(client: Client, sent: int) -> Found:
    await client.publish(SUBJECT, b"")
    await client.flush()
    return {"sent": sent}


async def publish_blobs(client: Client, seconds: float) -> Found:
    """Have JetStream keep runs in files; return how many bytes it kept in how many seconds."""
    stream = client.jetstream()
    await stream.add_stream(name=STREAM, subjects=[STREAM])
    message = wire.build_sample()
    blob = message * (client.max_payload // len(message))
    began, size = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        await asyncio.gather(*(stream.publish(STREAM, blob) for _ in range(IN_FLIGHT)))
        size += IN_FLIGHT * len(blob)
    lasted = time.monotonic() - began
    await stream.delete_stream(STREAM)
    return {"bytes": size, "seconds": lasted}


async def consume(client: Client, _seconds: float) -> Found:
    """Take all that comes; return how many, from the first to the last, and the latencies in µs."""
    received: list[tuple[int, bytes]] = []
    ended = asyncio.Event()

    async def take(message: Msg) -> None:
        if message.data:
            received.append((time.time_ns(), message.data))
        else:
            ended.set()

    await client.subscribe(
        SUBJECT, cb=take, pending_msgs_limit=NO_LIMIT, pending_bytes_limit=NO_LIMIT
    )
    await client.flush()
    print("ready", flush=True)  # noqa: T201
    await ended.wait()
    lasted = (received[-1][0] - received[0][0]) / 1e9
    latencies = [now - TIMESTAMP.unpack_from(data, TIMESTAMP_OFFSET)[0] for now, data in received]
    return {"count": len(received), "seconds": lasted, **_percentiles(latencies)}


def _percentiles(latencies: list[int]) -> Found:
    latencies.sort()
    return {
        name: latencies[int(len(latencies) * part)] / 1e3
        for name, part in (("p50", 0.5), ("p99", 0.99))
    }


KINDS: Mapping[str, Callable[[Client, float], Awaitable[Found]]] = {
    "publish": publish,
    "timed": publish_in_time,
    "blobs": publish_blobs,
    "consume": consume,
}


async def main(kind: str, url: str, seconds: str) -> None:
    """Do it, and print what was found."""
    client = await nats.connect(url)
    print(json.dumps(await KINDS[kind](client, float(seconds))))  # noqa: T201
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
