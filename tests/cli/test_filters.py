"""Which messages are wanted."""

from alphapulse_relay.cli.filters import EVERYTHING, Filter
from alphapulse_relay.protocol_v2.header import Header, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv


def test_admits():
    message = build_message(build_tlv(21, b""), source=20, sequence=1, timestamp=0)
    malformed = build_message(b"\x15", source=20, sequence=1, timestamp=0)
    everything = frozenset[int]()
    assert EVERYTHING.admits(malformed)
    assert Filter(everything, frozenset({20})).admits(malformed)
    assert Filter(frozenset({20, 21}), frozenset({20})).admits(message)
    assert not Filter(frozenset({21}), everything).admits(malformed)
    assert not Filter(frozenset({22}), frozenset({20})).admits(message)
    assert not Filter(frozenset({21}), frozenset({21})).admits(message)


def test_legacy_writers_have_their_source_elsewhere():
    header = Header(2, 33, 0, 0, 1, 0, 0, 0)
    assert Filter(frozenset(), frozenset({33})).admits(header.pack())
