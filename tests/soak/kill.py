"""Relays that are killed under load: nothing that was delivered may be lost."""

import random
import signal
import threading
from pathlib import Path

from alphapulse_relay.client.blocking import follow
from alphapulse_relay.client.core import Message, Missed
from alphapulse_relay.protocol_v2.control import GapReason, Start, Subscribe, Wish
from alphapulse_relay.protocol_v2.framing import MessageReader
from tests.support import Client, Relay, message, random_cuts

JOURNAL = ("--journal-size", "16M", "--max-message", "96K")
PUBLISHERS = 2
MESSAGES = 1500
"""Of each publisher and round: two and a half MB together, so that segments of 1.6 MB roll."""


def replay(relay: Relay) -> list[bytes]:
    """Return all that a relay keeps. Nothing may be missing but what it has no room for."""
    wanted = Subscribe(Wish.POSITIONS | Wish.STOP_AT_HEAD, Start.POSITION, 0)
    found = []
    for event in follow(relay.socket, wanted, max_message=96 * 1024):
        if isinstance(event, Message):
            found.append(event.data)
        elif isinstance(event, Missed):
            assert event.gap.reason is GapReason.RETENTION, (event.gap, relay.log)
            assert not found, "a gap between messages"
    return found


def check_replay(relay: Relay, seen: list[bytes]) -> None:
    """See that a relay replays what was ``seen`` in one piece, and that nothing is damaged."""
    found = replay(relay)
    if seen:
        first = found.index(seen[0])
        assert found[first : first + len(seen)] == seen, "what was delivered is not replayed"
    assert len(set(found)) == len(found), "a message is replayed twice"
    words = ("damaged", "positions go on", "Traceback", "Unhandled")
    damage = [line for line in relay.log if any(word in line for word in words)]
    assert not damage, damage


def kill_round(directory: Path, chance: random.Random, seen: list[bytes]) -> list[bytes]:
    """See that a relay replays what was ``seen`` before the last kill, then kill it under load.

    Returns what a consumer has seen until then.
    """
    with Relay(*JOURNAL, directory=directory) as relay:
        check_replay(relay, seen)
        consumer = relay.connect()
        streams = [_stream(source, chance) for source in range(1, PUBLISHERS + 1)]
        # What a consumer got must be in the journal at whatever byte of it the relay dies.
        moment = chance.randrange(sum(map(len, streams)))
        cuts = [list(random_cuts(stream, chance)) for stream in streams]
        threads = [
            threading.Thread(target=_publish, args=(relay.connect(), pieces)) for pieces in cuts
        ]
        for thread in threads:
            thread.start()
        received = consumer.receive(moment)
        relay.process.send_signal(signal.SIGKILL)
        received += _rest(consumer)
        relay.stop(signal.SIGKILL)
        for thread in threads:
            thread.join()
    return list(MessageReader().feed(received))


def _stream(source: int, chance: random.Random) -> bytes:
    first = chance.getrandbits(48)
    return b"".join(
        message(source, first + number, chance.randint(44, 1700)) for number in range(MESSAGES)
    )


def _publish(client: Client, pieces: list[bytes]) -> None:
    try:
        for piece in pieces:
            client.send(piece)
    except OSError:
        pass  # the relay is dead


def _rest(client: Client) -> bytes:
    received = b""
    try:
        while piece := client.socket.recv(1 << 18):
            received += piece
    except ConnectionResetError:
        pass
    return received
