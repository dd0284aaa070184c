"""Streams of messages, sound and not, for tests that compare two ways of reading them."""

from hypothesis import strategies as st

from alphapulse_relay.protocol_v2.framing import Level, Rules
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv


def damaged(message: bytes, damage: tuple[int, int] | None) -> bytes:
    """Return the message with one byte changed, though not of magic and size: it stays sound."""
    if damage is None:
        return message
    place, change = damage[0] % len(message), damage[1]
    if place < 4 or 24 <= place < 28:
        return message
    return message[:place] + bytes([message[place] ^ change]) + message[place + 1 :]


def built(
    types: list[int],
    sequence: int,
    with_checksum: bool,
    domain: int,
    source: int,
    flags: int,
    damage: tuple[int, int] | None,
) -> bytes:
    message = build_message(
        b"".join(build_tlv(number, b"x" * (number % 300)) for number in types),
        source=source,
        sequence=sequence,
        timestamp=sequence,
        domain=domain,
        flags=flags,
        with_checksum=with_checksum,
    )
    return damaged(message, damage)


damages = st.one_of(
    *[st.none()] * 3, st.tuples(st.integers(min_value=4, max_value=5000), st.integers(1, 255))
)
messages = st.builds(
    built,
    st.lists(st.integers(0, 254), max_size=4),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.sampled_from([2, 2, 2, 1, 4]),
    st.integers(0, 255),
    st.sampled_from([0, 0, 0, 1, 2, 255]),
    damages,
)
rules = st.builds(
    Rules,
    level=st.sampled_from(Level),
    domains=st.sampled_from([frozenset({2}), frozenset({1, 2, 3})]),
    tlv_types=st.just(frozenset(range(128))),
    max_message=st.sampled_from([64, 1000, 1 << 20]),
    aside=st.booleans(),
    may_domains=st.sampled_from([None, None, frozenset({1}), frozenset({2}), frozenset()]),
    may_sources=st.sampled_from([None, None, frozenset({1}), frozenset(range(0, 256, 2))]),
)
