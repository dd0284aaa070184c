"""Known traffic through a hub, so that every figure can be told beforehand."""

import time
from typing import Any

from alphapulse_relay.protocol_v2.header import Header, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.hub.fakes import BROKEN, Client, Hub, message

AGE_NS = 30_000_000_000


def signal(*types: int) -> bytes:
    """Return a message that is half a minute old and holds empty TLVs of these types."""
    return build_message(
        b"".join(build_tlv(each, b"") for each in types),
        source=20,
        sequence=1,
        timestamp=time.time_ns() - AGE_NS,
    )


def damaged(each: bytes, offset: int) -> bytes:
    found = bytearray(each)
    found[offset] ^= 1
    return bytes(found)


class Traffic:
    """What went through the hub, and who is still there."""

    def __init__(self, hub: Hub, clock: Any) -> None:
        self.hub = hub
        self.publisher, self.consumer = hub.connect(), hub.connect()
        self.slow = hub.connect(room=50)
        self.muted = hub.connect()
        self.muted.protocol.delivery.stopProducing()
        run = [signal(21), signal(21, 22), signal(22, 22), signal(), self.malformed()]
        self.bytes = sum(map(len, run))
        self.publisher.send(b"".join(run))
        bad = message(64)
        self.publisher.send(damaged(bad, 50) + damaged(bad, 50) + self.wrong_domain())
        self._ended()
        hub.factory.max_peers = 4
        self.refused = hub.connect()
        hub.factory.max_peers = 100
        clock.advance(7)

    def malformed(self) -> bytes:
        return Header(2, 1, 20, 0, 1, 0, 3, 0).pack() + b"\x15\x09a"

    def wrong_domain(self) -> bytes:
        return build_message(b"", source=20, sequence=1, timestamp=1, domain=1)

    def _ended(self) -> None:
        """Two that closed, one of them inside a message, and one whose stream broke."""
        self.hub.connect().lose()
        torn = self.hub.connect()
        torn.send(message(64)[:40])
        torn.lose()
        broken: Client = self.hub.connect()
        broken.send(BROKEN)
        self.hub.finish_aborted()
