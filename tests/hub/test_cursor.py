"""The cursor: everything of the others, in order, and exact figures at every step."""

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.hub.cursor import Cursor
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.storage import SEGMENTS
from tests.hub.fakes import memory_log, message

SEGMENT = 1024


def publish(log: Log, origin: int, *run: bytes, cursor: Cursor | None = None) -> None:
    data = b"".join(run)
    log.space(len(data))[:] = data
    log.append(len(data), origin, len(run))
    if cursor is not None:
        cursor.published(len(data), len(run))


def take(cursor: Cursor, most: int = 1 << 20) -> bytes:
    """Deliver up to ``most`` bytes, as far as there are any."""
    taken = bytearray()
    while len(taken) < most and (piece := cursor.next()[: most - len(taken)]):
        taken += piece
        cursor.advance(len(piece))
    return bytes(taken)


@pytest.fixture
def log() -> Log:
    return memory_log(SEGMENTS * SEGMENT)


@pytest.fixture
def cursor(log: Log) -> Cursor:
    return Cursor(log, frozenset({1}))


A, B, C = message(40, 1), message(50, 2), message(60, 3)
OWN = message(70, 4)


def test_begins_at_the_head(log: Log) -> None:
    publish(log, 2, A)
    cursor = Cursor(log, frozenset({1}))
    assert cursor.at_head
    assert not cursor.next()
    assert (cursor.bytes_out, cursor.messages_out, cursor.missing, cursor.behind) == (0, 0, 0, 0)


def test_follows_the_others(log: Log, cursor: Cursor) -> None:
    publish(log, 2, A, B)
    assert (cursor.at_head, cursor.behind, cursor.missing) == (False, 90, 2)
    assert bytes(cursor.next()) == A + B
    assert cursor.behind == 90, "next() delivers nothing"
    cursor.advance(45)
    assert (cursor.bytes_out, cursor.messages_out, cursor.missing) == (45, 1, 1)
    assert (cursor.mid_message, cursor.behind) == (True, 45)
    cursor.advance(45)
    assert (cursor.bytes_out, cursor.messages_out, cursor.missing) == (90, 2, 0)
    assert (cursor.mid_message, cursor.at_head) == (False, True)


def test_at_the_head_it_steps_over_its_own_at_once(log: Log, cursor: Cursor) -> None:
    publish(log, 1, OWN, OWN, cursor=cursor)
    assert cursor.at_head
    assert (cursor.bytes_out, cursor.messages_out, cursor.missing, cursor.behind) == (0, 0, 0, 0)


def test_behind_it_skips_its_own(log: Log, cursor: Cursor) -> None:
    publish(log, 2, A)
    publish(log, 1, OWN, cursor=cursor)
    publish(log, 3, B)
    publish(log, 1, OWN, OWN, cursor=cursor)
    assert (cursor.missing, cursor.behind) == (2, 40 + 50)
    assert take(cursor) == A + B
    assert (cursor.bytes_out, cursor.messages_out, cursor.missing) == (90, 2, 0)
    assert cursor.at_head


def test_torn_in_one_of_another_it_skips_its_own_after_that(log: Log, cursor: Cursor) -> None:
    publish(log, 2, A)
    cursor.next()
    cursor.advance(10)
    publish(log, 1, OWN, cursor=cursor)
    assert (cursor.mid_message, cursor.missing) == (True, 1)
    assert take(cursor) == A[10:]
    assert (cursor.messages_out, cursor.bytes_out, cursor.missing) == (1, 40, 0)


def test_own_at_the_end_of_a_segment(log: Log, cursor: Cursor) -> None:
    first = message(500)
    publish(log, 2, first)
    publish(log, 1, message(500), cursor=cursor)
    publish(log, 1, message(300), cursor=cursor)
    publish(log, 3, B)
    assert take(cursor) == first + B
    assert cursor.at_head


def test_own_bytes_are_not_behind_wherever_they_lie(log: Log, cursor: Cursor) -> None:
    publish(log, 2, message(500))
    for _ in range(5):
        publish(log, 1, message(400), cursor=cursor)
    assert cursor.behind == 500
    publish(log, 2, A)
    assert cursor.behind == 540
    take(cursor, 500)
    assert (cursor.behind, bytes(cursor.next())) == (40, A)
    take(cursor)
    publish(log, 1, OWN, cursor=cursor)
    assert (cursor.behind, cursor.at_head) == (0, True)


def test_after_it_came_back_own_bytes_of_before_count_no_more(log: Log, cursor: Cursor) -> None:
    publish(log, 2, A)
    publish(log, 1, OWN, cursor=cursor)
    cursor.leave()
    publish(log, 1, OWN, cursor=cursor)
    cursor.rejoin()
    publish(log, 2, B)
    assert cursor.behind == 50


class TestAway:
    def test_at_a_boundary_it_keeps_nothing(self, log: Log, cursor: Cursor) -> None:
        publish(log, 2, A, B)
        take(cursor, 40)
        cursor.leave()
        assert cursor.away
        assert (cursor.rest, bytes(cursor.next())) == (b"", b"")
        assert (cursor.bytes_out, cursor.messages_out, cursor.missing) == (40, 1, 1)
        assert (cursor.at_head, cursor.mid_message, cursor.behind) == (False, False, 0)

    def test_in_a_message_it_keeps_the_rest_of_that_one(self, log: Log, cursor: Cursor) -> None:
        publish(log, 2, A, B, C)
        take(cursor, 50)
        cursor.leave()
        assert bytes(cursor.next()) == B[10:]
        assert (cursor.mid_message, cursor.missing, cursor.messages_out) == (True, 2, 1)
        assert take(cursor, 15) == B[10:25]
        assert (cursor.bytes_out, cursor.messages_out) == (65, 1)
        assert take(cursor) == B[25:]
        assert (cursor.bytes_out, cursor.messages_out, cursor.missing) == (90, 2, 1)
        assert not cursor.mid_message

    def test_to_advance_by_nothing_counts_nothing(self, log: Log, cursor: Cursor) -> None:
        cursor.leave()
        cursor.advance(0)
        assert (cursor.bytes_out, cursor.messages_out) == (0, 0)

    def test_the_rest_outlives_the_window(self, log: Log, cursor: Cursor) -> None:
        publish(log, 2, A, B)
        take(cursor, 45)
        cursor.leave()
        for _ in range(100):
            publish(log, 2, message(500))
        assert log.tail > 90
        assert take(cursor) == B[5:]
        assert cursor.missing == 100

    def test_own_runs_while_away_are_not_missed(self, log: Log, cursor: Cursor) -> None:
        publish(log, 2, A)
        cursor.leave()
        publish(log, 1, OWN, OWN, cursor=cursor)
        publish(log, 2, B)
        assert cursor.missing == 2

    def test_comes_back_at_the_head(self, log: Log, cursor: Cursor) -> None:
        publish(log, 2, A, B)
        take(cursor, 45)
        publish(log, 1, OWN, cursor=cursor)
        cursor.leave()
        publish(log, 1, OWN, cursor=cursor)
        publish(log, 2, C)
        take(cursor)
        cursor.rejoin()
        assert (cursor.away, cursor.at_head, cursor.missing) == (False, True, 0)
        assert (cursor.bytes_out, cursor.messages_out) == (90, 2)
        publish(log, 1, OWN, cursor=cursor)
        publish(log, 3, A)
        assert take(cursor) == A
        assert (cursor.bytes_out, cursor.messages_out, cursor.missing) == (130, 3, 0)

    def test_not_before_the_rest_is_delivered(self, log: Log, cursor: Cursor) -> None:
        publish(log, 2, A)
        take(cursor, 5)
        cursor.leave()
        with pytest.raises(ValueError, match="delivered the rest"):
            cursor.rejoin()

    def test_not_if_it_never_left(self, cursor: Cursor) -> None:
        with pytest.raises(ValueError, match="after it left"):
            cursor.rejoin()

    def test_to_leave_twice_changes_nothing(self, log: Log, cursor: Cursor) -> None:
        publish(log, 2, A)
        take(cursor, 5)
        cursor.leave()
        take(cursor, 5)
        cursor.leave()
        assert (cursor.rest, cursor.bytes_out) == (A[10:], 10)


class Reader:
    """A cursor beside a plain queue of what it has still to be given."""

    def __init__(self, log: Log, origin: int) -> None:
        self.log = log
        self.cursor = Cursor(log, frozenset({origin}))
        self.origin = origin
        self.ahead: deque[tuple[int, bytes]] = deque()
        self.part = 0  # bytes that were delivered of the first one ahead
        self.expected = bytearray()
        self.got = bytearray()
        self.whole = 0
        self.missed = 0  # while away
        self.left_with: bytes | None = None

    def appended(self, origin: int, run: list[bytes]) -> None:
        if origin == self.origin:
            self.cursor.published(sum(map(len, run)), len(run))
        if self.left_with is None:
            self.ahead += [(origin, each) for each in run]
        elif origin != self.origin:
            self.missed += len(run)

    def take(self, most: int) -> None:
        piece = bytes(self.cursor.next()[:most])
        self.cursor.advance(len(piece))
        self.got += piece
        if self.left_with is not None:
            self.expected += self.left_with[: len(piece)]
            self.left_with = self.left_with[len(piece) :]
            if piece and not self.left_with:
                self.whole += 1
                self.missed -= 1
            return
        left = len(piece)
        while left:
            origin, each = self.ahead[0]
            if origin == self.origin:
                assert not self.part
                self.ahead.popleft()
                continue
            now = each[self.part : self.part + left]
            self.expected += now
            self.part += len(now)
            left -= len(now)
            if self.part == len(each):
                self.ahead.popleft()
                self.part = 0
                self.whole += 1

    def leave(self) -> None:
        if self.left_with is None:
            self.missed = self.others_ahead()
            self.left_with = self.ahead_first()[self.part :] if self.part else b""
            self.ahead.clear()
            self.part = 0
        self.cursor.leave()

    def rejoin(self) -> None:
        if self.left_with == b"":
            self.cursor.rejoin()
            self.left_with, self.missed = None, 0

    def ahead_first(self) -> bytes:
        return next(each for origin, each in self.ahead if origin != self.origin)

    def others_ahead(self) -> int:
        return sum(origin != self.origin for origin, _ in self.ahead)

    def others_bytes_ahead(self) -> int:
        return sum(len(each) for origin, each in self.ahead if origin != self.origin) - self.part

    def check(self) -> None:
        cursor, away = self.cursor, self.left_with is not None
        assert self.got == self.expected
        assert cursor.away == away
        assert cursor.bytes_out == len(self.got)
        assert cursor.messages_out == self.whole
        assert cursor.missing == (self.missed if away else self.others_ahead())
        assert cursor.mid_message == bool(self.left_with if away else self.part)
        assert cursor.behind == (0 if away else self.others_bytes_ahead())
        self.check_next()

    def check_next(self) -> None:
        """What comes next is the model's, and what is behind is not changed by looking."""
        following = bytes(self.cursor.next())
        if self.left_with is not None:
            assert following == self.left_with
            return
        while self.ahead and self.ahead[0][0] == self.origin:
            self.ahead.popleft()
        assert self.cursor.behind == self.others_bytes_ahead()
        assert self.cursor.at_head == (not self.ahead)
        wanted = b"".join(each for origin, each in self.ahead if origin != self.origin)
        assert wanted[self.part :].startswith(following)
        assert bool(following) == bool(wanted)


class Run:
    """A log, three that publish and read, and one that only reads."""

    def __init__(self) -> None:
        self.log = memory_log(SEGMENTS * SEGMENT, self._forget)
        self.readers = [Reader(self.log, origin) for origin in (1, 2, 3, 4)]
        self.number = 0

    def _forget(self, start: int, tail: int) -> None:
        for reader in self.readers:
            if not reader.cursor.away and reader.cursor.position < tail:
                reader.leave()

    def append(self, origin: int, sizes: list[int]) -> None:
        self.number += 1
        run = [message(size, self.number) for size in sizes]
        publish(self.log, origin, *run)
        for reader in self.readers:
            reader.appended(origin, run)

    def step(self, what: str, who: int, amount: int) -> None:
        reader = self.readers[who]
        if what == "take":
            reader.take(amount)
        elif what == "leave":
            reader.leave()
        elif what == "rejoin":
            reader.rejoin()
        else:
            self.append(1 + who % 3, [32 + amount % 200] * (1 + amount % 3))
        reader.check()

    def finish(self) -> None:
        for reader in self.readers:
            for _ in range(1000):
                reader.take(1 << 20)
                reader.rejoin()
            reader.check()
            assert reader.cursor.at_head


steps = st.tuples(
    st.sampled_from(["append", "append", "append", "take", "take", "leave", "rejoin"]),
    st.integers(0, 3),
    st.integers(1, 700),
)


@given(st.lists(steps, max_size=60))
def test_any_sequence(sequence: list[tuple[str, int, int]]) -> None:
    run = Run()
    for step in sequence:
        run.step(*step)
    run.finish()


@pytest.mark.parametrize("seed", range(5))
def test_long_sequences(seed: int) -> None:
    chance = random.Random(seed)
    run = Run()
    kinds = ["append"] * 10 + ["take"] * 20 + ["leave", "rejoin", "rejoin"]
    for _ in range(2000):
        run.step(chance.choice(kinds), chance.randrange(4), chance.randint(1, 700))
    assert run.log.head > 5 * run.log.window
    assert all(reader.got for reader in run.readers)
    run.finish()
