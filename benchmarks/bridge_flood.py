"""Two peers that give a relay, and so its bridge, much to do while something else is measured.

``python bridge_flood.py SOCKET RATE`` prints a line when one of them publishes, so many messages a
second, and the other gets all that there is. When its standard input ends, it ends, and prints how
many messages were published. They have another source than those that are measured.
"""

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
RECEIVE = 1 << 20
"""Bytes asked for at once."""


def build_run(count: int) -> bytes:
    """Return so many messages, end to end."""
    content = build_tlv(wire.TLV_TYPE, bytes(wire.TLV_SIZE))
    return build_message(content, source=SOURCE, sequence=1, timestamp=time.time_ns()) * count


def flood(connection: socket.socket, rate: float) -> int:
    """Publish until the standard input ends; return how many messages."""
    count = max(round(rate * EACH), 1)
    run, runs, due = build_run(count), 0, time.monotonic()
    while not select.select([sys.stdin], [], [], max(due - time.monotonic(), 0))[0]:
        connection.sendall(run)
        runs += 1
        due = max(due + EACH, time.monotonic() - CATCH_UP)
    return runs * count


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


def main(path: str, rate: str) -> None:
    """Publish, and consume."""
    with connect(path) as consumer, connect(path) as publisher:
        draining = threading.Thread(target=drain, args=(consumer,))
        draining.start()
        print("ready", flush=True)  # noqa: T201
        print(flood(publisher, float(rate)))  # noqa: T201
        consumer.shutdown(socket.SHUT_RDWR)
        draining.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
