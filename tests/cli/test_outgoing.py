"""What is sent is what is in the file, however it comes and whatever it is."""

import os
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.cli.outgoing import blocks, built_pieces, file_pieces
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Header, build_message, checksum
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.cli.conftest import SAMPLES

MESSAGE = build_message(bytes(100), source=1, sequence=1, timestamp=1)
FRAMED = {
    "arbitrage.v2": 1000, "mixed.v2": 1000, "legacy.v2": 1005, "empty-payload.v2": 10,
    "bad-checksum.v2": 21, "bad-domain.v2": 21, "bad-tlv.v2": 21, "wrong-type.v2": 21,
}  # fmt: skip
WARNED = {
    "bad-magic.v2": "FILE does not frame from byte 2040 on, magic: found e0 ",
    "bad-size.v2": "FILE does not frame from byte 2040 on, size: a message of 4294967312 bytes",
    "truncated.v2": "FILE ends inside a message, after 100 of 204 bytes",
}


class Turns:
    """Counts turns; the real ones wait."""

    def __init__(self) -> None:
        self.taken = 0

    def turn(self) -> None:
        self.taken += 1


def cut(data: bytes, how: str) -> list[bytes]:
    if how == "whole":
        return [data]
    places = random.Random(how).choices(range(len(data)), k=40)
    if how == "in bytes":
        places = list(range(min(3000, len(data))))
    return [data[start:stop] for start, stop in pairwise([0, *sorted(places), len(data)])]


@pytest.fixture(params=["whole", "in bytes", "at random 1", "at random 2"])
def how(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[True, False], ids=["paced", "unpaced"])
def turns(request: pytest.FixtureRequest) -> Turns | None:
    return Turns() if request.param else None


@pytest.mark.parametrize("name", sorted(FRAMED | WARNED))
def test_samples(name, how, turns, capsys):
    data = (SAMPLES / name).read_bytes()
    pieces = list(file_pieces("FILE", cut(data, how), turns and turns.turn))
    assert b"".join(piece.data for piece in pieces) == data
    assert sum(piece.messages for piece in pieces) == FRAMED.get(name, 10)
    warning = capsys.readouterr().err
    assert warning.startswith(f"signal-relay: warning: {WARNED[name]}" if name in WARNED else "")
    assert warning.count("\n") == (name in WARNED)
    if turns is not None:
        assert turns.taken == FRAMED.get(name, 10)
        assert {piece.messages for piece in pieces} <= {0, 1}


@given(st.lists(st.binary(max_size=40)), st.booleans())
def test_anything_passes_as_it_is(parts, paced):
    good = build_message(b"", source=1, sequence=1, timestamp=1)
    content = [good[:20], good[20:], *parts]
    pieces = file_pieces("FILE", content, Turns().turn if paced else None)
    assert b"".join(piece.data for piece in pieces) == b"".join(content)


def test_large_message_in_front_of_what_does_not_frame(turns):
    large = build_message(bytes(300_000), source=1, sequence=1, timestamp=1)
    content = cut(large + b"nothing" * 30, "at random 3")
    pieces = list(file_pieces("FILE", content, turns and turns.turn))
    assert b"".join(piece.data for piece in pieces) == b"".join(content)
    assert sum(piece.messages for piece in pieces) == 1


def test_blocks_wait_for_the_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(200_000))
    waited = []
    descriptor = os.open(file, os.O_RDONLY)
    assert b"".join(blocks(descriptor, waited.append)) == bytes(200_000)
    assert waited == [descriptor] * 5
    os.close(descriptor)


class TestBuilt:
    payload = build_tlv(22, bytes(20))

    def test_messages(self, turns):
        turn = turns and turns.turn
        pieces = list(built_pieces(self.payload, source=33, count=3, turn=turn))
        assert [piece.messages for piece in pieces] == [1, 1, 1]
        messages = list(split(b"".join(piece.data for piece in pieces)))
        headers = [Header.unpack(message) for message in messages]
        assert [(header.source, header.sequence) for header in headers] == [
            (33, 1),
            (33, 2),
            (33, 3),
        ]
        assert [header.checksum for header in headers] == [checksum(each) for each in messages]
        times = [header.timestamp for header in headers]
        assert 0 < times[0] <= times[1] <= times[2]

    def test_without_end(self):
        pieces = built_pieces(self.payload, source=33, count=None, turn=None)
        assert [next(pieces).messages for _ in range(1000)] == [1] * 1000

    def test_made_when_due(self):
        order: list[str] = []
        pieces = built_pieces(self.payload, source=33, count=2, turn=lambda: order.append("turn"))
        for _ in pieces:
            order.append("made")  # noqa: PERF401 (the turns go into the same list)
        assert order == ["turn", "made", "turn", "made"]


@pytest.mark.parametrize("turn", [None, lambda: None], ids=["as it comes", "paced"])
@pytest.mark.parametrize(
    ("content", "whole"),
    [
        ([MESSAGE], True),
        ([MESSAGE[:40], MESSAGE[40:]], True),
        ([MESSAGE + MESSAGE[:40]], False),
        ([MESSAGE + b"nonsense" * 9, MESSAGE], False),
    ],
    ids=["whole", "in two", "torn", "broken"],
)
def test_whether_it_ends_where_a_message_does(content, whole, turn):
    assert list(file_pieces("name", content, turn))[-1].whole is whole
