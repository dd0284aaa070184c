"""Words to a hub and back, for the tests of what peers that speak control are sent."""

from alphapulse_relay.protocol_v2.control import ControlMessage, build_control, parse_control
from alphapulse_relay.protocol_v2.framing import Rules, split
from alphapulse_relay.protocol_v2.header import Domain, Header
from tests.hub.fakes import Client

RULES = Rules(aside=True)


def control(content: ControlMessage, source: int = 30) -> bytes:
    return build_control(content, timestamp=1, source=source)


def read(received: bytes) -> list[bytes | ControlMessage]:
    """Return the messages, and what those of control say."""
    return [
        parse_control(each) if Header.unpack(each).domain == Domain.SYSTEM else each
        for each in split(received)
    ]


def said(client: Client) -> list[ControlMessage]:
    """Return all that the relay has said to a client."""
    return [each for each in read(client.received) if not isinstance(each, bytes)]


def data(client: Client) -> list[bytes]:
    """Return the messages of others that a client was sent."""
    return [each for each in read(client.received) if isinstance(each, bytes)]
