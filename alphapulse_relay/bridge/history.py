"""What the relay's journal holds from a position on, for who has to know what arrived there."""

from collections.abc import Iterable

from alphapulse_relay.client.blocking import follow
from alphapulse_relay.client.core import Message
from alphapulse_relay.protocol_v2.control import Start, Subscribe, Wish


def messages_since(
    address: str, epoch: int, position: int, sources: frozenset[int]
) -> Iterable[bytes]:
    """Yield the messages of some sources in the journal of that epoch, from a position to its end.

    Waits for the relay. Raises :class:`ClientError` or ``OSError``. What is in a gap is passed
    over.
    """
    wishes = Wish.POSITIONS | Wish.STOP_AT_HEAD
    asked = Subscribe(wishes, Start.POSITION, position, epoch, sources=sources)
    for event in follow(address, asked):
        if isinstance(event, Message):
            yield event.data
