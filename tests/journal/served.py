"""What would be served of a recovered segment, and what must hold of it."""

from alphapulse_relay.journal.recovery import Recovered, recover_segment
from alphapulse_relay.protocol_v2.framing import message_size
from tests.journal.writer import EPOCH, Message, Segment


def recovered(
    segment: Segment, *, verify: bool = True, end: int | None = None, short: bool = False
) -> Recovered:
    """Recover a segment in memory; it is mended in place."""
    found = recover_segment(
        segment.slot,
        memoryview(segment.data),
        memoryview(segment.index),
        epoch=EPOCH,
        size=segment.header.size,
        verify=verify,
        end=end,
        short=short,
    )
    assert found is not None
    return found


def served(segment: Segment, found: Recovered) -> list[Message]:
    """Return the messages outside of holes."""
    position, messages = found.header.start, []
    for hole_start, hole_stop in [*found.holes, (found.stop, found.stop)]:
        while position < hole_start:
            offset = position - found.header.start
            size = message_size(memoryview(segment.data)[offset:])
            messages.append(Message(position, bytes(segment.data[offset : offset + size])))
            position += size
        assert position == hole_start
        position = hole_stop
    return messages


def check(segment: Segment, found: Recovered, before: list[Message]) -> list[Message]:
    """Nothing but what was written is served, and what is not is told. Return what is lost."""
    kept = served(segment, found)
    assert set(kept) <= set(before)
    lost = [one for one in before if one not in set(kept) and one.position < found.stop]
    for one in lost:
        assert any(begin <= one.position < end for begin, end in found.holes)
        assert any(d.start <= one.position < d.stop for d in found.damage)
    return lost
