"""What comes from afar reaches the relay in order and once, and NATS is told only then."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats")

from alphapulse_relay.bridge import inward as module
from alphapulse_relay.bridge.account import Account, Loss
from alphapulse_relay.bridge.compression import Compressor, When
from alphapulse_relay.bridge.consumer import Delivery
from alphapulse_relay.bridge.envelope import CODING, ZSTD, Envelope, Place
from alphapulse_relay.bridge.inward import Inward
from alphapulse_relay.bridge.relay_link import LinkError, RefusedError
from alphapulse_relay.bridge.state import State, StateError, StateFile
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Header
from alphapulse_relay.protocol_v2.selection import Selector
from tests.bridge.joined import running, until
from tests.support import message, messages

ALL = messages(20, 30)
"""All of type 21."""
EPOCH = 7
STORED = 1000.0
EVERYTHING = Selector()


class MemoryRelay:
    """A link to a relay, and that relay's journal, whose positions are numbers of messages.

    ``breaks`` are how many messages the relay gets of what is published before the connection is
    lost; ``may`` tells whether it takes a message.
    """

    def __init__(self) -> None:
        self.epoch = EPOCH
        self.journal: list[bytes] = []
        self.published: list[bytes] = []
        self.open = asyncio.Event()
        self.open.set()
        self.breaks: list[int] = []
        self.may: Callable[[bytes], bool] = lambda _: True
        self.asked: list[tuple[int, int, frozenset[int]]] = []
        """What was asked of its history."""

    @property
    def position(self) -> int:
        return len(self.journal)

    async def connected(self) -> None:
        pass

    async def publish(self, data: bytes, last: Header) -> int:
        assert Header.unpack([*split(data)][-1]) == last
        self.published.append(data)
        await self.open.wait()
        for number, each in enumerate(split(data)):
            if self.breaks and self.breaks[0] == number:
                self.breaks.pop(0)
                raise LinkError("lost")
            if not self.may(each):
                raise RefusedError("not that")
            self.journal.append(each)
        if self.breaks:  # all has come, but not the answer
            self.breaks.pop(0)
            raise LinkError("lost")
        return self.position

    async def history(self, epoch: int, position: int, sources: frozenset[int]) -> Iterable[bytes]:
        self.asked.append((epoch, position, sources))
        return [m for m in self.journal[position:] if Header.unpack(m).publisher in sources]


class MemoryConsumer:
    """Delivers what a test says; ``told`` are the sequences that NATS is told of."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self.told: list[int] = []
        self.sequence = 0

    @property
    def waiting(self) -> int:
        return self.queue.qsize()

    async def get(self) -> Delivery:
        return await self.queue.get()

    def put(
        self,
        payload: bytes,
        headers: dict[str, str] | None,
        *,
        subject: str = "signals.other",
        pending: int = 0,
        sequence: int = 0,
    ) -> None:
        self.sequence = sequence or self.sequence + 1

        async def acknowledge(sequence: int = self.sequence) -> None:
            self.told.append(sequence)

        self.queue.put_nowait(
            Delivery(self.sequence, subject, payload, headers, STORED, pending, acknowledge)
        )


@dataclass
class Bench:
    """An inward way, and what is around it."""

    relay: MemoryRelay
    consumer: MemoryConsumer
    account: Account
    file: StateFile
    inward: Inward

    def come(self, begin: int, end: int, behind: int = 0, **more: Any) -> None:
        """Have the messages of these numbers come as one NATS message.

        ``behind`` is the sequence behind which its bridge had it stored.
        """
        envelope = run(begin, end)
        self.consumer.put(envelope.payload, envelope.headers("", behind), **more)

    def come_compressed(self, begin: int, end: int) -> None:
        """Have the messages of these numbers come as one NATS message, compressed."""
        stored = run(begin, end).compressed(Compressor(When.ALWAYS))
        assert stored.is_compressed
        self.consumer.put(stored.payload, stored.headers("", 0))

    async def told(self, sequence: int) -> None:
        """Wait until NATS is told of a sequence."""
        await until(lambda: self.consumer.told[-1:] == [sequence])

    def running(self) -> Any:
        consumer: Any = self.consumer
        return running(self.inward.run(consumer))

    def again(self) -> "Bench":
        """Return a bridge that has been killed and started again, which gets nothing yet."""
        return bench(self.file._path, relay=self.relay)


def run(begin: int, end: int) -> Envelope:
    return Envelope(b"".join(ALL[begin:end]), Place(5, begin, 0, 0), Place(5, end, 0, 0), 9)


def bench(
    path: Path, selector: Selector = EVERYTHING, *, relay: MemoryRelay | None = None
) -> Bench:
    link: Any = relay or MemoryRelay()
    account, file = Account(), StateFile(path)
    inward = Inward(
        link, file, link.history, account, prefix="signals", own="desk", selector=selector
    )
    # As a bridge does it: the way is made first.
    file.load()
    return Bench(link, MemoryConsumer(), account, file, inward)


@asynccontextmanager
async def going(path: Path, selector: Selector = EVERYTHING) -> AsyncIterator[Bench]:
    made = bench(path / "state", selector)
    async with made.running():
        yield made


def kept(path: Path) -> State:
    """Return what a bridge would find that starts now."""
    file = StateFile(path / "state")
    file.load()
    return file.state


class TestBatches:
    def test_nats_is_told_when_the_relay_has_it(self, tmp_path: Path) -> None:
        async def go() -> None:
            async with going(tmp_path) as made:
                made.relay.open.clear()
                made.come(0, 2)
                await until(lambda: len(made.relay.published) == 1)
                made.come(2, 5)
                made.come(5, 6)
                await asyncio.sleep(0.02)
                assert (len(made.relay.published), made.consumer.told) == (1, [])
                made.relay.open.set()
                await made.told(3)
                # One at a time, and all that came meanwhile with the next.
                assert made.consumer.told == [1, 3]
                assert made.relay.published == [b"".join(ALL[:2]), b"".join(ALL[2:6])]
                assert made.relay.journal == ALL[:6]
                assert made.file.state.done == 3

        asyncio.run(go())

    def test_a_batch_is_not_larger_than_it_must_be(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(module, "BATCH_SIZE", 2 * len(ALL[0]))

        async def go() -> None:
            made = bench(tmp_path / "state")
            for number in range(5):
                made.come(number, number + 1)
            async with made.running():
                await made.told(5)
            assert made.consumer.told == [2, 4, 5]

        asyncio.run(go())

    def test_compressed_ones_count_as_what_is_in_them(
        self, tmp_path: Path, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(module, "BATCH_SIZE", 15 * len(ALL[0]))

        async def go() -> None:
            made = bench(tmp_path / "state")
            for begin in range(0, 30, 10):
                made.come_compressed(begin, begin + 10)
            stored = sum(len(each.payload) for each in made.consumer.queue._queue)  # type: ignore[attr-defined]
            async with made.running():
                await made.told(3)
            assert made.consumer.told == [2, 3]
            assert made.relay.journal == ALL
            way = made.account.inward
            assert way.stored_bytes == stored < way.bytes / 2
            assert way.bytes == 30 * len(ALL[0])

        asyncio.run(go())

    def test_a_run_whose_last_message_comes_twice(self, tmp_path: Path) -> None:
        async def go() -> None:
            async with going(tmp_path) as made:
                twice = message(20, 5) + message(21, 1) + message(20, 5, seed=1)
                envelope = run(0, 3)._replace(payload=twice)
                made.consumer.put(twice, envelope.headers("", 0))
                await made.told(1)
                # An acknowledgement would not tell which of them it is for.
                assert made.relay.published == list(split(twice))
                assert b"".join(made.relay.journal) == twice

        asyncio.run(go())

    def test_what_comes_in_pieces(self, tmp_path: Path) -> None:
        """NATS is told of each, and it is kept where the run begins that is to come again."""

        async def go() -> None:
            first, second = run(0, 3).cut(400)
            async with going(tmp_path) as made:
                made.consumer.put(first.payload, first.headers("", 0))
                await made.told(1)
                kept = StateFile(made.file._path)
                kept.load()
                assert (kept.state.done, kept.state.parts) == (1, {"other": 1})
                assert not made.relay.published
            again = made.again()  # killed
            again.file.load()
            again.consumer.put(first.payload, first.headers("", 0))
            again.consumer.put(second.payload, second.headers("", 0))
            async with again.running():
                await again.told(2)
                assert again.relay.published == [b"".join(ALL[:3])]
                assert again.file.state.parts == {}

        asyncio.run(go())

    def test_it_is_killed_behind_a_run_in_pieces(self, tmp_path: Path) -> None:
        async def go() -> None:
            cut = run(0, 3).cut(100)
            async with going(tmp_path) as made:
                for number, piece in enumerate(cut, 1):
                    made.consumer.put(piece.payload, piece.headers("", 0))
                    await made.told(number)
            again = made.again()  # killed: what was told is kept
            again.file.load()
            assert (again.file.state.done, again.file.state.parts) == (len(cut), {})

        asyncio.run(go())

    def test_a_run_whose_rest_never_comes(self, tmp_path: Path) -> None:
        """Others' are told and passed on as ever."""

        async def go() -> None:
            first = run(5, 8).cut(100)[0]
            async with going(tmp_path) as made:
                made.consumer.put(first.payload, first.headers("", 0), subject="signals.gone")
                for number in range(4):
                    made.come(number, number + 1)
                    await made.told(number + 2)
                assert made.relay.journal == ALL[:4]
                assert made.relay.asked == []
                assert made.file.state.parts == {"gone": 1}
            again = made.again()
            again.file.load()
            again.consumer.put(first.payload, first.headers("", 0), subject="signals.gone")
            for number in range(6):
                again.come(number, number + 1)
            async with again.running():
                await again.told(7)
                assert again.relay.journal == ALL[:6]

        asyncio.run(go())

    def test_pieces_are_begun_anew_with_another_connection(self, tmp_path: Path) -> None:
        async def go() -> None:
            made, pieces = bench(tmp_path / "state"), run(0, 3).cut(100)
            async with made.running():
                made.consumer.put(pieces[0].payload, pieces[0].headers("", 0))
                await until(lambda: not made.consumer.waiting)
                await asyncio.sleep(0)
            async with made.running():
                made.come(3, 5, subject="signals.third")
                await made.told(2)  # nothing is left that is not whole

        asyncio.run(go())

    def test_figures(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            way = made.account.inward
            made.come(0, 2, pending=5)
            made.come(2, 5, pending=4)
            async with made.running():
                await made.told(2)
                await until(lambda: way.waiting_messages == 4)
                assert (way.messages, way.runs, way.repeated) == (5, 1, 0)
                assert way.bytes == 5 * len(ALL[0])
                assert way.waiting_since == STORED
                assert way.crossing_seconds == pytest.approx(time.time() - STORED, abs=5)
                made.come(5, 6, pending=0)
                await made.told(3)
                await until(lambda: way.waiting_messages == 0)
                assert (way.messages, way.runs, way.waiting_since) == (6, 2, 0)

        asyncio.run(go())

    def test_figures_while_it_is_under_way(self, tmp_path: Path) -> None:
        async def go() -> None:
            async with going(tmp_path) as made:
                way, publish = made.account.inward, made.relay.publish
                seen: list[tuple[int, float]] = []

                async def noted(data: bytes, last: Header) -> int:
                    seen.append((way.waiting_messages, way.waiting_since))
                    if len(seen) == 1:
                        made.come(1, 2)
                        made.come(2, 3)
                    return await publish(data, last)

                made.relay.publish = noted
                made.come(0, 1)
                await made.told(3)
                assert seen == [(0, STORED), (2, STORED)]

        asyncio.run(go())


class TestPassedOver:
    def test_what_its_own_relay_sent(self, tmp_path: Path) -> None:
        async def go() -> None:
            async with going(tmp_path) as made:
                made.come(0, 2, subject="signals.desk")
                made.come(0, 2, subject="signals.desk.20")
                made.come(2, 3, subject="signals.desktop")
                await made.told(3)
                assert made.account.own == 2
                assert made.relay.journal == ALL[2:3]
                assert not any(made.account.lost.values())

        asyncio.run(go())

    @pytest.mark.parametrize(
        ("payload", "headers", "subject"),
        [
            (ALL[0], None, "signals.other"),
            (ALL[0], {"Some": "thing"}, "signals.other"),
            (ALL[0], run(0, 1).headers("", 0) | {"Signal-Relay-End": "x"}, "signals.other"),
            (ALL[0], run(0, 1).headers("", 0), "elsewhere.other"),
            (ALL[0][:-1], run(0, 1).headers("", 0), "signals.other"),
            (b"x", run(0, 1).headers("", 0), "signals.other"),
            (ALL[0], run(0, 1).headers("", 0) | {CODING: ZSTD}, "signals.other"),
            (ALL[0], run(0, 1).headers("", 0) | {CODING: "br"}, "signals.other"),
        ],
    )
    def test_what_no_bridge_has_made(
        self, tmp_path: Path, payload: bytes, headers: Any, subject: str
    ) -> None:
        async def go() -> None:
            async with going(tmp_path) as made:
                made.consumer.put(payload, headers, subject=subject)
                await made.told(1)
                made.come(1, 3)
                await made.told(2)
                assert made.relay.journal == ALL[1:3]
                assert made.account.lost == {**dict.fromkeys(Loss, 0), Loss.FOREIGN: 1}

        asyncio.run(go())

    def test_what_the_filter_does_not_want(self, tmp_path: Path) -> None:
        async def go() -> None:
            async with going(tmp_path, Selector(sources=frozenset({22}))) as made:
                data = message(22, 1) + message(23, 1) + message(22, 2)
                made.consumer.put(data, run(0, 3).headers("", 0))
                made.come(3, 5)
                await made.told(2)
                made.come(5, 6)
                await made.told(3)
                assert [Header.unpack(m).publisher for m in made.relay.journal] == [22, 22]
                assert made.account.filtered == 4
                assert len(made.relay.published) == made.account.inward.runs == 1
                assert made.account.inward.messages == 2

        asyncio.run(go())

    def test_what_is_done_already(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            made.file.state.done = 2
            for number in range(3):
                made.come(number, number + 1)
            async with made.running():
                await made.told(3)
                assert made.relay.journal == ALL[2:3]

        asyncio.run(go())


class TestGaps:
    @pytest.mark.parametrize(("begin", "lost"), [(2, 0), (3, 1), (1, 0)])
    def test_what_is_not_in_the_stream_any_more(
        self, tmp_path: Path, begin: int, lost: int
    ) -> None:
        async def go() -> None:
            async with going(tmp_path) as made:
                made.come(0, 2)
                made.come(begin, 5)
                await made.told(2)
                assert made.account.lost[Loss.STREAM_GAP] == lost
                assert made.file.state.ends == {"other": run(0, 5).end.text}
                assert made.relay.journal[-1] == ALL[4]  # what comes is taken all the same

        asyncio.run(go())

    def test_another_journal_or_another_relay_is_none(self, tmp_path: Path) -> None:
        async def go() -> None:
            async with going(tmp_path) as made:
                made.come(0, 2)
                made.come(9, 10, subject="signals.third")
                anew = run(2, 3)._replace(begin=Place(6, 9, 0, 0), end=Place(6, 10, 0, 0))
                made.consumer.put(anew.payload, anew.headers("", 0))
                await made.told(3)
                assert made.account.lost[Loss.STREAM_GAP] == 0

        asyncio.run(go())

    @pytest.mark.parametrize(("behind", "lost"), [(4, 0), (7, 1), (0, 0)])
    def test_what_by_types_is_not_in_a_subject_any_more(
        self, tmp_path: Path, behind: int, lost: int
    ) -> None:
        """Places do not tell: what came between may have been of other types."""

        async def go() -> None:
            async with going(tmp_path, Selector(types=frozenset({21}))) as made:
                made.come(0, 1, sequence=3, subject="signals.third.21")
                made.come(0, 1, sequence=4)
                made.come(8, 9, behind, sequence=9)
                made.come(9, 10, 9, sequence=12)
                made.come(1, 2, 3, sequence=13, subject="signals.third.21")
                await made.told(13)
                assert made.account.lost[Loss.STREAM_GAP] == lost
                assert not made.file.state.ends

        asyncio.run(go())

    def test_what_by_types_had_come_or_was_told_before_is_none(self, tmp_path: Path) -> None:
        async def go() -> None:
            async with going(tmp_path, Selector(types=frozenset({21}))) as made:
                made.come(0, 1, sequence=4)
                await made.told(4)
                made.file.state.caught_up = 8
                made.come(1, 2, 8, sequence=9)
                await made.told(9)
            again = made.again()
            again.come(2, 3, 9, sequence=10)
            async with again.running():
                await again.told(10)
            assert not made.account.lost[Loss.STREAM_GAP] + again.account.lost[Loss.STREAM_GAP]

        asyncio.run(go())

    def test_it_is_known_over_a_restart(self, tmp_path: Path) -> None:
        async def go() -> None:
            async with going(tmp_path) as made:
                made.come(0, 2)
                await made.told(1)
            again = made.again()
            again.come(4, 5, sequence=9)
            async with again.running():
                await again.told(9)
            assert again.account.lost[Loss.STREAM_GAP] == 1

        asyncio.run(go())


class TestBreaks:
    @pytest.mark.parametrize("there", range(6))
    def test_only_what_is_missing_is_sent(self, tmp_path: Path, there: int) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            made.relay.journal = [message(30, 1)]  # of somebody else
            made.relay.breaks = [there]
            made.come(0, 3)
            made.come(3, 5)
            async with made.running():
                await made.told(2)
                assert made.relay.journal[1:] == ALL[:5]
                assert made.relay.published[1:] == ([b"".join(ALL[there:5])] if there < 5 else [])
                assert made.relay.asked == [(EPOCH, 1, frozenset({20}))]
                assert made.account.inward.repeated == there
                assert made.account.inward.messages == 5
                assert made.consumer.told == [2]

        asyncio.run(go())

    def test_again_and_again(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            made.relay.breaks = [1, 0, 2, 1, 1]
            made.come(0, 5)
            made.come(5, 6)
            async with made.running():
                await made.told(2)
                assert made.relay.journal == ALL[:6]
                assert not made.relay.breaks

        asyncio.run(go())

    def test_the_same_message_twice_comes_twice(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            twice = [ALL[0], ALL[1], ALL[0], ALL[2]]
            made.relay.breaks = [2]
            made.consumer.put(b"".join(twice), run(0, 4).headers("", 0))
            async with made.running():
                await made.told(1)
                assert made.relay.journal == twice

        asyncio.run(go())

    def test_what_was_in_the_journal_long_before_does_not_count(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            made.relay.journal = ALL[:5]
            made.relay.breaks = [0]
            made.come(0, 5)
            async with made.running():
                await made.told(1)
                assert made.relay.journal == ALL[:5] * 2
                assert made.account.inward.repeated == 0

        asyncio.run(go())

    def test_another_journal_gets_all(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            made.relay.open.clear()
            made.relay.breaks = [2]
            made.come(0, 5)
            async with made.running():
                await until(lambda: len(made.relay.published) == 1)
                assert kept(tmp_path).epoch == EPOCH
                made.relay.epoch += 1
                made.relay.open.set()
                await made.told(1)
            # The first two went to the journal that is gone.
            assert made.relay.journal == ALL[:2] + ALL[:5]
            assert (made.relay.asked, kept(tmp_path).epoch) == ([], EPOCH + 1)

        asyncio.run(go())


class TestRefused:
    def test_only_what_the_relay_does_not_take_is_lost(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            made.relay.may = lambda each: each not in (ALL[2], ALL[5])
            made.come(0, 3)
            made.come(3, 8)
            async with made.running():
                await made.told(2)
                assert made.relay.journal == ALL[:2] + ALL[3:5] + ALL[6:8]
                assert made.account.lost == {**dict.fromkeys(Loss, 0), Loss.REFUSED: 2}
                made.come(8, 10)  # what follows goes as one run again
                await made.told(3)
                assert made.relay.published[-1] == b"".join(ALL[8:10])

        asyncio.run(go())

    def test_all_of_it(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            made.relay.may = lambda _: False
            made.come(0, 3)
            async with made.running():
                await made.told(1)
                assert made.relay.journal == []
                assert made.account.lost[Loss.REFUSED] == 3

        asyncio.run(go())

    def test_the_same_message_twice_is_refused_twice(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            made.relay.may = lambda each: each != ALL[0]
            content = [ALL[0], ALL[1], ALL[0], ALL[2]]
            made.consumer.put(b"".join(content), run(0, 4).headers("", 0))
            async with made.running():
                await made.told(1)
                assert made.relay.journal == ALL[1:3]
                assert made.account.lost[Loss.REFUSED] == 2

        asyncio.run(go())

    def test_a_connection_that_is_lost_meanwhile(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            made.relay.may = lambda each: each != ALL[1]
            made.come(0, 6)
            made.relay.breaks = [3, 0, 1]
            async with made.running():
                await made.told(1)
                assert made.relay.journal == ALL[:1] + ALL[2:6]
                assert made.account.lost[Loss.REFUSED] == 1

        asyncio.run(go())


class TestState:
    def test_it_is_kept_before_anything_is_sent(self, tmp_path: Path) -> None:
        async def go() -> None:
            async with going(tmp_path) as made:
                made.relay.journal = [message(30, 1)]
                made.relay.open.clear()
                made.come(0, 2)
                await until(lambda: bool(made.relay.published))
                expected = State(
                    sending=1, epoch=EPOCH, position=1, ends={"other": run(0, 2).end.text}
                )
                assert kept(tmp_path) == expected
                made.relay.open.set()
                await made.told(1)
                assert (made.file.state.done, kept(tmp_path)) == (1, expected)
                made.come(2, 5)
                await made.told(2)
                assert (kept(tmp_path).done, kept(tmp_path).position) == (1, 3)

        asyncio.run(go())

    def test_it_cannot_be_kept(self, tmp_path: Path) -> None:
        async def go() -> None:
            made = bench(tmp_path / "state")
            (tmp_path / "state.new").mkdir()
            made.come(0, 2)
            consumer: Any = made.consumer
            with pytest.raises(StateError):
                await made.inward.run(consumer)
            assert (made.relay.published, made.consumer.told) == ([], [])

        asyncio.run(go())

    def test_a_file_that_was_there_before_is_kept_up(self, tmp_path: Path) -> None:
        StateFile(tmp_path / "state").save()

        async def go() -> None:
            async with going(tmp_path) as made:
                made.come(0, 2)
                await made.told(1)
                assert made.file.state.done == 1
                made.file.save()
                assert (kept(tmp_path).done, kept(tmp_path).sending) == (1, 1)

        asyncio.run(go())

    @pytest.mark.parametrize("there", range(6))
    def test_it_is_killed_in_the_middle(self, tmp_path: Path, there: int) -> None:
        async def go() -> None:
            async with going(tmp_path) as made:
                made.come(0, 1)
                await made.told(1)
                made.relay.open.clear()
                made.come(1, 4)
                made.come(4, 6)
                await until(lambda: len(made.relay.published) == 2)
            made.relay.open.set()
            made.relay.journal = ALL[: 1 + there]
            again = made.again()
            async with again.running():
                # Nothing is sent before all is there that the relay may have a part of.
                again.come(0, 1, sequence=1)
                again.come(1, 4, sequence=2)
                await asyncio.sleep(0.02)
                assert len(again.relay.published) == 2
                again.come(4, 6, sequence=3)
                again.come(6, 8, sequence=4)
                await again.told(4)
                assert again.relay.journal == ALL[:8]
                assert again.account.inward.repeated == there

        asyncio.run(go())

    def test_the_rest_is_gone_from_the_stream(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(module, "REST_SECONDS", 0.05)

        async def go() -> None:
            made = bench(tmp_path / "state")
            made.file.state = State(sending=9, epoch=EPOCH)
            made.relay.journal = ALL[:2]
            made.come(0, 4, sequence=8)
            async with made.running():
                await made.told(8)
                assert made.relay.journal == ALL[:4]

        asyncio.run(go())
