"""The receiver: the same runs, however the bytes are cut and whoever uses the log in between."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.hub import receiver as module
from alphapulse_relay.hub.gathering import GATHERED_MAX, Room
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.receiver import GATHER_SIZE, RECEIVE_SIZE, MessageRunReceiver
from alphapulse_relay.protocol_v2.compression import compress
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.framing import Level, Rules, Run, split
from alphapulse_relay.protocol_v2.header import build_message, checksum
from tests.hub.fakes import BROKEN, WINDOW, memory_log, message, messages
from tests.support import MANIFEST, SAMPLES

LARGE = 8 * (1 << 21)
"""A window whose segments hold a message of 1 MiB."""


class Receiver(MessageRunReceiver):
    """Appends what it receives, and remembers it."""

    def __init__(self, log: Log, rules: Rules | None = None) -> None:
        super().__init__()
        self.log = log
        self.rules = rules or Rules()
        self.room = Room()
        self.got = bytearray()
        self.messages = 0
        self.rejected: dict[str, int] = {}
        self.first: list[int] = []
        self.broken: list[WireError] = []
        self.calls: list[str] = []

    def runReceived(self, run: memoryview, messages: int, received_at: float) -> None:
        assert received_at > 0
        self.calls.append("run")
        self.got += run
        self.messages += messages
        self.log.append(len(run), 1, messages)
        assert self.log.read(self.log.head - len(run)) == run

    def messagesRejected(self, run: Run, offset: int) -> None:
        assert run.first is not None
        self.calls.append("rejected")
        self.first.append(run.first.moved(offset).offset)
        for reason, count in run.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count

    def roomEnded(self) -> None:
        self.calls.append("no room")

    def streamBroken(self, error: WireError) -> None:
        self.calls.append("broken")
        self.broken.append(error)


def feed_as_stream(receiver: Receiver, data: bytes) -> None:
    receiver.dataReceived(data)


def feed_as_buffer(receiver: Receiver, data: bytes) -> None:
    """As a transport does that receives into the buffer; it stops when the stream is broken."""
    while data and not receiver.broken:
        space = receiver.getBuffer()
        piece, data = data[: len(space)], data[len(space) :]
        space[: len(piece)] = piece
        receiver.bufferUpdated(len(piece))


@pytest.fixture(params=[feed_as_stream, feed_as_buffer])
def feed(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def receiver() -> Receiver:
    return Receiver(memory_log(WINDOW))


def pieces(data: bytes, cut: str | int) -> Iterator[bytes]:
    if isinstance(cut, int):
        return (data[start : start + cut] for start in range(0, len(data), cut))
    places = sorted(random.Random(cut).choices(range(len(data)), k=40))
    return (data[start:stop] for start, stop in pairwise([0, *places, len(data)]))


def places(receiver: Receiver) -> list[tuple[Rejection, int]]:
    return [(error.reason, error.offset) for error in receiver.broken]


CUTS = [1 << 24, 1, "random", "at random"]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_samples(receiver: Receiver, feed: Any, name: str, cut: str | int) -> None:
    data = (SAMPLES / name).read_bytes()
    if cut == 1:
        data = data[:100_000]
    for piece in pieces(data, cut):
        feed(receiver, piece)
    whole = Receiver(memory_log(LARGE))
    feed(whole, data)
    assert receiver.got == whole.got
    assert receiver.rejected == whole.rejected
    assert receiver.first[:1] == whole.first[:1]
    assert places(receiver) == places(whole)
    assert receiver.torn == whole.torn
    if cut != 1:
        entry = MANIFEST[name]
        assert receiver.messages == entry.get("forwarded", entry["messages"])
        broken = {error.reason: 1 for error in receiver.broken}
        assert receiver.rejected | broken == entry.get("rejected", {})


@given(st.lists(st.integers(32, 9000), max_size=12), st.data())
def test_any_cut(sizes: list[int], draw: st.DataObject) -> None:
    receiver = Receiver(memory_log(WINDOW))
    data = b"".join(message(size, number) for number, size in enumerate(sizes))
    places = draw.draw(st.lists(st.integers(0, len(data)), max_size=20))
    for start, stop in pairwise([0, *sorted(places), len(data)]):
        feed_as_stream(receiver, data[start:stop])
        assert receiver.torn == stop - len(receiver.got)
    assert (receiver.got, receiver.messages) == (data, len(sizes))


@pytest.mark.parametrize("cut", [1, 7, 33, 5000, 1 << 20])
def test_two_on_one_log_do_not_harm_each_other(feed: Any, cut: int) -> None:
    log = memory_log(WINDOW)
    one, two = Receiver(log), Receiver(log)
    chance = random.Random(cut)
    first = b"".join(message(chance.randint(32, 20_000), n) for n in range(8))
    second = b"".join(message(chance.randint(32, 20_000), 100 + n) for n in range(8))
    parts = [(one, piece) for piece in pieces(first, cut)]
    others = [(two, piece) for piece in pieces(second, max(cut - 1, 1))]
    while parts or others:
        queue = chance.choice([queue for queue in (parts, others) if queue])
        feed(*queue.pop(0))
    assert (one.got, two.got) == (first, second)
    assert log.head == len(first) + len(second)


def test_torn_bytes_are_not_in_the_log(receiver: Receiver, feed: Any) -> None:
    whole, torn = message(64, 1), message(64, 2)
    feed(receiver, whole + torn[:40])
    assert (receiver.log.head, receiver.torn) == (64, 40)
    feed(receiver, torn[40:])
    assert (receiver.log.head, receiver.torn) == (128, 0)


@pytest.mark.parametrize("size", [GATHER_SIZE - 1, GATHER_SIZE, GATHER_SIZE + 1, RECEIVE_SIZE - 1,
                                  RECEIVE_SIZE, RECEIVE_SIZE + 1, 1 << 20])  # fmt: skip
@pytest.mark.parametrize("first", [1, 31, 32, 33, 4000, -1])
def test_sizes_around_the_limits(feed: Any, size: int, first: int) -> None:
    receiver, data = Receiver(memory_log(LARGE)), message(size)
    feed(receiver, data[:first])
    assert (receiver.torn, receiver.messages) == (len(data[:first]), 0)
    feed(receiver, data[first:] + message(50))
    assert (receiver.messages, receiver.torn, receiver.got[:size]) == (2, 0, data)


def test_a_large_message_behind_small_ones(feed: Any) -> None:
    receiver = Receiver(memory_log(LARGE))
    run = [*messages(10), message(300_000), *messages(10), message(5000), *messages(3)]
    for piece in pieces(b"".join(run), 9_000):
        feed(receiver, piece)
    assert list(split(bytes(receiver.got))) == run


def test_while_gathering_it_asks_for_the_message_and_no_more(receiver: Receiver) -> None:
    feed_as_buffer(receiver, message(10_000)[:4_000])
    assert len(receiver.getBuffer()) == 6_000


def test_what_is_only_announced_takes_no_memory(feed: Any) -> None:
    receiver = Receiver(memory_log(LARGE))
    feed(receiver, message(1 << 20)[:32])
    assert len(receiver.getBuffer()) == RECEIVE_SIZE
    assert taken(receiver) == 32 + RECEIVE_SIZE


@pytest.mark.parametrize("piece", [1000, RECEIVE_SIZE - 1, RECEIVE_SIZE, 1 << 20])
def test_while_gathering_it_grows_with_what_has_come(piece: int) -> None:
    receiver, data = Receiver(memory_log(LARGE)), message((1 << 20) - 7)
    seen = set()
    for each in pieces(data, piece):
        feed_as_buffer(receiver, each)
        seen.add(taken(receiver))
        assert taken(receiver) <= max(2 * receiver.torn, receiver.torn + RECEIVE_SIZE)
        assert taken(receiver) <= len(data)
    assert receiver.got == data
    assert not taken(receiver)
    assert len(seen) <= 6, "each growth copies what there is"


def taken(receiver: Receiver) -> int:
    return GATHERED_MAX - receiver.room.free


def test_without_room_it_ends_behind_what_was_whole(feed: Any) -> None:
    receiver = Receiver(memory_log(LARGE))
    receiver.room = Room(1000)
    run = b"".join(messages(5))
    feed(receiver, run + message(300_000)[:100] + bytes(10))
    assert receiver.got == run
    assert receiver.calls == ["run", "no room"]
    assert receiver.ended
    assert receiver.torn == 110
    feed(receiver, bytes(1000))
    assert receiver.calls == ["run", "no room"]


def test_room_may_be_gone_half_way(feed: Any) -> None:
    receiver = Receiver(memory_log(LARGE))
    receiver.room = Room(2 * RECEIVE_SIZE)
    data = message(1 << 20)
    feed(receiver, data[:5000])
    assert receiver.calls == []
    feed(receiver, data[5000 : 3 * RECEIVE_SIZE])
    assert receiver.calls == ["no room"]
    receiver.forget_torn()
    assert receiver.room.free == 2 * RECEIVE_SIZE


def test_offsets_are_places_in_the_stream(feed: Any) -> None:
    """Whatever was torn, gathered or dropped before."""
    receiver = Receiver(memory_log(LARGE))
    bad = bytearray(message(64, 2))
    bad[40] ^= 1
    large, good = message(200_000), message(100)
    for data in (good, bytes(bad), large, bytes(bad), good[:50], good[50:] + bad, good + BROKEN):
        feed(receiver, data)
    assert receiver.first == [100, 200_164, 200_328]
    assert [error.offset for error in receiver.broken] == [200_492]


class Cost:
    """Counts the bytes that are looked at and the ones that are put aside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.checked = self.checks = self.kept = 0
        check, keep = module.check, Receiver._keep

        def counting_check(chunk: memoryview, end: int, rules: Rules) -> Run:
            self.checks += 1
            self.checked += end
            return check(chunk, end, rules)

        def counting_keep(receiver: Receiver, torn: memoryview) -> None:
            self.kept += len(torn)
            keep(receiver, torn)

        monkeypatch.setattr(module, "check", counting_check)
        monkeypatch.setattr(Receiver, "_keep", counting_keep)


@pytest.mark.parametrize(("size", "cut"), [(1 << 20, 7), (1 << 18, 1)])
def test_a_large_message_costs_the_same_however_it_is_cut(
    monkeypatch: pytest.MonkeyPatch, size: int, cut: int
) -> None:
    receiver, cost, data = Receiver(memory_log(LARGE)), Cost(monkeypatch), message(size)
    spaces: list[int] = []
    original = Log.space

    def space(log: Log, need: int) -> memoryview:
        spaces.append(need)
        return original(log, need)

    monkeypatch.setattr(Log, "space", space)
    for piece in pieces(data, cut):
        feed_as_buffer(receiver, piece)
    assert receiver.got == data
    # The header is looked at as it comes, then nothing until the message is whole.
    assert cost.checks <= 40
    assert cost.checked <= size + 40 * 40
    assert cost.kept <= 40 * 40
    assert len(spaces) <= 2 * 40 + 1


def test_what_stays_below_the_gathering_size_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, cost = Receiver(memory_log(WINDOW)), Cost(monkeypatch)
    for piece in pieces(message(GATHER_SIZE - 1), 64):
        feed_as_buffer(receiver, piece)
    assert cost.kept <= 64 * GATHER_SIZE / 2


def test_rejected_ones_are_told_before_the_run(receiver: Receiver, feed: Any) -> None:
    good, bad = message(64, 1), bytearray(message(64, 2))
    bad[40] ^= 1
    feed(receiver, good + bad + good)
    assert receiver.calls == ["rejected", "run"]
    assert (receiver.got, receiver.messages) == (good + good, 2)
    assert receiver.rejected == {Rejection.CHECKSUM: 1}


def test_nothing_but_rejected_ones_is_no_run(receiver: Receiver, feed: Any) -> None:
    bad = bytearray(message(64, 2))
    bad[40] ^= 1
    feed(receiver, bytes(bad))
    assert receiver.calls == ["rejected"]
    assert receiver.log.head == 0


def test_a_torn_piece_calls_nothing(receiver: Receiver, feed: Any) -> None:
    feed(receiver, message(64)[:50])
    assert receiver.calls == []


def test_whole_ones_before_a_break_are_delivered(receiver: Receiver, feed: Any) -> None:
    feed(receiver, message(64) + BROKEN)
    assert receiver.calls == ["run", "broken"]
    assert receiver.messages == 1
    assert receiver.broken[0].reason is Rejection.MAGIC


@pytest.mark.parametrize("cut", [1, 5, 40, 1000])
def test_a_stream_breaks_once_and_what_follows_is_ignored(receiver: Receiver, cut: int) -> None:
    for piece in pieces(message(64) + BROKEN + message(64, 2), cut):
        feed_as_stream(receiver, piece)
    assert receiver.calls == ["run", "broken"]
    assert (receiver.messages, receiver.torn) == (1, 0)


def test_a_size_beyond_the_limit_is_not_gathered(feed: Any) -> None:
    receiver = Receiver(memory_log(WINDOW), Rules(max_message=10_000))
    feed(receiver, message(10_001)[:32])
    assert [error.reason for error in receiver.broken] == [Rejection.SIZE]
    assert receiver.torn == 0


def test_rules_are_the_receiver_s() -> None:
    data = bytearray(message(64))
    data[4] = 1
    data[28:32] = checksum(bytes(data)).to_bytes(4, "little")
    lax, strict = Receiver(memory_log(WINDOW), Rules(Level.FRAMING)), Receiver(memory_log(WINDOW))
    for receiver in (lax, strict):
        feed_as_stream(receiver, bytes(data))
    assert (lax.messages, strict.messages) == (1, 0)


def test_it_is_to_be_subclassed() -> None:
    receiver = MessageRunReceiver()
    receiver.log, receiver.rules = memory_log(WINDOW), Rules(aside=True)
    bad = bytearray(message(64))
    bad[40] ^= 1
    for data in (message(64), bytes(bad), CONTROL, BROKEN):
        with pytest.raises(NotImplementedError):
            receiver.dataReceived(data)


def test_nothing_is_taken_once_it_is_over() -> None:
    """The log may have given up a peer while it made room for what the peer sends."""
    receiver = Receiver(memory_log(WINDOW))
    space = receiver.getBuffer()
    space[:64] = message()
    receiver.ended = True
    receiver.bufferUpdated(64)
    receiver.dataReceived(message())
    assert receiver.calls == []
    assert receiver.log.head == 0


def sealed(data: bytes) -> bytes:
    """Set the checksum."""
    return data[:28] + checksum(data).to_bytes(4, "little") + data[32:]


def varied(size: int, number: int) -> bytes:
    """Return a message that can be compressed, but not to next to nothing."""
    payload = random.Random(number).randbytes(min(size // 10, 1000)) * (size // 10)
    return build_message(payload[: size - 32], source=20, sequence=number, timestamp=1)


def compressed(plain: bytes) -> bytes:
    small = compress(sealed(plain))
    assert small is not None
    return small


def control(size: int = 60, number: int = 0) -> bytes:
    data = message(size, number)
    return sealed(data[:4] + b"\x04" + data[5:])


def of_domain_3(data: bytes) -> bytes:
    return sealed(data[:4] + b"\x03" + data[5:])


CONTROL = control()
NO_FRAME = build_message(b"no frame", source=20, sequence=0, timestamp=0, flags=1)
AT_MOST = 100_000
"""The limit of a message where control and compressed ones are set aside."""


class Piece(NamedTuple):
    """What is sent, what is to come of it, and why it is dropped if nothing is."""

    data: bytes
    comes: tuple[str, bytes] | None
    reason: Rejection | None = None


def plain(size: int, number: int) -> Piece:
    data = message(size, number)
    return Piece(data, ("message", data))


def packed(size: int, number: int) -> Piece:
    data = varied(size, number)
    return Piece(compressed(data), ("message", data))


def spoilt(size: int, kind: int) -> Piece:
    data = message(size)
    crc = bytes([data[28] ^ 1])
    return [
        Piece(data[:28] + crc + data[29:], None, Rejection.CHECKSUM),
        Piece(of_domain_3(data), None, Rejection.DOMAIN),
        Piece(NO_FRAME, None, Rejection.COMPRESSION),
        Piece(compressed(of_domain_3(message(500))), None, Rejection.DOMAIN),
        Piece(compressed(varied(AT_MOST + 1, 0)), None, Rejection.COMPRESSION),
        Piece(CONTROL[:-1] + b"~", None, Rejection.CHECKSUM),
    ][kind]


def spoken(size: int, number: int) -> Piece:
    data = control(size, number)
    return Piece(data, ("control", data))


sizes = st.integers(32, 300) | st.integers(GATHER_SIZE - 2, 9000)
numbers = st.integers(0, 1 << 30)
mixed = st.lists(
    st.one_of(
        st.builds(plain, sizes, numbers),
        st.builds(spoken, sizes, numbers),
        st.builds(packed, st.integers(200, 400) | st.just(AT_MOST), numbers),
        st.builds(spoilt, st.integers(40, 300), st.integers(0, 5)),
    ),
    max_size=12,
)


class Talker(Receiver):
    """Remembers what comes in order, each message on its own."""

    def __init__(self) -> None:
        super().__init__(memory_log(LARGE), Rules(max_message=AT_MOST, aside=True))
        self.came: list[tuple[str, bytes]] = []
        self.ends: list[int] = []

    def runReceived(self, run: memoryview, messages: int, received_at: float) -> None:
        self.came += [("message", data) for data in split(bytes(run))]
        super().runReceived(run, messages, received_at)

    def controlReceived(self, message: bytes) -> None:
        assert isinstance(message, bytes)
        self.calls.append("control")
        self.came.append(("control", message))
        self.ends.append(self.stream_offset)
        # Another connection's bytes, where the rest of this one's chunk was.
        self.log.space(RECEIVE_SIZE)[:] = bytes(RECEIVE_SIZE)


def dropped(stream: list[Piece]) -> list[tuple[int, Rejection]]:
    starts = accumulate((len(piece.data) for piece in stream), initial=0)
    pairs = zip(starts, stream, strict=False)
    return [(start, piece.reason) for start, piece in pairs if piece.reason]


class TestAside:
    @given(mixed, st.sampled_from([feed_as_stream, feed_as_buffer]), st.data())
    def test_any_cut_gives_the_same_in_the_same_order(
        self, stream: list[Piece], feed: Any, draw: st.DataObject
    ) -> None:
        data, receiver = b"".join(piece.data for piece in stream), Talker()
        cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=12))
        for start, stop in pairwise([0, *sorted(cuts), len(data)]):
            feed(receiver, data[start:stop])
        assert receiver.came == [piece.comes for piece in stream if piece.comes]
        assert receiver.rejected == Counter(reason for _, reason in dropped(stream))
        assert set(receiver.first) <= {start for start, _ in dropped(stream)}
        assert receiver.first[:1] == [start for start, _ in dropped(stream)][:1]
        assert (receiver.stream_offset, receiver.torn) == (len(data), 0)
        ends = accumulate(len(piece.data) for piece in stream)
        spoken = zip(ends, stream, strict=True)
        assert receiver.ends == [
            end for end, piece in spoken if piece.comes and piece.comes[0] == "control"
        ]

    @given(mixed.filter(lambda stream: sum(len(piece.data) for piece in stream) < 3000))
    def test_byte_by_byte_each_place_is_told(self, stream: list[Piece]) -> None:
        data, receiver = b"".join(piece.data for piece in stream), Talker()
        for piece in pieces(data, 1):
            feed_as_buffer(receiver, piece)
        assert receiver.first == [start for start, _ in dropped(stream)]
        assert receiver.came == [piece.comes for piece in stream if piece.comes]

    @given(mixed, st.integers(0, 40))
    def test_a_torn_or_broken_end(self, stream: list[Piece], kept: int) -> None:
        data, receiver = b"".join(piece.data for piece in stream), Talker()
        feed_as_stream(receiver, data + CONTROL[:kept])
        assert receiver.torn == kept
        assert receiver.torn_error().offset == len(data)
        broken = Talker()
        feed_as_stream(broken, data + BROKEN)
        assert places(broken) == [(Rejection.MAGIC, len(data))]
        assert broken.came == receiver.came

    def test_calls_come_in_the_order_of_the_stream(self, feed: Any) -> None:
        receiver = Talker()
        good = message()
        data = [good, CONTROL, good, good, compressed(message(500)), NO_FRAME, CONTROL, BROKEN]
        feed(receiver, b"".join(data))
        expected = ["run", "control", "run", "run", "rejected", "control", "broken"]
        assert receiver.calls == expected
        assert receiver.messages == 4

    def test_an_expanded_one_overwrites_nothing_that_follows(self, feed: Any) -> None:
        receiver, large = Talker(), varied(AT_MOST, 7)
        run = [*messages(3), large, *messages(20)]
        feed(receiver, b"".join([*run[:3], compressed(large), *run[4:]]))
        assert list(split(bytes(receiver.got))) == run

    @pytest.mark.parametrize("size", [GATHER_SIZE - 1, GATHER_SIZE, RECEIVE_SIZE + 1, AT_MOST])
    @pytest.mark.parametrize("first", [10, 40, 3000])
    def test_a_large_control_message(self, feed: Any, size: int, first: int) -> None:
        receiver, large = Talker(), control(size)
        data = message() + large + message()
        feed(receiver, data[:first])
        feed(receiver, data[first:])
        assert receiver.calls == ["run", "control", "run"]
        assert receiver.came[1] == ("control", large)

    def test_a_fault_within_an_expanded_one_is_at_its_place_in_the_stream(self) -> None:
        receiver = Talker()
        receiver.rules = Rules(Level.STRICT, aside=True)
        bad = build_message(b"\x15\x00" * 99 + b"\x15", source=20, sequence=1, timestamp=1)
        feed_as_stream(receiver, message() + compressed(bad) + message())
        assert receiver.rejected == {Rejection.TLV: 1}
        assert receiver.first == [64]
        assert receiver.messages == 2

    def test_what_had_no_checksum_has_none_where_strict_wants_one(self) -> None:
        receiver, data = Talker(), compressed(message(500))
        receiver.rules = Rules(Level.STRICT, aside=True)
        feed_as_stream(receiver, data + data[:28] + bytes(4) + data[32:])
        assert (receiver.messages, receiver.rejected) == (1, {Rejection.CHECKSUM: 1})
        assert receiver.first == [len(data)]

    @pytest.mark.parametrize("level", Level)
    def test_at_every_level(self, level: Level) -> None:
        receiver = Talker()
        receiver.rules = Rules(level, aside=True)
        feed_as_stream(receiver, CONTROL + compressed(message(500)))
        assert receiver.calls == ["control", "run"]

    @pytest.mark.parametrize("where", ["control", "run", "expanded"])
    def test_nothing_more_is_taken_once_it_is_over(self, feed: Any, where: str) -> None:
        class Leaver(Talker):
            def controlReceived(self, message: bytes) -> None:
                super().controlReceived(message)
                self.ended = where == "control"

            def runReceived(self, run: memoryview, messages: int, received_at: float) -> None:
                super().runReceived(run, messages, received_at)
                self.ended = where == "run" or (where == "expanded" and len(run) == 500)

        receiver = Leaver()
        data = [CONTROL, message(), CONTROL, compressed(message(500)), message(), CONTROL, BROKEN]
        feed(receiver, b"".join(data))
        feed(receiver, message())
        expected = {
            "control": ["control"],
            "run": ["control", "run"],
            "expanded": ["control", "run", "control", "run"],
        }
        assert receiver.calls == expected[where]
        assert receiver.torn == 0

    def test_a_run_that_ends_it_in_front_of_a_break(self, receiver: Receiver) -> None:
        def run_received(run: memoryview, messages: int, received_at: float) -> None:
            receiver.ended = True

        receiver.runReceived = run_received  # type: ignore[method-assign]
        feed_as_stream(receiver, message() + BROKEN)
        assert receiver.broken == []

    def test_one_whose_place_is_given_up_while_room_is_made(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        receiver = Talker()
        space = receiver.getBuffer()
        data = compressed(message(500))
        space[: len(data)] = data
        original = Log.space

        def giving_up(log: Log, need: int) -> memoryview:
            receiver.ended = need == 500
            return original(log, need)

        monkeypatch.setattr(Log, "space", giving_up)
        receiver.bufferUpdated(len(data))
        assert receiver.ended
        assert receiver.calls == []

    def test_many_control_messages_in_a_chunk_cost_a_copy_of_each(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copied = []

        class Copy(bytearray):
            def __init__(self, source: Any = b"") -> None:
                super().__init__(source)
                copied.append(len(self))

        class Quiet(Talker):
            def controlReceived(self, message: bytes) -> None:
                self.calls.append("control")

        receiver, data = Quiet(), (CONTROL + message()) * 500
        monkeypatch.setattr(module, "bytearray", Copy, raising=False)
        spaces = []
        original = Log.space

        def space(log: Log, need: int) -> memoryview:
            spaces.append(need)
            return original(log, need)

        monkeypatch.setattr(Log, "space", space)
        feed_as_buffer(receiver, data)
        assert receiver.calls == ["control", "run"] * 500
        assert sum(copied) <= len(data)
        assert sum(spaces) <= 2 * RECEIVE_SIZE + len(data)
