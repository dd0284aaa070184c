"""Two peers that give a relay, and so its bridge, much to do while something else is measured.

``python bridge_flood.py SOCKET RATE RANDOM`` prints a line when one of them publishes, so many
messages a second, and the other gets all that there is. When its standard input ends, it ends, and
prints how many messages were published. They have another source than those that are measured, and
as many random bytes in each.
"""

import os
import select
import socket
import sys
import threading
import time

from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from benchmarks import wire

SOURCE = wire.SOURCE + 1
EACH = 0.001
"""Seconds between two runs: short ones, that the relay is done with before the next."""
CATCH_UP = 0.01
"""Seconds by which it may be late and still publish all that was due: not after a longer pause."""
DISTINCT = 16 << 20
"""Bytes of messages that are made beforehand, and sent again and again: more than a bridge has
under way, so that no two messages there are alike."""
RECEIVE = 1 << 20
"""Bytes asked for at once."""


def build_runs(count: int, random_bytes: int) -> list[bytes]:
    """Return runs of so many messages, end to end."""
    number = max(DISTINCT // (count * wire.MESSAGE_SIZE), 1)
    same = bytes(wire.TLV_SIZE - random_bytes)
    return [
        b"".join(
            build_message(
                build_tlv(wire.TLV_TYPE, same + os.urandom(random_bytes)),
                source=SOURCE,
                sequence=run * count + message,
                timestamp=time.time_ns(),
            )
            for message in range(1, count + 1)
        )
        for run in range(number)
    ]


def flood(connection: socket.socket, runs: list[bytes]) -> int:
    """Publish one after the other until the standard input ends; return how many that were."""
    sent, due = 0, time.monotonic()
    while not select.select([sys.stdin], [], [], max(due - time.monotonic(), 0))[0]:
        connection.sendall(runs[sent % len(runs)])
        sent += 1
        due = max(due + EACH, time.monotonic() - CATCH_UP)
    return sent


def drain(connection: socket.socket) -> None:
    """Take all that comes: a relay reads publishers as fast as such a consumer takes."""
    buffer = bytearray(RECEIVE)
    while connection.recv_into(buffer):
        pass


def connect(path: str) -> socket.socket:
    """Return a connection to the relay with that socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def main(path: str, rate: str, random_bytes: str) -> None:
    """Publish, and consume."""
    count = max(round(float(rate) * EACH), 1)
    runs = build_runs(count, int(random_bytes))
    with connect(path) as consumer, connect(path) as publisher:
        draining = threading.Thread(target=drain, args=(consumer,))
        draining.start()
        print("ready", flush=True)  # noqa: T201
        print(flood(publisher, runs) * count)  # noqa: T201
        consumer.shutdown(socket.SHUT_RDWR)
        draining.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
