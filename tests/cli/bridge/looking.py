"""Bridges to look at, as they would be set up, and what NATS would be to them."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nats.js.api import ConsumerInfo, SequenceInfo, StreamConfig, StreamInfo, StreamState

from alphapulse_relay.bridge.check import ServerView, StreamView, View
from alphapulse_relay.bridge.envelope import Envelope, Place
from alphapulse_relay.bridge.state import State, StateFile
from alphapulse_relay.bridge.stream import Last
from alphapulse_relay.cli.bridge.ends import Ends
from alphapulse_relay.client.bookmark import Bookmark
from tests.bridge.bridges import settings

MADE = datetime(2026, 5, 1, tzinfo=UTC)
"""When the stream was made."""
HERE = 0xE
"""The epoch of the relay's journal, whose head is at..."""
HEAD = 1000


def ends(directory: Path, nats: Any = None, head: Any = None, **options: Any) -> Ends:
    """Return both ends of a bridge called desk: what is at them is what ``nats`` and ``head`` say.

    ``nats`` is a :class:`StreamView`, or all that is there.
    """
    one = Ends(settings(directory, **options))
    if isinstance(nats, StreamView):
        nats = View((SERVER,), stream=nats)
    vars(one).update(nats=nats, head=head or Bookmark(HERE, HEAD, 0, 0))
    return one


def remember(one: Ends, **state: Any) -> Ends:
    """Have a bridge have saved its state."""
    file = StateFile(one.settings.state)
    file.state = State(**state)
    file.save()
    return one


SERVER = ServerView("nats://127.0.0.1:4222", None, (2, 15, 1), False, 0.001, 1 << 20)


def stream(*, state: Any = None, config: Any = None, **changed: Any) -> StreamView:
    """Return a stream with five messages, 6 to 10."""
    figures = {"messages": 5, "bytes": 500, "first_seq": 6, "last_seq": 10, "consumer_count": 0}
    given = {"name": "SIGNALS", "subjects": ["signals.>"], "num_replicas": 1, "max_bytes": 1000}
    info = StreamInfo(
        StreamConfig(**(given | (config or {}))),
        StreamState(**(figures | (state or {}))),
        created=MADE,
    )
    view = StreamView(info, (), MADE.timestamp(), {}, None, None, None)
    return replace(view, **changed)


def consumer(acknowledged: int, pending: int, asks: int = 0) -> ConsumerInfo:
    """Return one that has come so far."""
    floor = SequenceInfo(consumer_seq=1, stream_seq=acknowledged)
    return ConsumerInfo(
        name="desk",
        stream_name="SIGNALS",
        config=None,
        created=MADE,
        ack_floor=floor,
        num_pending=pending,
        num_ack_pending=0,
        num_waiting=asks,
    )


def last(position: int, epoch: int = HERE, sequence: int = 9) -> Last:
    """Return a relay's last message, which ends there."""
    place = Place(epoch, position, 0, 0)
    return Last("signals.desk", sequence, Envelope(b"", place, place, 0))
