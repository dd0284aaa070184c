"""A consumer on asyncio, built on the client's core: the same promises, another event loop.

.venv/bin/python examples/consumer_asyncio.py --count 10
"""

# ruff: noqa: S108, T201 (where deployed relays listen; a program that prints)
import argparse
import asyncio
import time
from contextlib import suppress

from alphapulse_relay.client.backoff import Backoff
from alphapulse_relay.client.core import Core, Message, Missed
from alphapulse_relay.protocol_v2.control import Start, Subscribe, Wish
from alphapulse_relay.protocol_v2.header import Header


async def consume(path: str, core: Core, count: int) -> int:
    """Show messages of one connection until there were ``count``; return how many are left."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(core.connect(timestamp=time.time_ns()))
        while data := await reader.read(1 << 16):
            for event in core.receive(data):
                if isinstance(event, Message):
                    header = Header.unpack(event.data)
                    print(f"source {header.publisher} sequence {header.sequence}", flush=True)
                    count -= 1
                elif isinstance(event, Missed):
                    print(f"missed: {event.gap}", flush=True)
                if count == 0:
                    return 0
        return count
    finally:
        writer.close()


async def main() -> None:
    """Connect, and again after each break, until all messages have come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", default="/tmp/alphapulse/signals.sock")
    parser.add_argument("--count", type=int, default=-1, help="exit after so many messages")
    options = parser.parse_args()
    core, backoff = Core(Subscribe(Wish.POSITIONS, Start.POSITION)), Backoff()
    left = options.count
    while left != 0:
        core.answered = False
        try:
            left = await consume(options.socket, core, left)
        except OSError as error:
            print(f"no relay: {error}", flush=True)
        if core.answered:
            backoff.reset()
        if left != 0:
            await asyncio.sleep(backoff.delay())


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
