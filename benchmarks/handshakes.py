"""What those at a TLS port do to peers on the Unix socket: a flood of handshakes.

A part of a run, as those in ``parts``. A load is measured beside those that ``visitors.py`` plays,
and beside nobody, in turn, on a relay of its own that listens for TLS.
"""

import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from benchmarks.browsers import (
    LATENCY_LIMIT,
    NOBODY,
    QUIET,
    Visitors,
    figures_of,
    measure_beside,
)
from benchmarks.measure import measure
from benchmarks.parts import Figures, complete, in_turn, middle, settle
from benchmarks.summary import Check
from benchmarks.systems import JournalRelay, StartError
from benchmarks.visitors import PROOF

VISITORS = (
    Visitors("handshakes", "handshakes by 8 clients, each as fast as it can"),
    Visitors("hellos", "handshakes that 8 clients begin, and leave to the relay"),
    Visitors("half-hellos", "256 half handshakes, 500 new ones a second"),
)
LOAD = replace(QUIET, seconds=20.0)
"""Some time, as a flood lasts: from its beginning on, when a port has handshakes in store."""
DAY = timedelta(days=1)


class TLSRelay(JournalRelay):
    """The relay with a port for TLS, whose clients prove who they are."""

    key = "tls"

    def start(self) -> None:
        """Start it; see :meth:`System.start`."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        proof = self.directory / PROOF
        write_proof(proof)
        files = f"certKey={proof}:privateKey={proof}:clientCA={proof}"
        self.options = (*self.options, "--listen", f"mtls:0:{files}:interface=127.0.0.1")
        super().start()

    @property
    def tls_port(self) -> int:
        """The port for TLS."""
        found = re.search(r"SignalRelayFactory \(TLS\) starting on (\d+)", self.log)
        if not found:
            raise StartError("the relay has no port for TLS")
        return int(found[1])


def write_proof(path: Path) -> None:
    """Write a certificate that is signed by itself, good for both sides, and its key (P-256)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, SHA256())
    )
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(certificate.public_bytes(Encoding.PEM) + own)


def measure_handshakes(relay: JournalRelay, number: int, scale: float) -> Figures:
    """Measure a load beside each kind of those who shake hands, and beside nobody."""
    figures: dict[str, float] = {}

    def go(visitors: Visitors) -> None:
        # A relay for each: what one leaves in the queue of a port, the next would wait behind.
        with tempfile.TemporaryDirectory(dir=relay.directory.parent) as name:
            figures.update(_measure(TLSRelay(Path(name), scale), visitors, scale))

    in_turn(number, *(partial(go, each) for each in (NOBODY, *VISITORS)))
    return figures


def _measure(relay: TLSRelay, visitors: Visitors, scale: float) -> Figures:
    try:
        relay.start()
        settle(relay)
        if visitors is NOBODY:
            return figures_of(visitors.key, complete(measure(relay, LOAD, scale)))
        begun = time.monotonic()
        found, done = measure_beside(visitors, relay, LOAD, scale, relay.tls_port)
        rate = done / (time.monotonic() - begun)
        return {**figures_of(visitors.key, found), f"{visitors.key} rate": rate}
    finally:
        relay.stop()


def judge_handshakes(rounds: Sequence[Figures]) -> Sequence[Check]:
    """Judge how much later messages are beside handshakes."""
    return [_judge(visitors, rounds) for visitors in VISITORS]


def _judge(visitors: Visitors, rounds: Sequence[Figures]) -> Check:
    key = visitors.key
    later = median(each[f"{key} p99"] / each[f"{NOBODY.key} p99"] for each in rounds)
    p50, p99, cpu = (
        (middle(rounds, f"{key} {figure}"), middle(rounds, f"{NOBODY.key} {figure}"))
        for figure in ("p50", "p99", "cpu")
    )
    measured = (
        f"{p99[0]:,.0f} µs, without {p99[1]:,.0f}: {later:.2f} times "
        f"(p50 {p50[0]:,.0f} µs, without {p50[1]:,.0f}; "
        f"the relay takes {cpu[0]:.1%} of a core, without {cpu[1]:.1%}; "
        f"{middle(rounds, f'{key} rate'):,.0f} a second)"
    )
    label = f"p99 of {LOAD.label}, beside {visitors.label}"
    return Check(label, measured, f"≤ {LATENCY_LIMIT:g} times", later <= LATENCY_LIMIT)
