"""The log: positions that never change in memory that is used again."""

import random
from collections.abc import Callable
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.hub import storage
from alphapulse_relay.hub.log import ANONYMOUS, STRETCH
from alphapulse_relay.hub.storage import SEGMENTS
from alphapulse_relay.protocol_v2.control import GapReason
from tests.hub.fakes import memory_log, message, messages

SEGMENT = 512
RUN = 64 * 1024


class Model:
    """A log beside a plain list of everything that was ever appended."""

    def __init__(self, segment: int = SEGMENT) -> None:
        self.forgotten: list[int] = []
        self.stream = bytearray()
        self.ends = [0]
        self.origins: list[int] = []
        self.log = memory_log(SEGMENTS * segment, self._forget)

    def _forget(self, start: int, tail: int) -> None:
        """See that what is about to be given up can still be read, and nothing newer is."""
        assert self.log.tail < tail < self.log.head
        assert tail in self.ends
        assert self.kept() == self.stream[self.log.tail :]
        self.forgotten.append(tail)

    def append(self, origin: int, *run: bytes) -> None:
        data = b"".join(run)
        space = self.log.space(len(data) + 40)
        space[: len(data)] = data
        self.log.append(len(data), origin, len(run))
        self.stream += data
        self.ends += [self.ends[-1] + end for end in accumulate(map(len, run))]
        self.origins += [origin] * len(run)

    def kept(self) -> bytes:
        """Read all that is kept, piece by piece."""
        found, position = bytearray(), self.log.tail
        while piece := self.log.read(position):
            found += piece
            position += len(piece)
        assert position == self.log.head
        return bytes(found)

    def check(self) -> None:
        log = self.log
        assert log.head == len(self.stream)
        assert log.messages == len(self.origins)
        assert self.kept() == self.stream[log.tail :]
        for number, (start, stop) in enumerate(pairwise(self.ends)):
            if start < log.tail:
                with pytest.raises(LookupError, match=f"position {start} is no longer kept"):
                    log.read(start)
                continue
            assert log.boundary(start) == start
            assert log.messages_before(start) == number
            for inside in (start + 1, (start + stop) // 2, stop - 1):
                assert log.boundary(inside) == stop
                assert log.messages_before(inside) == number
        assert log.boundary(log.head) == log.head
        assert log.messages_before(log.head) == log.messages

    def others(self, origin: int, position: int) -> bytes:
        """What lies from a position on and is not ``origin``'s."""
        pieces = zip(self.origins, pairwise(self.ends), strict=True)
        return b"".join(
            self.stream[max(start, position) : stop]
            for who, (start, stop) in pieces
            if who != origin and stop > position
        )

    def walk(self, origin: int, position: int) -> bytes:
        """Follow the log by stretches that are not ``origin``'s."""
        found = bytearray()
        while position < self.log.head:
            start, stop = self.log.stretch(position, frozenset({origin}))
            assert position <= start <= stop
            assert stop > position, "no progress"
            found += self.log.read(start)[: stop - start]
            position = stop
        return bytes(found)


@pytest.fixture
def model() -> Model:
    return Model()


runs = st.tuples(st.integers(1, 3), st.lists(st.integers(32, 150), min_size=1, max_size=3))


@given(st.lists(runs, min_size=1, max_size=80))
def test_any_sequence_of_appends(appends: list[tuple[int, list[int]]]) -> None:
    model = Model()
    for number, (origin, sizes) in enumerate(appends):
        model.append(origin, *(message(size, number) for size in sizes))
    model.check()
    for origin in (1, 2, 3):
        assert model.walk(origin, model.log.tail) == model.others(origin, model.log.tail)


def test_many_windows(model: Model) -> None:
    chance = random.Random(1)
    for number in range(1000):
        model.append(chance.randint(1, 3), message(chance.randint(32, 200), number))
        if number % 50 == 0:
            model.check()
    assert model.log.head > 20 * model.log.window
    assert len(model.forgotten) > 100


def test_empty_log() -> None:
    log = memory_log(SEGMENTS * SEGMENT)
    assert (log.head, log.tail, log.messages, log.lag(0)) == (0, 0, 0, 0)
    assert not log.read(0)
    assert (log.boundary(0), log.messages_before(0)) == (0, 0)


def test_what_is_not_appended_is_overwritten_by_who_asks_next(model: Model) -> None:
    model.log.space(64)[:] = b"x" * 64
    assert not model.log.read(0)
    model.append(1, message(64))
    assert model.kept() == model.stream


def test_space_comes_in_one_piece_and_writable(model: Model) -> None:
    for need in (1, 300, 300, SEGMENT):
        space = model.log.space(need)
        assert len(space) == need
        space[:] = bytes(need)
        model.append(1, message(32))


def test_a_position_stays_the_same_bytes_while_the_window_moves(model: Model) -> None:
    model.append(1, message(100, 1))
    position, wanted = model.log.head, message(100, 2)
    model.append(1, wanted)
    while model.log.tail <= position:
        assert model.log.read(position)[:100] == wanted
        model.append(1, message(100, 3))
    assert model.forgotten[-1] > position


def test_forget_comes_before_the_bytes_go_with_the_new_tail(model: Model) -> None:
    # Four messages of 100 bytes fit a segment beside the room that is asked for.
    for number in range(4 * SEGMENTS):
        model.append(1, message(100, number))
    assert model.forgotten == []
    assert model.log.tail == 0
    model.append(1, message(100))
    assert model.forgotten == [400]
    assert model.log.tail == 400


def test_a_log_without_forget() -> None:
    log = memory_log(SEGMENTS * SEGMENT)
    for _ in range(100):
        log.space(200)[:] = message(200)
        log.append(200, 1, 1)
    assert log.tail > 0


def test_memory_is_bounded_and_used_again(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = storage.anonymous

    def anonymous(size: int) -> memoryview:
        made.append(original(size))
        return made[-1]

    monkeypatch.setattr(storage, "anonymous", anonymous)
    for number in range(500):
        model.append(1, message(200, number))
    # Messages and index; those of the first segment were made with the log.
    assert len(made) == 2 * (SEGMENTS - 1)
    assert sum(map(len, made[::2])) == model.log.window - SEGMENT


def test_a_message_never_spans_two_segments(model: Model) -> None:
    for size in (200, 150, 300, 470, 32, 470):
        model.append(1, message(size))
        assert len(model.log.read(model.ends[-2])) == size
    model.check()


class TestLag:
    def test_counts_from_head_to_position(self, model: Model) -> None:
        model.append(1, message(100))
        assert model.log.lag(0) == 100
        assert model.log.lag(40) == 60
        assert model.log.lag(100) == 0

    def test_counts_what_is_unused_at_the_ends_of_segments(self, model: Model) -> None:
        model.append(1, message(300))
        model.append(1, message(300))
        assert model.log.head == 600
        assert model.log.lag(0) == SEGMENT + 300

    def test_the_window_is_full_when_it_is(self, model: Model) -> None:
        while not model.forgotten:
            assert model.log.lag(0) <= model.log.window
            before = model.log.lag(0)
            model.append(1, message(300))
        assert before > model.log.window - SEGMENT


class TestStretch:
    def test_steps_over_own_to_the_next_of_others(self, model: Model) -> None:
        model.append(1, message(40))
        model.append(2, message(50), message(60))
        model.append(1, message(70))
        assert model.log.stretch(0, frozenset({1})) == (40, 150)
        assert model.log.stretch(0, frozenset({2})) == (0, 40)
        assert model.log.stretch(40, frozenset({2})) == (150, 220)
        assert model.log.stretch(0, frozenset({3})) == (0, 220)

    def test_from_inside_a_message_of_another(self, model: Model) -> None:
        model.append(2, message(50))
        model.append(1, message(40))
        assert model.log.stretch(20, frozenset({1})) == (20, 50)

    def test_ends_with_the_segment(self, model: Model) -> None:
        model.append(1, message(300))
        model.append(2, message(300))
        assert model.log.stretch(0, frozenset({1})) == (300, 300)
        assert model.log.stretch(300, frozenset({1})) == (300, 600)

    def test_from_where_own_was_appended_later(self, model: Model) -> None:
        model.append(1, message(40))
        position = model.log.head
        model.append(1, message(40))
        model.append(2, message(40))
        assert model.log.stretch(position, frozenset({1})) == (80, 120)

    def test_looks_ahead_no_further_than_needed(self) -> None:
        model = Model(segment=8 * STRETCH)
        while model.log.head < 6 * STRETCH:
            model.append(2, message(RUN))
        start, stop = model.log.stretch(0, frozenset({1}))
        assert start == 0
        assert STRETCH <= stop <= STRETCH + RUN


class TestGaps:
    def test_none_where_there_are_messages_and_at_the_head(self, model: Model) -> None:
        model.append(1, message(100))
        assert model.log.gap_at(0) is None
        assert model.log.gap_at(50) is None
        assert model.log.gap_at(100) is None

    def test_what_was_given_up_is_up_to_the_tail(self, model: Model) -> None:
        while not model.forgotten:
            model.append(1, message(300))
        model.append(1, message(300))
        assert model.log.gap_at(0) == (model.log.tail, GapReason.RETENTION)
        assert model.log.gap_at(model.log.tail - 1) == (model.log.tail, GapReason.RETENTION)
        assert model.log.gap_at(model.log.tail) is None

    def test_a_hole_is_damage_up_to_its_end(self, model: Model) -> None:
        for number in range(4):
            model.append(1, message(100, number))
        (segment,) = model.log.segments
        segment.holes = [(100, 200)]
        assert model.log.gap_at(99) is None
        assert model.log.gap_at(100) == model.log.gap_at(199) == (200, GapReason.DAMAGE)
        assert model.log.gap_at(200) is None
        assert len(model.log.read(0)) == 100

    def test_none_at_the_end_of_a_segment_where_the_next_begins(self, model: Model) -> None:
        model.append(1, message(300))
        model.append(1, message(300))
        assert len(model.log.segments) == 2
        assert model.log.gap_at(300) is None


def test_origins_of_connections_differ_from_each_other_and_from_names(model: Model) -> None:
    origins = [model.log.anonymous(number) for number in (0, 1, 2, (1 << 32) - 1)]
    assert len(set(origins)) == 4
    model.log.storage.run_number = (1 << 31) - 1
    more = [model.log.anonymous(number) for number in (0, 1, 2, (1 << 32) - 1)]
    assert not set(origins) & set(more)
    assert max(more) <= ANONYMOUS


def test_after_a_sealed_segment_comes_another(model: Model) -> None:
    model.append(1, message(100))
    model.log.roll_soon()
    model.append(1, message(100))
    assert [segment.start for segment in model.log.segments] == [0, 100]
    model.check()


def test_finding_a_message_walks_a_bounded_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from alphapulse_relay.hub import segment as module

    model = Model(segment=16 * RUN)
    for _ in range(10):
        model.append(1, *messages(RUN // 64))
    longest = 0
    original: Callable[..., tuple[int, int]] = module.walk

    def walk(run: memoryview, target: int) -> tuple[int, int]:
        nonlocal longest
        longest = max(longest, target)
        return original(run, target)

    monkeypatch.setattr(module, "walk", walk)
    for position in range(1, model.log.head, 10_000):
        assert model.log.messages_before(position) == position // 64
    assert RUN // 2 < longest < RUN
