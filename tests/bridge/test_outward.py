"""What the relay sends is stored once and in order, whatever the stream says meanwhile."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("nats")

from alphapulse_relay.bridge import outward as module
from alphapulse_relay.bridge.account import Account, Loss
from alphapulse_relay.bridge.assembly import Assembly
from alphapulse_relay.bridge.compression import When
from alphapulse_relay.bridge.envelope import HEADERS_ROOM, MESSAGE_ID, Envelope, Place
from alphapulse_relay.bridge.outward import Outward
from alphapulse_relay.bridge.stream import Last, LaterError, WrongLastError
from alphapulse_relay.client.bookmark import Bookmark
from alphapulse_relay.client.core import Missed, Run
from alphapulse_relay.protocol_v2.control import Gap, GapReason
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.bridge.joined import running, until

ASKED = 9
START = Place(1, 100, 0, ASKED)
SUBJECT = "signals.desk"


def typed(number: int) -> bytes:
    """Return the message of a number: of type 20, 21 or 22, in turn, and 71 bytes long."""
    payload = build_tlv(20 + number % 3, b"%037d" % number)
    return build_message(payload, source=20, sequence=number, timestamp=1)


ALL = [typed(number) for number in range(30)]
SIZE = len(ALL[0])


def place(taken: int) -> Place:
    return START._replace(taken=taken)


class MemoryStream:
    """A stream in a list, which is as strict as JetStream, and fails when it is told to."""

    def __init__(self, room: int) -> None:
        self.max_payload = HEADERS_ROOM + room
        self.stored: list[tuple[str, Envelope]] = []
        self.known: dict[str, int] = {}
        """Of each message's id, its sequence."""
        self.open = asyncio.Event()
        self.open.set()
        self.asked = 0
        """How often something was to be stored."""
        self.faults: list[Exception] = []
        """What happens to those that are to be stored next..."""
        self.loses_answers = False
        """...and whether they are stored all the same."""

    async def publish(self, subject: str, envelope: Envelope, last_sequence: int) -> int:
        self.asked += 1
        await self.open.wait()
        id_ = envelope.headers(subject, last_sequence)[MESSAGE_ID]
        if id_ in self.known:  # looked at first, as in nats-server (server/stream.go)
            return self.known[id_]
        if self._last_sequence(subject) != last_sequence:
            raise WrongLastError("somebody else")
        if not self.faults or self.loses_answers:
            self.stored.append((subject, envelope))
            self.known[id_] = len(self.stored)
        if self.faults:
            raise self.faults.pop(0)
        return len(self.stored)

    def _last_sequence(self, subject: str) -> int:
        here = [sequence for sequence, (s, _) in enumerate(self.stored, 1) if s == subject]
        return here[-1] if here else 0

    async def last_of(self, subject: str) -> Last | None:
        sequence = self._last_sequence(subject)
        return self.last(sequence) if sequence else None

    def last(self, sequence: int | None = None) -> Last | None:
        """Return what is stored there, or was stored last, as a bridge sees it."""
        if not self.stored:
            return None
        sequence = sequence or len(self.stored)
        subject, envelope = self.stored[sequence - 1]
        headers = envelope.headers(subject, 0)
        return Last(subject, sequence, Envelope.parse(b"", headers))

    @property
    def runs(self) -> list[int]:
        """How many bytes each message has."""
        return [len(envelope.payload) for _, envelope in self.stored]

    def messages(self) -> list[bytes]:
        """Return what another bridge makes of it."""
        assembly = Assembly(frozenset())
        data = b"".join(assembly.add("desk", each.expanded(), 1) for _, each in self.stored)
        assert not assembly.begun
        return [data[start : start + SIZE] for start in range(0, len(data), SIZE)]


@dataclass
class Bench:
    """An outward way, and what is around it."""

    stream: MemoryStream
    account: Account
    crowded: list[bool]
    outward: Outward

    def come(self, begin: int, end: int) -> None:
        """Have the messages of these numbers come as one run."""
        data = b"".join(ALL[begin:end])
        self.outward.run_received(Run(data, end - begin, Bookmark(*place(end))))

    @property
    def envelopes(self) -> list[Envelope]:
        """What is stored."""
        return [envelope for _, envelope in self.stream.stored]

    async def stored(self, number: int) -> None:
        """Wait until so many messages have crossed since the start."""
        await until(lambda: self.account.outward.messages >= number)

    def check_chain(self) -> None:
        """Check that each run begins where the one before it ended."""
        ends = [(e.begin, e.end) for _, e in self.stream.stored if e.is_last]
        assert [begin for begin, _ in ends[1:]] == [end for _, end in ends[:-1]]


def bench(room: int = 100_000, *, stream: MemoryStream | None = None, **options: Any) -> Bench:
    account, crowded = Account(), list[bool]()
    used: Any = stream or MemoryStream(room)
    outward = Outward(used, SUBJECT, account, crowded.append, **options)
    return Bench(used, account, crowded, outward)


@asynccontextmanager
async def going(
    room: int = 100_000, last: Last | None = None, **options: Any
) -> AsyncIterator[Bench]:
    """Run one that goes on behind the last message of a stream."""
    made = bench(room, **options)
    made.outward.go_on_after(last, START, ASKED)
    async with running(made.outward.run()):
        yield made


@pytest.fixture(autouse=True)
def quickly(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)


class TestStopAndWait:
    def test_what_comes_meanwhile_goes_as_one(self) -> None:
        async def go() -> None:
            async with going() as made:
                made.stream.open.clear()
                made.come(0, 2)
                await until(lambda: made.stream.asked == 1)
                made.come(2, 3)
                made.come(3, 7)
                await asyncio.sleep(0)
                assert (made.stream.asked, made.stream.stored) == (1, [])
                made.stream.open.set()
                await made.stored(7)
                assert made.stream.runs == [2 * SIZE, 5 * SIZE]
                assert made.stream.messages() == ALL[:7]
                places = [(e.begin, e.end) for _, e in made.stream.stored]
                assert places == [(START, place(2)), (place(2), place(7))]
                assert {subject for subject, _ in made.stream.stored} == {SUBJECT}

        asyncio.run(go())

    def test_no_more_than_there_is_room_for(self) -> None:
        async def go() -> None:
            async with going(room=3 * SIZE + 5) as made:
                made.come(0, 10)
                await made.stored(10)
                assert made.stream.runs == [3 * SIZE, 3 * SIZE, 3 * SIZE, SIZE]
                assert made.stream.messages() == ALL[:10]
                made.check_chain()

        asyncio.run(go())

    def test_a_message_that_is_larger_than_that_goes_in_pieces(self) -> None:
        async def go() -> None:
            async with going(room=SIZE - 1) as made:
                made.come(0, 2)
                await made.stored(2)
                assert made.stream.runs == [SIZE - 1, 1, SIZE - 1, 1]
                assert made.stream.messages() == ALL[:2]

        asyncio.run(go())

    def test_by_type(self) -> None:
        async def go() -> None:
            async with going(split=True) as made:
                made.come(0, 6)
                await made.stored(6)
                subjects = [subject for subject, _ in made.stream.stored]
                assert subjects == [f"{SUBJECT}.{kind}" for kind in (20, 21, 22)]
                made.come(6, 7)
                await made.stored(7)
                assert made.stream.stored[-1][0] == f"{SUBJECT}.20"
                assert made.stream.messages() == ALL[:7]

        asyncio.run(go())


class TestCompressed:
    """The messages shrink to a third, all thirty together."""

    def test_as_it_is_stored_it_is_small(self) -> None:
        async def go() -> None:
            async with going() as made:
                made.come(0, 30)
                await made.stored(30)
                ((_, envelope),) = made.stream.stored
                way = made.account.outward
                assert way.stored_bytes == len(envelope.payload) < way.bytes / 2
                assert way.bytes == 30 * SIZE
                assert made.stream.messages() == ALL

        asyncio.run(go())

    def test_each_piece_by_itself(self) -> None:
        async def go() -> None:
            async with going(room=1024) as made:
                content = b"0123456789abcdefghijklmnopqrst" * 95
                large = build_message(content, source=20, sequence=1, timestamp=1)
                made.outward.run_received(Run(large, 1, Bookmark(*place(1))))
                await made.stored(1)
                found = [(e.is_compressed, len(e.expanded().payload)) for e in made.envelopes]
                assert found == [(True, 1024), (True, 1024), (False, len(large) - 2048)]
                assert b"".join(e.expanded().payload for e in made.envelopes) == large
                assert made.account.outward.stored_bytes == sum(made.stream.runs)

        asyncio.run(go())

    def test_types_that_do_not_shrink_do_not_keep_others_from_it(self) -> None:
        async def go() -> None:
            noise = random.Random(7).randbytes(2000)
            unlike = build_message(build_tlv(20, noise), source=20, sequence=1, timestamp=1)
            alike = build_message(build_tlv(21, bytes(500) * 4), source=20, sequence=1, timestamp=1)
            async with going(split=True) as made:
                for number in range(1, 4):
                    made.outward.run_received(Run(unlike + alike, 2, Bookmark(*place(2 * number))))
                    await made.stored(2 * number)
                assert [e.is_compressed for e in made.envelopes] == [False, True] * 3
                assert [e.share.type for e in made.envelopes if e.share] == [20, 21] * 3

        asyncio.run(go())

    def test_never(self) -> None:
        async def go() -> None:
            async with going(compress=When.NEVER) as made:
                made.come(0, 30)
                await made.stored(30)
                assert made.stream.runs == [30 * SIZE] == [made.account.outward.stored_bytes]

        asyncio.run(go())

    def test_it_is_the_same_when_it_is_tried_again(self) -> None:
        async def go() -> None:
            async with going() as made:
                made.stream.faults, made.stream.loses_answers = [LaterError("no answer")], True
                made.come(0, 30)
                await made.stored(30)
                ((_, envelope),) = made.stream.stored
                assert envelope.is_compressed
                assert made.account.outward.stored_bytes == len(envelope.payload)
                assert made.stream.messages() == ALL

        asyncio.run(go())


class TestTrouble:
    def test_it_is_tried_until_it_is_stored(self) -> None:
        async def go() -> None:
            async with going() as made:
                made.account.outward.trouble = None
                made.stream.faults = [LaterError("full"), LaterError("full")]
                made.come(0, 3)
                await until(lambda: made.account.outward.trouble == "full")
                made.come(3, 5)
                await made.stored(5)
                assert made.account.outward.trouble is None
                assert made.stream.messages() == ALL[:5]
                assert made.stream.runs == [3 * SIZE, 2 * SIZE]

        asyncio.run(go())

    @pytest.mark.parametrize("options", [{}, {"split": True}, {"room": SIZE - 1}])
    def test_an_answer_that_is_lost(self, options: Any) -> None:
        async def go() -> None:
            async with going(**options) as made:
                made.stream.faults = [LaterError("silent"), LaterError("silent")]
                made.stream.loses_answers = True
                made.come(0, 3)
                await made.stored(3)
                made.come(3, 6)
                await made.stored(6)
                assert made.stream.messages() == ALL[:6]

        asyncio.run(go())

    @pytest.mark.parametrize("before", [0, 1])
    def test_somebody_else_publishes(self, before: int) -> None:
        async def go() -> None:
            made = bench()
            made.outward.go_on_after(None, START, ASKED)
            task = asyncio.ensure_future(made.outward.run())
            if before:
                made.come(0, 1)
                await made.stored(1)
            theirs = Envelope(b"theirs", START, place(5), 5)
            made.stream.stored.append((SUBJECT, theirs))
            made.come(before, 2)
            await asyncio.wait([task], timeout=5)
            with pytest.raises(WrongLastError):
                task.result()
            assert len(made.stream.stored) == before + 1

        asyncio.run(go())

    def test_somebody_else_publishes_another_type(self) -> None:
        """It has not published that type yet, and asks for its last message only then."""

        async def go() -> None:
            made = bench(split=True)
            made.outward.go_on_after(None, START, ASKED)
            task = asyncio.ensure_future(made.outward.run())
            made.come(0, 1)
            await made.stored(1)
            other = made.stream.stored[0][1]._replace(end=place(5))
            made.stream.stored.append((f"{SUBJECT}.21", other))
            made.come(1, 2)
            await asyncio.wait([task], timeout=5)
            with pytest.raises(WrongLastError):
                task.result()

        asyncio.run(go())

    def test_one_that_only_looks_like_it(self) -> None:
        async def go() -> None:
            made = bench()
            made.outward.go_on_after(None, START, ASKED)
            task = asyncio.ensure_future(made.outward.run())
            made.stream.stored.append((SUBJECT, Envelope(ALL[0], START, place(1), 5)))
            made.come(0, 1)  # the same place, but another time: another bridge
            await asyncio.wait([task], timeout=5)
            with pytest.raises(WrongLastError):
                task.result()

        asyncio.run(go())


def stored_by(made: Bench, number: int) -> None:
    """Leave only so many messages of what is in the stream: the bridge was killed there."""
    del made.stream.stored[number:]
    made.stream.known = {id_: at for id_, at in made.stream.known.items() if at <= number}


class TestGoOn:
    def test_an_empty_stream(self) -> None:
        outward = bench().outward
        outward.go_on_after(None, START, ASKED)
        assert outward.place == outward.received == START

    def test_behind_a_whole_run(self) -> None:
        async def go() -> None:
            async with going() as made:
                made.come(0, 4)
                await made.stored(4)
            async with going(stream=made.stream, last=made.stream.last()) as again:
                assert again.outward.place == again.outward.received == place(4)
                again.come(4, 6)
                await again.stored(2)
                assert again.stream.messages() == ALL[:6]
                again.check_chain()

        asyncio.run(go())

    @pytest.mark.parametrize(
        ("known", "expected"),
        [
            (Place(1, 500, 0, ASKED), Place(1, 500, 0, ASKED)),  # nothing for here came behind it
            (Place(1, 100, 9, ASKED), place(4)),
            (Place(1, 50, 0, ASKED), place(4)),
            (Place(2, 500, 0, ASKED), place(4)),
        ],
    )
    def test_from_where_the_relay_is_asked(self, known: Place, expected: Place) -> None:
        outward = bench().outward
        last = Last(SUBJECT, 5, Envelope(b"", START, place(4), 5))
        outward.go_on_after(last, known, ASKED)
        assert outward.place == expected

    def test_the_next_begins_where_the_stream_ends_wherever_the_relay_is(self) -> None:
        async def go() -> None:
            last = Last(SUBJECT, 5, Envelope(b"", START, place(4), 5))
            made = bench()
            made.outward.go_on_after(last, Place(1, 500, 0, ASKED), ASKED)
            async with running(made.outward.run()):
                made.stream.stored = [(SUBJECT, last.envelope)] * 5
                made.come(4, 5)
                await made.stored(1)
                assert made.stream.stored[-1][1].begin == place(4)

        asyncio.run(go())

    @pytest.mark.parametrize("number", [1, 2])
    def test_in_the_middle_of_pieces(self, number: int) -> None:
        async def go() -> None:
            async with going(room=SIZE // 3 + 1) as made:
                made.come(0, 1)
                await made.stored(1)
                assert len(made.stream.stored) == 3
            stored_by(made, number)
            async with going(stream=made.stream, last=made.stream.last()) as again:
                assert again.outward.place == START
                again.come(0, 3)
                await again.stored(3)
                assert again.stream.messages() == ALL[:3]

        asyncio.run(go())

    def test_in_the_middle_of_pieces_with_another_setting(self) -> None:
        """JetStream knows the first piece again, but not the second, which is compressed now."""
        noise = random.Random(7).randbytes(1024)
        large = build_message(noise + bytes(2000), source=20, sequence=1, timestamp=1)
        run = Run(large, 1, Bookmark(*place(1)))

        async def go() -> None:
            async with going(room=1024, compress=When.NEVER) as made:
                made.outward.run_received(run)
                await made.stored(1)
            stored_by(made, 2)
            last = made.stream.last()
            options = {"stream": made.stream, "compress": When.ALWAYS}
            async with going(room=1024, last=last, **options) as again:
                again.outward.run_received(run)
                await again.stored(1)
                envelopes = again.envelopes[2:]
                assert [e.is_compressed for e in envelopes] == [False, True, False]
                assert b"".join(e.expanded().payload for e in envelopes) == large

        asyncio.run(go())

    @pytest.mark.parametrize("split", [True, False])
    @pytest.mark.parametrize(("number", "left"), [(1, [21, 22]), (2, [22])])
    def test_in_the_middle_of_a_run_by_type(
        self, number: int, left: list[int], split: bool
    ) -> None:
        async def go() -> None:
            async with going(split=True) as made:
                made.come(0, 6)
                await made.stored(6)
            stored_by(made, number)
            last = made.stream.last()
            async with going(stream=made.stream, last=last, split=split) as again:
                assert again.outward.place == START
                again.outward.position_received(Bookmark(*START._replace(position=300)))
                assert again.outward.place == START
                again.come(0, 4)  # not all of that run yet
                again.outward.position_received(Bookmark(*place(4)))
                assert again.outward.place == START
                await asyncio.sleep(0.02)
                assert len(again.stream.stored) == number
                again.come(4, 8)
                await again.stored(8)
                assert again.stream.messages() == ALL[:8]
                rest = [subject for subject, _ in again.stream.stored[number : 3 + 1]]
                assert rest[: len(left)] == [f"{SUBJECT}.{kind}" for kind in left]
                again.check_chain()

        asyncio.run(go())

    @pytest.mark.parametrize("number", range(1, 6))
    def test_in_the_middle_of_pieces_by_type(self, number: int) -> None:
        async def go() -> None:
            async with going(room=3 * SIZE, split=True) as made:
                made.come(0, 3)
                await made.stored(3)
                made.stream.max_payload = HEADERS_ROOM + SIZE  # less than a message and its order
                made.come(3, 4)
                made.come(4, 6)
                await made.stored(6)
            before = 3
            assert len(made.stream.stored) == before + 3 * 2
            stored_by(made, before + number)
            again = bench(stream=made.stream, split=True)
            again.outward.go_on_after(made.stream.last(), START, ASKED)
            begin = again.outward.place
            assert begin is not None
            async with running(again.outward.run()):
                again.come(begin.taken, 7)
                await again.stored(7 - begin.taken)
                assert again.stream.messages() == ALL[:7]

        asyncio.run(go())

    def test_with_another_filter_a_run_by_type_is_begun_again(self) -> None:
        async def go() -> None:
            async with going(split=True) as made:
                made.come(0, 6)
                await made.stored(6)
            stored_by(made, 1)
            again = bench(stream=made.stream, split=True)
            again.outward.go_on_after(made.stream.last(), START, ASKED + 1)
            assert again.outward.place == START
            async with running(again.outward.run()):
                again.come(0, 1)
                await again.stored(1)
            assert again.stream.stored[-1][1].share.messages == 1

        asyncio.run(go())

    def test_a_stream_that_is_made_anew(self) -> None:
        async def go() -> None:
            async with going() as made:
                made.come(0, 2)
                await made.stored(2)
                made.stream.stored.clear()
                made.outward.go_on_after(None, place(2), ASKED)
                made.come(2, 4)
                await made.stored(4)
                assert made.stream.messages() == ALL[2:4]

        asyncio.run(go())

    def test_what_waited_before_is_forgotten(self) -> None:
        async def go() -> None:
            made = bench()
            made.outward.go_on_after(None, START, ASKED)
            made.come(0, 5)
            made.outward.go_on_after(None, START, ASKED)
            way = made.account.outward
            assert (way.waiting_messages, way.waiting_bytes, way.waiting_since) == (0, 0, 0)
            async with running(made.outward.run()):
                made.come(0, 2)
                await made.stored(2)
                assert made.stream.messages() == ALL[:2]

        asyncio.run(go())


class TestPlaces:
    def test_what_the_relay_tells_between_runs(self) -> None:
        async def go() -> None:
            async with going() as made:
                later = Bookmark(1, 300, 0, ASKED)
                made.outward.position_received(later)
                assert made.outward.place == later
                made.stream.open.clear()
                made.come(0, 1)
                await until(lambda: made.stream.asked == 1)
                assert made.outward.place == later
                latest = Bookmark(1, 700, 0, ASKED)
                made.outward.position_received(latest)
                assert made.outward.place == later  # what is under way comes before that
                assert made.outward.received == latest
                made.stream.open.set()
                await made.stored(1)
                assert made.outward.place == latest

        asyncio.run(go())

    def test_while_more_waits_it_is_the_end_of_what_is_stored(self) -> None:
        async def go() -> None:
            async with going(room=SIZE) as made:
                places: list[Place | None] = []
                publish = made.stream.publish

                async def noted(*what: Any) -> int:
                    places.append(made.outward.place)
                    return await publish(*what)

                made.stream.publish = noted
                made.come(0, 3)
                made.outward.position_received(Bookmark(1, 700, 0, ASKED))
                await made.stored(3)
                assert places == [START, place(1), place(2)]
                assert made.outward.place == Place(1, 700, 0, ASKED)

        asyncio.run(go())

    def test_a_gap(self) -> None:
        made = bench()
        made.outward.go_on_after(None, START, ASKED)
        behind = Bookmark(1, 900, 0, ASKED)
        made.outward.gap_received(Missed(Gap(1, 100, 900, GapReason.RETENTION), behind))
        assert made.account.lost[Loss.RELAY_GAP] == 1
        assert made.outward.place == made.outward.received == behind
        assert sum(made.account.lost.values()) == 1


class TestCrowded:
    def crowd(self, monkeypatch: Any, runs: Sequence[int], most: int) -> Bench:
        monkeypatch.setattr(module, "WAITING_MAX", most * SIZE)
        made = bench(room=SIZE)
        made.outward.go_on_after(None, START, ASKED)
        begin = 0
        for run in runs:
            made.come(begin, begin + run)
            begin += run
        return made

    def test_it_is_told_once_and_only_above_the_limit(self, monkeypatch: Any) -> None:
        assert self.crowd(monkeypatch, [4, 4], 8).crowded == []
        assert self.crowd(monkeypatch, [4, 4, 1], 8).crowded == [True]
        assert self.crowd(monkeypatch, [4, 4, 1, 3, 3], 8).crowded == [True]

    def test_it_ends_when_half_of_that_has_gone(self, monkeypatch: Any) -> None:
        async def go() -> None:
            made = self.crowd(monkeypatch, [9], 8)
            left: list[int] = []
            told = made.crowded.append
            made.outward._crowded = lambda crowded: (
                told(crowded),
                left.append(made.outward._waiting.messages),
            )
            async with running(made.outward.run()):
                await made.stored(9)
                assert made.crowded == [True, False]
                assert left == [4]
                made.come(9, 17)
                made.come(17, 20)
                await made.stored(20)
                assert made.crowded == [True, False, True, False]

        asyncio.run(go())

    def test_it_is_over_with_a_new_beginning(self, monkeypatch: Any) -> None:
        made = self.crowd(monkeypatch, [9], 8)
        made.outward.go_on_after(None, START, ASKED)
        made.come(0, 9)
        assert made.crowded == [True, True]


class TestFigures:
    def test_what_is_under_way_waits_too(self) -> None:
        async def go() -> None:
            async with going() as made:
                way, began = made.account.outward, time.time()
                made.stream.open.clear()
                made.come(0, 2)
                await until(lambda: made.stream.asked == 1)
                since = way.waiting_since
                assert began - 1 < since <= time.time()
                made.come(2, 5)
                assert (way.waiting_messages, way.waiting_bytes) == (5, 5 * SIZE)
                assert way.waiting_since == since
                made.stream.open.set()
                await made.stored(5)
                assert (way.waiting_messages, way.waiting_bytes, way.waiting_since) == (0, 0, 0)

        asyncio.run(go())

    def test_what_crossed(self) -> None:
        async def go() -> None:
            async with going(room=2 * SIZE) as made:
                way = made.account.outward
                made.stream.open.clear()
                made.come(0, 5)
                await asyncio.sleep(0.05)
                made.stream.open.set()
                await made.stored(5)
                assert (way.messages, way.bytes, way.runs) == (5, 5 * SIZE, 3)
                assert 0.05 <= way.crossing_seconds < 5
                assert 0 < made.account.round_trip < 5

        asyncio.run(go())
