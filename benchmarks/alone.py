"""What is asked of the relay only: a consumer that stalls, and the memory of many peers."""

import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.loads import ONE_STALLED
from benchmarks.measure import Measurement, MeasurementError, measure
from benchmarks.systems import Relay

IDLE_PEERS = 10_000
"""Peers whose memory is measured: the relay's default for ``--max-peers``."""
QUICK_IDLE_PEERS = 500
"""The same where it is only tried whether the measurement works."""
PATIENCE = 60.0
"""Seconds for the relay to accept them all."""
POLL = 0.2
"""Seconds between looks; the relay renders its metrics once a second."""


class IdleRelay(Relay):
    """A relay of its own for the peers that do nothing."""

    key = "idle"
    options = (*Relay.options, "--max-peers", str(IDLE_PEERS))


def measure_stalled(relay: Relay, scale: float) -> tuple[Measurement, str]:
    """Measure the relay with one consumer that never reads; also say what became of that one."""
    with relay.connect(consumer=True):
        measurement = measure(relay, ONE_STALLED, scale)
        status = relay.status()
    return measurement, _fate(status)


def _fate(status: dict[str, Any]) -> str:
    """Return in words what the relay's status says of a consumer that does not read."""
    for peer in status["peers"]:
        if peer["state"] == "behind":
            return f"still connected, {peer['bytes_behind']:,} bytes behind"
    ended = status["counters"]["connections"]["ended"]
    return "overtaken" if ended.get("overtaken") else "neither behind nor overtaken"


def idle_peer_bytes(directory: Path, peers: int) -> float:
    """Return how many resident bytes one more idle peer costs the relay."""
    relay = IdleRelay(directory)
    try:
        relay.start()
        before = _resident_bytes(relay)
        with ExitStack() as stack:
            for _ in range(peers):
                stack.enter_context(relay.connect(consumer=True))
            _wait_until_accepted(relay, peers)
            return (_resident_bytes(relay) - before) / peers
    finally:
        relay.stop()


def _wait_until_accepted(relay: Relay, peers: int) -> None:
    """Wait by the metrics: the status would list all peers, which takes memory of its own."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        text = relay.get("/metrics")
        found = re.search(r"^signal_relay_connections_accepted_total (\S+)", text, re.MULTILINE)
        if found and float(found[1]) >= peers:
            return
        time.sleep(POLL)
    raise MeasurementError(f"the relay did not accept all {peers:,}")


def _resident_bytes(relay: Relay) -> int:
    text = Path(f"/proc/{relay.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024
