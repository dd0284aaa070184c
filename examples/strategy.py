"""A strategy: publishes signals, and waits until the relay has them all.

.venv/bin/python examples/strategy.py --count 10
"""

# ruff: noqa: S108, T201 (where deployed relays listen; a program that prints)
import argparse
import struct
import time
from contextlib import suppress
from pathlib import Path

from alphapulse_relay.client.blocking import Client
from alphapulse_relay.client.core import NOTHING
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv

SOURCE = 20
IDENTITY = 22
"""SignalIdentityTLV: strategy, signal, nonce, confidence (0-100), chain, reserved."""


def signal(number: int) -> bytes:
    """Return a whole message with a signal's identity."""
    value = struct.pack("<HQIBIB", 7, number, 0, 95, 1, 0)
    now = time.time_ns()
    # Of a sequence the relay asks only that it grows: time does so over restarts too.
    return build_message(build_tlv(IDENTITY, value), source=SOURCE, sequence=now, timestamp=now)


def main() -> None:
    """Publish as many signals as asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", default="/tmp/alphapulse/signals.sock")
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    if not Path(options.socket).exists():
        print(f"no relay at {options.socket} yet: waiting for one", flush=True)
    # Leaving the block waits for the last acknowledgement.
    with Client(options.socket, name="example-strategy", types=NOTHING, acknowledge=True) as client:
        for number in range(options.count):
            client.publish(signal(number))
    print(f"{options.count} signals are in the relay")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
