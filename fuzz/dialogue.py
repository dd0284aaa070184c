"""A peer's dialogue with the hub: whatever it says.

What must hold: nothing is raised; all that the peer is answered is messages, whole and known;
nobody else feels it; and nothing is left of it when it has gone.
"""

from collections.abc import Iterator
from typing import Any

from alphapulse_relay.hub import dialogue, history, outgoing, retransmission, subscribed
from alphapulse_relay.hub.dialogue import HEARTBEAT_SECONDS
from alphapulse_relay.protocol_v2.control import parse_control
from alphapulse_relay.protocol_v2.framing import Level, MessageReader, Rules
from alphapulse_relay.protocol_v2.header import Domain
from fuzz import control
from fuzz.choices import Choices
from tests.hub.fakes import Client, Hub, Pipe, make_clock, message

MODULES = (dialogue, history, outgoing, retransmission, subscribed)
MAX_LEN = 200
COMPARISONS = False
WORDS: tuple[str, ...] = ()
MESSAGES_MAX = 3
"""Of control in one dialogue."""
PLAYS_MAX = 100
"""Dialogues of one hub."""
HISTORY = 20
"""Messages that the hub has from before."""
PUBLISH, SILENCE, READ = 1, 2, 4
"""Bits of what happens after each message: others publish, time goes by, the peer reads."""
_ANY = Rules(Level.FRAMING)


def run(data: bytes) -> None:
    """Have a peer say control messages; see above."""
    choices = Choices(data)
    room, behaviour = choices.byte(), choices.byte()
    said: list[bytes] = []
    while choices and len(said) < MESSAGES_MAX:
        said.append(control.one_message(choices))
    stage().play(said, room, behaviour)


def seeds() -> Iterator[bytes]:
    """Yield what to begin with: each kind of message, alone and beside others."""
    made = list(control.seeds())
    for each in made:
        yield bytes(2) + each
        yield bytes([3, PUBLISH]) + made[1] + each
        yield bytes([40, SILENCE | READ]) + each + made[2] + each


class Stage:
    """A hub with some history and a publisher, and one peer after the other."""

    def __init__(self) -> None:
        self.hub = Hub(make_clock(), rules=Rules(aside=True))
        self.publisher = self.hub.connect()
        for number in range(HISTORY):
            self.publisher.send(message(64, number, source=20 + number % 3))
        self.plays = 0
        self._number = HISTORY

    def play(self, said: list[bytes], room: int, behaviour: int) -> None:
        """Have a peer say something, with so much room for answers, while others go on."""
        self.plays += 1
        client = self._connect(float("inf") if room % 4 == 0 else room * 4)
        for each in said:
            if not client.closed and not client.transport.disconnected:
                client.send(each)
            if behaviour & PUBLISH:
                self._publish()
            self.hub.clock.advance(HEARTBEAT_SECONDS if behaviour & SILENCE else 0)
            if behaviour & READ and not client.transport.disconnected:
                client.take()
        self._publish()
        self.hub.clock.advance(0)
        check_answers(client)
        self._end(client)

    def _connect(self, room: float) -> Client:
        transport: Any = Pipe()
        transport.room = room
        return Client(self.hub.factory.buildProtocol(None), transport)

    def _publish(self) -> None:
        """Publish a message."""
        self._number += 1
        self.publisher.send(message(64, self._number))
        assert not self.publisher.closed
        self.publisher.transport.clear()

    def _end(self, client: Client) -> None:
        client.lose()
        assert list(self.hub.factory.peers) == [self.publisher.protocol]
        assert not self.hub.factory.names
        self.hub.clock.advance(HEARTBEAT_SECONDS)
        assert not self.publisher.held


def check_answers(client: Client) -> None:
    """See that a peer was sent messages, and of control only what it can read."""
    reader = MessageReader(_ANY)
    for each in reader.feed(client.received):
        if each[4] == Domain.SYSTEM:
            parse_control(each)
    assert not reader.pending or client.transport.room <= 0, "torn, though there was room"


_stages: list[Stage] = []


def stage() -> Stage:
    """Return the hub, which is a new one now and then: else its history would grow."""
    if not _stages or _stages[0].plays == PLAYS_MAX:
        _stages[:] = [Stage()]
    return _stages[0]
