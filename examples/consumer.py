"""A consumer that goes on where it stopped, also after it was killed.

.venv/bin/python examples/consumer.py --bookmark b.json
"""

# ruff: noqa: S108, T201 (where deployed relays listen; a program that prints)
import argparse
from contextlib import suppress
from itertools import islice
from pathlib import Path

from alphapulse_relay.client.blocking import Client
from alphapulse_relay.client.errors import BookmarkError
from alphapulse_relay.protocol_v2.control import Gap, Start
from alphapulse_relay.protocol_v2.header import Header


def show(message: bytes) -> None:
    """Deal with a message."""
    header = Header.unpack(message)
    print(f"source {header.publisher} sequence {header.sequence}", flush=True)


def missed(gap: Gap) -> None:
    """Deal with messages that will not come."""
    print(f"missed positions {gap.start} to {gap.stop}: {gap.reason.name}", flush=True)


def main() -> None:
    """Show as many messages as asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", default="/tmp/alphapulse/signals.sock")
    parser.add_argument("--bookmark", help="file; without it, from the oldest message on")
    parser.add_argument("--count", type=int, help="exit after so many messages")
    options = parser.parse_args()
    if not Path(options.socket).exists():
        print(f"no relay at {options.socket} yet: waiting for one", flush=True)
    # At first from position 0: what is no longer kept is told as a gap.
    start = Start.POSITION
    with Client(options.socket, start=start, bookmark=options.bookmark, on_gap=missed) as client:
        left = options.count
        while left != 0:
            try:
                for message in islice(client, left):
                    show(message.data)
                    left = left and left - 1
            except BookmarkError as error:
                # The relay has another journal now. This program takes all of it.
                print(f"starting over: {error}", flush=True)
                client.start_over(Start.POSITION)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
