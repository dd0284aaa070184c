"""The receiver: the same runs, however the bytes are cut and whoever uses the log in between."""

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.hub import receiver as module
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.receiver import GATHER_SIZE, RECEIVE_SIZE, MessageRunReceiver
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.framing import Level, Rules, Run, split
from alphapulse_relay.protocol_v2.header import checksum
from tests.hub.fakes import memory_log, BROKEN, WINDOW, message, messages
from tests.support import MANIFEST, SAMPLES

LARGE = 8 * (1 << 21)
"""A window whose segments hold a message of 1 MiB."""


class Receiver(MessageRunReceiver):
    """Appends what it receives, and remembers it."""

    def __init__(self, log: Log, rules: Rules | None = None) -> None:
        super().__init__()
        self.log = log
        self.rules = rules or Rules()
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
    assert len(receiver._gather) == 32 + RECEIVE_SIZE


@pytest.mark.parametrize("piece", [1000, RECEIVE_SIZE - 1, RECEIVE_SIZE, 1 << 20])
def test_while_gathering_it_grows_with_what_has_come(piece: int) -> None:
    receiver, data = Receiver(memory_log(LARGE)), message((1 << 20) - 7)
    seen = set()
    for each in pieces(data, piece):
        feed_as_buffer(receiver, each)
        seen.add(len(receiver._gather))
        assert len(receiver._gather) <= max(2 * receiver.torn, receiver.torn + RECEIVE_SIZE)
        assert len(receiver._gather) <= len(data)
    assert receiver.got == data
    assert not receiver._gather
    assert len(seen) <= 6, "each growth copies what there is"


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
    receiver.log, receiver.rules = memory_log(WINDOW), Rules()
    bad = bytearray(message(64))
    bad[40] ^= 1
    for data in (message(64), bytes(bad), BROKEN):
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
