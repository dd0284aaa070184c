"""Whole messages in a byte stream: the same, however it is cut and whatever it holds."""

import gc
import mmap
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2 import framing
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.framing import (
    Level,
    MessageReader,
    Rules,
    Run,
    RunReader,
    check,
    message_size,
    split,
)
from alphapulse_relay.protocol_v2.header import Header, build_message, checksum
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.protocol_v2.streams import messages as made_messages
from tests.protocol_v2.streams import rules as made_rules

MAX = 400
"""A small limit, so that streams of a few hundred bytes reach it."""


class Piece(NamedTuple):
    """A message, and the reason for which each level drops it (``None``: it is accepted)."""

    message: bytes
    at_checksum: Rejection | None = None
    at_strict: Rejection | None = None

    def verdict(self, level: Level) -> Rejection | None:
        verdicts = {Level.CHECKSUM: self.at_checksum, Level.STRICT: self.at_strict}
        return verdicts.get(level)


def signal(payload: bytes = b"\x15\x01a", **fields: int) -> bytes:
    return build_message(payload, **{"source": 20, "sequence": 1, "timestamp": 2} | fields)


def legacy(value: bytes = b"ab") -> bytes:
    payload = b"\x15\x00" + len(value).to_bytes(2, "little") + value
    return Header(2, 20, 0, 0, 1, 2, len(payload), 0).pack() + payload


def wrong_checksum(message: bytes) -> bytes:
    crc = (checksum(message) ^ 0x01000000) or 1
    return message[:28] + crc.to_bytes(4, "little") + message[32:]


def without_checksum(message: bytes) -> bytes:
    return message[:28] + bytes(4) + message[32:]


payloads = st.lists(
    st.builds(build_tlv, st.integers(20, 39), st.binary(max_size=20)), max_size=4
).map(b"".join) | st.just(build_tlv(21, bytes(300)))
bodies = payloads.map(signal)
pieces = st.one_of(
    bodies.map(Piece),
    bodies.map(lambda m: Piece(wrong_checksum(m), Rejection.CHECKSUM, Rejection.CHECKSUM)),
    bodies.map(lambda m: Piece(without_checksum(m), None, Rejection.CHECKSUM)),
    st.builds(signal, payloads, domain=st.sampled_from([0, 1, 3, 4, 255])).map(
        lambda m: Piece(m, Rejection.DOMAIN, Rejection.DOMAIN)
    ),
    st.sampled_from([b"\x15", b"\x15\x09a", b"\x28\x00", b"\xff\x01\x15\x00\x00"]).map(
        lambda payload: Piece(signal(payload), None, Rejection.TLV)
    ),
    st.builds(legacy, st.binary(max_size=20)).map(lambda m: Piece(m, None, Rejection.TLV)),
)
streams = st.lists(pieces, max_size=8)
levels = st.sampled_from(Level)
valid_bytes = streams.map(lambda stream: b"".join(piece.message for piece in stream))


@st.composite
def damaged_bytes(draw: st.DrawFn) -> bytes:
    """Mostly valid: a byte changed, put in or taken out, or the end cut off."""
    data = bytearray(draw(valid_bytes))
    start = draw(st.integers(0, len(data)))
    stop = min(len(data), start + draw(st.integers(0, 2)))
    data[start:stop] = draw(st.binary(max_size=2))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


any_bytes = st.binary(max_size=200) | damaged_bytes()


def cut(data: bytes, draw: st.DataObject) -> list[bytes]:
    places = st.lists(st.integers(0, len(data)), max_size=12)
    each = st.just(list(range(len(data))))
    edges = [0, *sorted(draw.draw(places | each)), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


class Outcome(NamedTuple):
    accepted: bytes
    rejected: Counter[Rejection]
    first: tuple[Rejection, int] | None
    broken: tuple[Rejection, int] | None


def place(error: WireError | None, base: int) -> tuple[Rejection, int] | None:
    return error and (error.reason, base + error.offset)


def check_one(data: bytes, rules: Rules, beyond: bytes = b"") -> tuple[Run, bytearray]:
    chunk = bytearray(data + beyond)
    with memoryview(chunk) as view:
        return check(view, len(data), rules), chunk


def check_with_carry(parts: Iterable[bytes], rules: Rules) -> Outcome:
    """Do what a receiver does: put the torn tail before the next bytes, stop where it breaks."""
    accepted, rejected, torn, base = bytearray(), Counter(), b"", 0
    first = None
    for part in parts:
        run, chunk = check_one(torn + part, rules)
        accepted += chunk[: run.accepted]
        rejected.update(run.rejected)
        first = first or place(run.first, base)
        if run.broken is not None:
            return Outcome(bytes(accepted), rejected, first, place(run.broken, base))
        torn = bytes(chunk[run.consumed :])
        base += run.consumed
    return Outcome(bytes(accepted), rejected, first, None)


def read_all(parts: Iterable[bytes], rules: Rules) -> tuple[list[bytes], Rejection | None]:
    reader, messages = MessageReader(rules), []
    try:
        for part in parts:
            messages.extend(reader.feed(part))
            assert len(reader.pending) <= rules.max_message
    except WireError as error:
        return messages, error.reason
    return messages, None


class TestCheck:
    @given(streams, levels)
    def test_accepts_and_drops_each_message_on_its_own_account(self, stream, level):
        data = b"".join(piece.message for piece in stream)
        verdicts = [piece.verdict(level) for piece in stream]
        good = [
            piece.message for piece, verdict in zip(stream, verdicts, strict=True) if not verdict
        ]
        run, chunk = check_one(data, Rules(level))
        assert chunk[: run.accepted] == b"".join(good)
        assert (run.messages, run.consumed, run.broken) == (len(good), len(data), None)
        assert run.rejected == Counter(filter(None, verdicts))
        assert (run.first and run.first.reason) == next(filter(None, verdicts), None)

    @given(valid_bytes | any_bytes, levels, st.data())
    def test_any_cut_gives_the_same(self, data, level, draw):
        rules = Rules(level, max_message=MAX)
        assert check_with_carry(cut(data, draw), rules) == check_with_carry([data], rules)

    @given(any_bytes, levels, st.binary(max_size=40))
    def test_what_lies_beyond_the_end_is_neither_read_nor_changed(self, data, level, beyond):
        rules = Rules(level, max_message=MAX)
        run, chunk = check_one(data, rules)
        run_before_more, longer = check_one(data, rules, beyond)
        assert repr(run_before_more) == repr(run)
        assert longer == chunk + beyond

    @given(streams, levels, st.integers(0, 60))
    def test_torn_bytes_stay_where_they_are(self, stream, level, kept):
        tail = signal(bytes(30))[:kept]
        data = b"".join(piece.message for piece in stream) + tail
        run, chunk = check_one(data, Rules(level))
        assert run.consumed == len(data) - len(tail)
        assert chunk[run.consumed :] == tail

    @given(any_bytes, levels)
    def test_any_bytes_are_accounted_for(self, data, level):
        run, _ = check_one(data, Rules(level, max_message=MAX))
        assert 0 <= run.accepted <= run.consumed <= len(data)
        if run.broken is None:
            assert len(data) - run.consumed < MAX
        else:
            assert run.broken.reason in {Rejection.MAGIC, Rejection.SIZE}
            assert run.broken.offset == run.consumed

    @pytest.mark.parametrize("size", [0, 1, 3, 4, 31, 32, 33, 34])
    def test_fewer_bytes_than_the_message(self, size):
        run, _ = check_one(signal()[:size], Rules())
        assert run == Run(0, 0, 0, {}, None, None)

    def test_header_alone_is_a_message(self):
        run, _ = check_one(signal(b""), Rules(Level.STRICT))
        assert run == Run(32, 32, 1, {}, None, None)

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 31, 32, 100])
    def test_wrong_magic_is_seen_at_its_first_bytes(self, size):
        good = signal()
        run, _ = check_one(good + b"\xef\xbe\xad\x00"[-size:] + bytes(max(0, size - 4)), Rules())
        assert (run.accepted, run.consumed) == (len(good), len(good))
        assert (run.broken.reason, run.broken.offset) == (Rejection.MAGIC, len(good))

    @pytest.mark.parametrize("level", Level)
    @pytest.mark.parametrize("limit", [32, 33, 291, 65_536])
    def test_largest_message(self, level, limit):
        rules = Rules(level, max_message=limit, domains=frozenset({2}))
        largest = without_checksum(signal(bytes(limit - 32)))
        run, _ = check_one(largest, Rules(Level.FRAMING, max_message=limit))
        assert run.accepted == limit
        header = signal(bytes(limit - 31))[:32]
        run, _ = check_one(header, rules)
        assert (run.broken.reason, run.consumed) == (Rejection.SIZE, 0)
        assert str(run.broken) == (
            f"size at byte 0: a message of {limit + 1} bytes, the limit is {limit}"
        )

    def test_size_field_of_all_ones(self):
        run, _ = check_one(signal()[:24] + b"\xff" * 8, Rules())
        assert "a message of 4294967327 bytes" in run.broken.detail

    @pytest.mark.parametrize("size", [255, 256, 65_535])
    def test_strict_takes_values_of_any_length(self, size):
        message = signal(build_tlv(39, bytes(size)))
        assert check_one(message, Rules(Level.STRICT))[0].accepted == len(message)

    @pytest.mark.parametrize(
        ("message", "text"),
        [
            (signal(domain=3), "domain at byte 35: domain 3"),
            (
                signal()[:28] + b"\x01\0\0\0" + signal()[32:],
                "checksum at byte 35: the header says 0x",
            ),
            (without_checksum(signal()), "checksum at byte 35: none, and strict"),
            (signal(b"\x13\x00"), "tlv at byte 35: type 19 is not allowed"),
            (signal(b"\x28\x00"), "tlv at byte 35: type 40 is not allowed"),
            (signal(b"\x15\x00\x15\x01"), "tlv at byte 69: type 21 states 1 bytes, 0 are left"),
        ],
    )
    def test_tells_what_is_wrong(self, message, text):
        run, _ = check_one(signal() + message + signal(), Rules(Level.STRICT))
        assert str(run.first).startswith(text)
        assert run.messages == 2

    def test_first_fault_is_the_first(self):
        run, _ = check_one(signal(domain=3) + wrong_checksum(signal()), Rules())
        assert run.first.reason is Rejection.DOMAIN
        assert run.rejected == {Rejection.DOMAIN: 1, Rejection.CHECKSUM: 1}

    @pytest.mark.parametrize(
        "message", [wrong_checksum(signal()), signal(b"\x15"), signal(domain=1)]
    )
    def test_a_fault_that_is_kept_does_not_hold_the_buffer(self, message):
        """A segment is unmapped while what was wrong with its messages may still be logged."""
        segment = mmap.mmap(-1, 4096)
        segment[: len(message)] = message
        with memoryview(segment) as view:
            run = check(view, len(message), Rules(Level.STRICT))
        segment.close()
        assert run.first is not None

    def test_each_accepted_byte_moves_at_most_once(self, monkeypatch):
        moved = []
        close_over = framing._close_over

        def counted(chunk: memoryview, accepted: int, start: int, stop: int) -> int:
            moved.append(stop - start)
            return close_over(chunk, accepted, start, stop)

        monkeypatch.setattr(framing, "_close_over", counted)
        data = (signal(domain=3) + signal() * 3) * 500
        run, _ = check_one(data, Rules())
        assert sum(moved) == run.accepted == 3 * 500 * len(signal())


CONTROL, COMPRESSED = signal(domain=4), signal(b"any bytes", flags=0xFF)
apart = st.sampled_from([CONTROL, COMPRESSED, signal(domain=4, flags=1), without_checksum(CONTROL)])


class TestAside:
    @pytest.mark.parametrize("level", Level)
    @pytest.mark.parametrize(
        "message",
        [CONTROL, COMPRESSED, without_checksum(CONTROL), signal(domain=3, flags=1),
         signal(b"", domain=4)],
    )  # fmt: skip
    def test_ends_the_run_right_before_it(self, level, message):
        good, bad = signal(), wrong_checksum(COMPRESSED)
        data = good + bad + good + message + b"whatever"
        run, chunk = check_one(data, Rules(level, aside=True))
        before = 2 * len(good) + len(bad)
        assert (run.accepted, run.messages) == (2 * len(good), 2)
        assert (run.consumed, run.aside, run.broken) == (before, len(message), None)
        assert chunk[: run.accepted] == good * 2
        assert chunk[before:] == data[before:]

    @pytest.mark.parametrize("level", Level)
    @pytest.mark.parametrize("message", [CONTROL, COMPRESSED])
    def test_a_wrong_checksum_is_as_in_any_other(self, level, message):
        run, _ = check_one(signal() + wrong_checksum(message) + signal(), Rules(level, aside=True))
        assert (run.messages, run.aside, run.rejected) == (2, 0, {Rejection.CHECKSUM: 1})
        assert run.first.offset == len(signal())

    @pytest.mark.parametrize("level", Level)
    @pytest.mark.parametrize("message", [CONTROL, COMPRESSED])
    def test_only_a_whole_one(self, level, message):
        rules = Rules(level, aside=True)
        for size in range(len(message)):
            assert check_one(message[:size], rules)[0] == Run(0, 0, 0, {}, None, None)
        assert check_one(message, rules)[0].aside == len(message)

    def test_only_of_a_sound_size(self):
        run, _ = check_one(CONTROL, Rules(max_message=len(CONTROL) - 1, aside=True))
        assert (run.aside, run.broken.reason) == (0, Rejection.SIZE)

    @pytest.mark.parametrize("version", [0, 2, 20, 255])
    def test_byte_7_of_a_legacy_writer_says_nothing(self, version):
        message = Header(2, version, 0, 1, 1, 2, 0, 0).pack()
        assert check_one(message, Rules(aside=True))[0] == Run(32, 32, 1, {}, None, None)

    @pytest.mark.parametrize("level", [Level.FRAMING, Level.CHECKSUM])
    def test_they_are_like_any_other_where_it_is_not_asked_for(self, level):
        rules = Rules(level, domains=frozenset({2, 4}))
        run, _ = check_one(CONTROL + COMPRESSED, rules)
        assert (run.messages, run.aside) == (2, 0)

    @given(st.lists(pieces | apart.map(Piece), max_size=8), levels)
    def test_going_on_behind_each_finds_all(self, stream, level):
        rules, found, position = Rules(level, aside=True), [], 0
        messages = [piece.message for piece in stream]
        data = bytearray(b"".join(messages))
        while position < len(data):
            with memoryview(data)[position:] as view:
                run = check(view, len(view), rules)
                found += split(bytes(view[: run.accepted]))
                position += run.consumed + run.aside
                found += [bytes(view[run.consumed :][: run.aside])] if run.aside else []
        assert found == [
            message
            for message in messages
            if check_one(message, rules)[0].aside or check_one(message, rules)[0].messages
        ]

    def test_a_reader_gives_them_as_they_are(self):
        data = [CONTROL, signal(), COMPRESSED]
        assert list(MessageReader().feed(b"".join(data))) == data


class TestMessageReader:
    @given(valid_bytes | any_bytes, levels, st.data())
    def test_any_cut_gives_the_same(self, data, level, draw):
        rules = Rules(level, max_message=MAX)
        whole = read_all([data], rules)
        assert read_all(cut(data, draw), rules) == whole
        expected = check_with_carry([data], rules)
        assert b"".join(whole[0]) == expected.accepted
        assert whole[1] == (expected.broken and expected.broken[0])

    @given(streams)
    def test_yields_each_message_as_it_came(self, stream):
        messages = [piece.message for piece in stream]
        reader = MessageReader()
        assert list(reader.feed(b"".join(messages))) == messages
        assert not reader.pending

    def test_messages_come_as_soon_as_they_are_whole(self):
        reader = MessageReader()
        data = signal(bytes(40)) + signal(b"")
        came = [index for index in range(len(data)) for _ in reader.feed(data[index : index + 1])]
        assert came == [71, 103]

    @pytest.mark.parametrize("fault", [b"GET / HTTP/1.1\r\n" * 4, signal()[:24] + b"\xff" * 8])
    def test_broken_stream_stays_broken_and_gathers_nothing(self, fault):
        reader = MessageReader(Rules(Level.FRAMING, max_message=MAX))
        feed = reader.feed(signal() + fault)
        assert next(feed) == signal()
        for data in (b"", bytes(1000), signal(), signal()[:10]):
            with pytest.raises(WireError) as caught:
                list(feed)
            assert caught.value.reason in {Rejection.MAGIC, Rejection.SIZE}
            assert not reader.pending
            feed = reader.feed(data)

    @given(st.lists(any_bytes, max_size=5))
    def test_memory_is_bounded_whatever_comes(self, parts):
        reader = MessageReader(Rules(max_message=MAX))
        for part in parts:
            drain(reader.feed(part))
            assert len(reader.pending) < MAX

    @pytest.mark.parametrize("piece", [1000, 4096])
    def test_a_large_message_is_gathered_at_linear_cost(self, monkeypatch, piece):
        checked = []

        def counted(chunk: memoryview, end: int, rules: Rules) -> Run:
            checked.append(end)
            return check(chunk, end, rules)

        monkeypatch.setattr(framing, "check", counted)
        data = signal(bytes((1 << 20) - 32)) + signal()
        reader, buffers = MessageReader(), set()
        messages = []
        for start in range(0, len(data), piece):
            messages.extend(reader.feed(data[start : start + piece]))
            buffers.add(id(reader.pending))
        assert messages == list(split(data))
        assert sum(checked) <= len(data) + 2 * piece
        assert len(buffers) <= 3  # it grows in place; it is not joined anew for each piece


def drain(feed: Iterator[bytes]) -> None:
    try:
        list(feed)
    except WireError as error:
        if error.reason not in {Rejection.MAGIC, Rejection.SIZE}:
            raise


class TestMessageSize:
    def test_of_an_incomplete_header(self):
        assert [message_size(signal(bytes(9))[:size]) for size in (0, 31)] == [32, 32]

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_of_a_complete_one(self, kind):
        assert message_size(kind(signal(bytes(9))[:32])) == 41
        assert message_size(kind(signal(b"") + signal())) == 32


class TestSplit:
    def test_nothing(self):
        assert list(split(b"")) == []

    @given(streams)
    def test_undoes_join(self, stream):
        messages = [piece.message for piece in stream]
        assert list(split(b"".join(messages))) == messages


class TestPermission:
    """What a publisher may not use is dropped at every level, and named so."""

    @given(st.lists(made_messages), made_rules)
    def test_nothing_else_gets_through(self, stream, rules):
        data = b"".join(stream)
        run, chunk = check_one(data, rules)
        for message in split(bytes(chunk[: run.accepted])):
            header = Header.unpack(message)
            assert rules.may_domains is None or header.domain in rules.may_domains
            assert rules.may_sources is None or header.publisher in rules.may_sources

    @pytest.mark.parametrize("level", Level)
    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            (signal(domain=2), None),
            (signal(domain=1), Rejection.FORBIDDEN),
            (wrong_checksum(signal(domain=1)), Rejection.FORBIDDEN),
        ],
    )
    def test_domains(self, level, message, reason):
        rules = Rules(level, frozenset({1, 2}), may_domains=frozenset({2}))
        run, _ = check_one(message, rules)
        assert run.rejected == ({} if reason is None else {reason: 1})

    def test_who_may_publish_nothing_is_told_so(self):
        run, _ = check_one(signal(domain=2), Rules(may_domains=frozenset()))
        assert run.first is not None
        assert run.first.detail == "this publisher may not publish"

    def test_a_domain_that_is_nobody_s(self):
        rules = Rules(domains=frozenset({1, 2}), may_domains=frozenset({2}))
        assert check_one(signal(domain=3), rules)[0].rejected == {Rejection.DOMAIN: 1}

    @pytest.mark.parametrize("level", Level)
    @pytest.mark.parametrize(
        ("version", "source", "accepted"),
        [(1, 20, True), (1, 21, False), (20, 21, True), (21, 20, False)],
    )
    def test_sources(self, level, version, source, accepted):
        """Legacy writers have theirs where the version belongs."""
        message = bytearray(build_message(b"", source=source, sequence=1, timestamp=1))
        message[5] = version
        message[28:32] = checksum(message).to_bytes(4, "little")
        rules = Rules(level, may_sources=frozenset({20}))
        run, _ = check_one(bytes(message), rules)
        assert run.rejected == ({} if accepted else {Rejection.FORBIDDEN: 1})

    @pytest.mark.parametrize("level", Level)
    def test_control_is_for_everybody(self, level):
        rules = Rules(level, aside=True, may_domains=frozenset(), may_sources=frozenset())
        assert check_one(CONTROL, rules)[0].aside == len(CONTROL)


class TestRunReader:
    def test_what_is_refused_is_given_back_at_once(self) -> None:
        gc.disable()
        tracemalloc.start()
        try:
            with suppress(WireError):
                list(RunReader(MAX).feed(bytes(4 << 20)))
            assert tracemalloc.get_traced_memory()[0] < 1 << 20
        finally:
            tracemalloc.stop()
            gc.enable()

    def test_the_first_fault_is_told(self):
        """A control message that is damaged is one; what comes behind it may be another."""
        with pytest.raises(WireError, match="the header says") as told:
            list(RunReader(MAX).feed(wrong_checksum(CONTROL) + bytes(40)))
        assert told.value.reason is Rejection.CHECKSUM

    @given(valid_bytes | any_bytes, st.data())
    def test_has_what_a_message_reader_has_however_it_is_cut(self, data, draw):
        reader, came, fault = RunReader(MAX), [], None
        try:
            for part in cut(data, draw):
                came.extend(reader.feed(part))
        except WireError as error:
            fault = error.reason
        expected, broken = read_all([data], Rules(Level.FRAMING, max_message=MAX))
        if fault is None or fault is broken:
            assert b"".join(run for run, _ in came) == b"".join(expected)
        for run, messages in came:
            pieces = list(split(run))
            control = [piece[4] == 4 for piece in pieces]
            assert (
                control == [True]
                if messages == 0
                else (len(pieces), any(control)) == (messages, False)
            )

    def test_messages_come_as_one_run_and_control_apart(self):
        control = signal(domain=4)
        data = signal() * 3 + control + control + signal() * 2
        assert list(RunReader(MAX).feed(data)) == [
            (signal() * 3, 3),
            (control, 0),
            (control, 0),
            (signal() * 2, 2),
        ]

    def test_a_false_claim_to_be_compressed_is_a_message(self):
        claim = signal(flags=1)
        data = signal() + claim + signal()
        assert list(RunReader(MAX).feed(data)) == [(signal(), 1), (claim, 1), (signal(), 1)]

    def test_control_with_a_wrong_checksum_ends_the_stream(self):
        feed = RunReader(MAX).feed(signal() + wrong_checksum(signal(domain=4)) + signal())
        assert next(feed)[1] == 2  # what is around it
        with pytest.raises(WireError) as caught:
            next(feed)
        assert caught.value.reason is Rejection.CHECKSUM
