"""What bridges say of a run beside its messages: there and back, and nothing else is taken."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.bridge.compression import Compressor, When
from alphapulse_relay.bridge.envelope import (
    BEGIN,
    CODING,
    END,
    EXPECTED_SEQUENCE,
    HEADERS_ROOM,
    MESSAGE_ID,
    MESSAGES,
    ORDER,
    PIECE,
    TIME,
    TYPE,
    TYPES,
    ZSTD,
    Envelope,
    EnvelopeError,
    Place,
    Share,
    expanded_size,
    relay_of,
    token,
)
from alphapulse_relay.bridge.split import UNTYPED

U32, U64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
PLACE = Place(0xA1, 500, 3, 0xF)
WHOLE = Envelope(b"0123456789", Place(0xA1, 400, 0, 0xF), PLACE, 7)
SHARED = WHOLE._replace(share=Share(20, (20, 21, UNTYPED), 2, 9))

places = st.builds(Place, U64, U64, U32, U32)
types = st.lists(st.integers(0, UNTYPED), min_size=1, max_size=5, unique=True).map(sorted)
shares = types.flatmap(
    lambda all_: st.builds(
        Share,
        st.sampled_from(all_),
        st.just(tuple(sorted(all_))),
        U32,
        st.integers(1, 1 << 32),
    )
)
envelopes = st.builds(
    Envelope, st.binary(max_size=50), places, places, U64, share=st.none() | shares
)


class TestPlace:
    @given(places)
    def test_there_and_back(self, place: Place) -> None:
        assert Place.parse(place.text) == place

    def test_how_it_is_written(self) -> None:
        assert PLACE.text == "a1:500:3:f"

    @pytest.mark.parametrize("text", ["", "1:2:3", "1:2:3:4:5", "1:a:3:4", "1:2::4", "g:2:3:4"])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(EnvelopeError, match=r"^'.*' is not a place in a journal$"):
            Place.parse(text)

    def test_a_long_one_is_told_in_part(self) -> None:
        with pytest.raises(EnvelopeError) as told:
            Place.parse("x" * 100_000)
        assert len(str(told.value)) < 120


class TestHeaders:
    @given(envelopes, st.integers(1, 20))
    def test_there_and_back(self, envelope: Envelope, room: int) -> None:
        for piece in envelope.cut(room):
            headers = piece.headers("signals.a", 5)
            assert Envelope.parse(piece.payload, headers) == piece

    def test_a_whole_run_says_nothing_of_parts(self) -> None:
        headers = WHOLE.headers("signals.a", 77)
        assert headers.pop(MESSAGE_ID).startswith("signals.a:a1:500:3:f:1:")
        assert headers == {
            EXPECTED_SEQUENCE: "77",
            BEGIN: "a1:400:0:f",
            END: "a1:500:3:f",
            TIME: "7",
        }

    def test_a_piece_of_a_share(self) -> None:
        headers = SHARED.cut(4)[1].headers("signals.a.20", 0)
        expected = {PIECE: "2/3", TYPE: "20", TYPES: "20,21,none", ORDER: "2", MESSAGES: "9"}
        assert {name: headers[name] for name in expected} == expected

    def test_they_fit_into_the_room_that_is_kept_for_them(self) -> None:
        subject = "s" * 200
        end = Place((1 << 64) - 1, (1 << 63), 1 << 32, (1 << 32) - 1)
        large = Envelope(b"x" * 1000, end, end, 1 << 63).cut(1)[-1]
        headers = large.headers(subject, 1 << 63)
        assert sum(len(f"{name}: {value}\r\n") for name, value in headers.items()) < HEADERS_ROOM


class TestCompressed:
    LARGE = WHOLE._replace(payload=b"0123456789" * 200)

    def test_there_and_back(self) -> None:
        stored = self.LARGE.compressed(Compressor(When.AUTO))
        assert len(stored.payload) < len(self.LARGE.payload)
        headers = stored.headers("signals.a", 5)
        assert headers[CODING] == ZSTD
        assert Envelope.parse(stored.payload, headers) == stored
        assert stored.expanded() == self.LARGE
        assert expanded_size(stored.payload, headers) == len(self.LARGE.payload)

    def test_what_is_not_to_be(self) -> None:
        stored = self.LARGE.compressed(Compressor(When.NEVER))
        assert stored == stored.expanded() == self.LARGE
        headers = stored.headers("signals.a", 5)
        assert CODING not in headers
        assert expanded_size(stored.payload, headers) == len(self.LARGE.payload)

    def test_a_damaged_one(self) -> None:
        stored = self.LARGE.compressed(Compressor(When.AUTO))
        with pytest.raises(EnvelopeError, match=r"^it cannot be expanded: ."):
            stored._replace(payload=stored.payload[:-1]).expanded()

    def test_another_coding(self) -> None:
        headers = WHOLE.headers("signals.a", 5) | {CODING: "br" * 1000}
        with pytest.raises(EnvelopeError, match=r"^its payload is in a coding of another version"):
            Envelope.parse(b"", headers)


class TestMessageId:
    """JetStream drops what has one that it knows: each NATS message needs one of its own."""

    def test_it_is_the_same_for_the_same(self) -> None:
        # What else differs when it is tried again at its place.
        again = SHARED._replace(time=8)
        assert again.headers("s", 5)[MESSAGE_ID] == SHARED.headers("s", 5)[MESSAGE_ID]

    def test_it_is_another_at_another_place(self) -> None:
        assert WHOLE.headers("s", 5)[MESSAGE_ID] != WHOLE.headers("s", 6)[MESSAGE_ID]

    @pytest.mark.parametrize(
        "other",
        [
            WHOLE._replace(end=PLACE._replace(epoch=2)),
            WHOLE._replace(end=PLACE._replace(position=501)),
            WHOLE._replace(end=PLACE._replace(taken=4)),
            WHOLE._replace(end=PLACE._replace(asked=2)),
            WHOLE._replace(payload=b"another"),
        ],
    )
    def test_it_is_another_for_another_run(self, other: Envelope) -> None:
        assert other.headers("s", 5)[MESSAGE_ID] != WHOLE.headers("s", 5)[MESSAGE_ID]

    def test_each_piece_has_its_own_though_all_are_alike(self) -> None:
        pieces = WHOLE._replace(payload=b"x" * 40).cut(1)
        assert len({each.headers("s", 5)[MESSAGE_ID] for each in pieces}) == 40

    def test_each_share_has_its_own_though_all_are_alike(self) -> None:
        kinds = [20, 21, UNTYPED]
        each = [SHARED._replace(share=SHARED.share._replace(type=kind)) for kind in kinds]
        ids = {one.headers(one.subject("signals.a"), 5)[MESSAGE_ID] for one in each}
        assert len(ids) == 3


def headers(**changed: str | None) -> dict[str, str]:
    """Return the headers of a piece of a share, changed by the end of their names."""
    ours = {**SHARED.cut(4)[1].headers("s", 5)}
    for name, value in changed.items():
        header = f"Signal-Relay-{name.capitalize()}"
        assert header in ours
        ours.pop(header)
        if value is not None:
            ours[header] = value
    return ours


class TestWhatNoBridgeHasMade:
    @pytest.mark.parametrize("given", [None, {}, {"Nats-Msg-Id": "5"}, {BEGIN: PLACE.text}])
    def test_no_headers(self, given: Any) -> None:
        with pytest.raises(EnvelopeError, match="it has not the headers of a bridge"):
            Envelope.parse(b"x", given)

    @pytest.mark.parametrize(
        "changed",
        [
            {"time": "soon"},
            {"piece": "2"},
            {"piece": "2/"},
            {"piece": "/2"},
            {"piece": "1/2/3"},
            {"type": "x"},
            {"type": "22"},  # none of the types
            {"types": None},
            {"types": ""},
            {"types": "20,,21"},
            {"types": "21,none"},
            {"order": None},
            {"order": "-1"},
            {"order": "1.5"},
            {"messages": None},
            {"messages": "-1"},
            {"messages": "0"},
            {"types": "21,20"},
            {"types": "20,20"},
        ],
    )
    def test_broken_ones(self, changed: dict[str, str | None]) -> None:
        with pytest.raises(EnvelopeError, match="its headers are not those of a bridge"):
            Envelope.parse(b"x", headers(**changed))

    @pytest.mark.parametrize("piece", ["0/3", "4/3", "-1/3", "1/0", "-2/-1", "1/1099511627776"])
    def test_a_piece_that_there_is_not(self, piece: str) -> None:
        with pytest.raises(EnvelopeError, match=f"^it is no piece: {piece!r}$"):
            Envelope.parse(b"x", headers(piece=piece))

    @pytest.mark.parametrize("name", ["begin", "end"])
    def test_a_place_that_is_none(self, name: str) -> None:
        with pytest.raises(EnvelopeError, match="'nowhere' is not a place in a journal"):
            Envelope.parse(b"x", headers(**{name: "nowhere"}))

    def test_the_ones_that_are_changed_are_good_else(self) -> None:
        assert Envelope.parse(b"4567", headers()) == SHARED.cut(4)[1]

    def test_no_time_is_the_earliest(self) -> None:
        assert Envelope.parse(b"x", headers(time=None)).time == 0


class TestParts:
    @given(st.binary(min_size=1, max_size=60), st.integers(1, 70))
    def test_the_pieces_are_the_whole(self, payload: bytes, room: int) -> None:
        pieces = SHARED._replace(payload=payload).cut(room)
        assert b"".join(piece.payload for piece in pieces) == payload
        assert all(len(piece.payload) == room for piece in pieces[:-1])
        assert 1 <= len(pieces[-1].payload) <= room
        assert [piece.piece for piece in pieces] == list(range(1, len(pieces) + 1))
        assert {piece.pieces for piece in pieces} == {len(pieces)}
        assert {piece[1:4] + piece[6:] for piece in pieces} == {SHARED[1:4] + SHARED[6:]}

    def test_what_fits_is_not_cut(self) -> None:
        assert WHOLE.cut(10) == [WHOLE]
        assert [piece.payload for piece in WHOLE.cut(9)] == [b"012345678", b"9"]

    def test_which_is_the_last(self) -> None:
        assert WHOLE.is_last
        assert [piece.is_last for piece in WHOLE.cut(4)] == [False, False, True]
        assert [piece.is_last for piece in SHARED.cut(4)] == [False, False, False]
        last = SHARED._replace(share=SHARED.share._replace(type=UNTYPED))
        assert [piece.is_last for piece in last.cut(4)] == [False, False, True]


class TestSubjects:
    def test_where_it_goes(self) -> None:
        assert WHOLE.subject("signals.a") == "signals.a"
        assert SHARED.subject("signals.a") == "signals.a.20"
        untyped = SHARED._replace(share=SHARED.share._replace(type=UNTYPED))
        assert untyped.subject("signals.a") == "signals.a.none"
        assert (token(0), token(UNTYPED)) == ("0", "none")

    @pytest.mark.parametrize("envelope", [WHOLE, SHARED])
    @pytest.mark.parametrize("prefix", ["signals", "a.b"])
    def test_whose_it_is(self, envelope: Envelope, prefix: str) -> None:
        assert relay_of(envelope.subject(f"{prefix}.desk"), prefix) == "desk"

    @pytest.mark.parametrize(
        "subject",
        ["", "signals", "signals.", "signals..20", "signalsx.a", "other.a", "a.signals.b"],
    )
    def test_nobodys(self, subject: str) -> None:
        with pytest.raises(EnvelopeError, match="is no relay's subject"):
            relay_of(subject, "signals")
