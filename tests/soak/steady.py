"""A relay at half load for long, with all kinds of clients that come and go: nothing may grow.

What is told of its run: how much went through, the relay's memory and descriptors, and how late
messages came, all in tenths of the run.
"""

import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.soak.growth import Sample, Slope, count_descriptors, slope, take_sample
from tests.soak.guests import Browser, Guest, Log, Named, Passer, Reader
from tests.soak.latency import PERCENTILES, Latency, percentiles
from tests.soak.latency import SOURCE as TIMED
from tests.soak.load import SIZE, TYPES, Publisher, Stream
from tests.soak.reconnects import Other
from tests.support import PATIENCE, Relay

FLOOD = (20, 21)
"""Sources of what makes up the load."""
ORDERS = (30, 31)
"""Sources of what named clients and a WebSocket take: as many as Python can check beside a load."""
BURST, PAUSE = 20, 0.1
"""Of each source of ORDERS: so many messages, each so many seconds."""
Wanted = tuple[int, tuple[int, ...], int | None]
NAMED: Sequence[Wanted] = (
    (40, ORDERS, None),
    (41, ORDERS[:1], None),
    (42, ORDERS, TYPES[1]),
)
"""Source of what it publishes, the sources that it wants, and the type, of each named client."""
CALIBRATION_SECONDS = 10.0
"""Long enough for the disk to have a say, which keeps what is published."""
KEPT_SECONDS = 15.0
"""What the journal keeps, if that is not too much: named clients are away for less."""
MEMORY = Path("/dev/shm")
JOURNAL_LEAST, JOURNAL_MOST = 16 << 20, 1 << 30
"""Bytes of the journal; the most is the relay's default."""
WARM_UP = 0.1
"""The part of the run before which memory is not looked at."""
PARTS = 10
SAMPLE_SECONDS, LINE_SECONDS = 5.0, 60.0
"""Between two looks at the process and between two lines, or a hundredth and a tenth of the run."""
GROWTH_MAX = 10 * 1024
"""KiB by which memory may grow from the warm-up to the end, by the line through it, to be flat."""
Part = tuple[float, Sample, list[float]]
"""Of a time: messages a second, its last sample, and the PERCENTILES in µs."""
_Seen = tuple[Sample, int, int]
"""A sample, how many messages had come, and how many of them were timed."""
FLAT = 1.25
"""How much higher p99.9 of the second half may be than that of the first to be called flat."""


@dataclass(frozen=True)
class Result:
    """What a run came to; ``parts`` are its tenths."""

    rate: float
    parts: Sequence[Part]
    resident: Slope
    anonymous: Slope
    grown: float
    """KiB of memory that is not of files from the warm-up to the end, by the line."""
    descriptors: tuple[int, int]
    """Before anybody came, and after all have gone."""
    halves: tuple[float, float]
    """p99.9 in µs."""
    told: str
    """How many came, what they took, and how often they were started."""

    @property
    def grows(self) -> bool:
        return self.grown > GROWTH_MAX

    @property
    def is_flat(self) -> bool:
        return self.halves[1] <= FLAT * self.halves[0]


def calibrate() -> float:
    """Return how many messages a second this machine's relay forwards at most.

    To the same consumers as later, but for those with a name, which would not keep up.
    """
    with Relay("--journal-size", str(JOURNAL_MOST)) as relay, Log(relay):
        run = _Run(relay, math.inf, random.Random(), relay.directory, named=())
        with Latency(relay.socket) as latency:
            run.begin()
            for pause in (3, CALIBRATION_SECONDS):  # first until the journal's files are full
                time.sleep(pause)
                run.look(latency)
        for each in run.everybody:
            each.stop()
        return _part(run.samples[0], run.samples[-1], latency)[0]


class _Run:
    """A relay, those who come to it, and what is seen of it."""

    def __init__(
        self,
        relay: Relay,
        rate: float,
        chance: random.Random,
        bookmarks: Path,
        named: Sequence[Wanted] = NAMED,
    ) -> None:
        self.relay = relay
        everything = (*FLOOD, *ORDERS, TIMED, *(own for own, _, _ in named))
        self._peers = [relay.connect(joined=False) for _ in range(len(FLOOD) + 1)]
        self.reader = Reader(self._peers[-1], everything)
        self.orders = Stream(dict.fromkeys(ORDERS, 0))
        sources = ",".join(map(str, ORDERS))
        share = rate / len(FLOOD)
        self.flood = [
            Publisher(peer, source, share) for peer, source in zip(self._peers, FLOOD, strict=False)
        ]
        self.named = [
            Named(relay.socket, bookmarks / f"{own}", own, wanted, type_, chance)
            for own, wanted, type_ in named
        ]
        self.passers = [Passer(relay.socket, chance, stalls=each) for each in (False, True)]
        self.browsers = [
            Browser(relay.port, f"sources={sources}&behind=wait", self.orders),
            Browser(relay.port, ""),
        ]
        self.samples: list[_Seen] = []

    @property
    def guests(self) -> Sequence[Guest]:
        return [self.reader, *self.named, *self.passers, *self.browsers]

    @property
    def everybody(self) -> Sequence[Guest | Publisher]:
        return [*self.guests, *self.flood]

    def begin(self) -> None:
        for each in self.everybody:
            each.start()

    def look(self, latency: Latency) -> None:
        """Take a sample; raise what has failed."""
        for each in self.guests:
            each.check()
        latency.check()
        sample = take_sample(self.relay.process.pid, time.monotonic())
        self.samples.append((sample, self.reader.stream.messages, len(latency.seconds)))

    def end(self, orders: Sequence[Other], timed: int) -> None:
        """Have all leave, and see that each has had what it wanted."""
        for publisher in self.flood:
            publisher.stop()  # first: nobody takes anything while the others are stopped
        for guest in (*self.named, *self.passers, self.browsers[1]):
            guest.stop()
        for order in orders:
            order.stop()
        published = {each.source: each.published for each in orders}
        for named in self.named:
            named.take_all(published)
        _wait_for(self.browsers[0], self.orders, sum(published.values()))
        total = sum(each.begun for each in self.flood) + sum(published.values()) + timed
        total += sum(named.published for named in self.named)
        _wait_for(self.reader, self.reader.stream, total)
        for guest in (self.reader, self.browsers[0]):
            guest.stop()
        for peer in self._peers:
            peer.close()


def _wait_for(guest: Guest, stream: Stream, messages: int) -> None:
    """Wait until so many have come: no more can, since each was the next one."""
    deadline = time.monotonic() + PATIENCE
    while stream.messages < messages:
        guest.check()
        assert time.monotonic() < deadline, f"{stream.messages} of {messages} messages came"
        time.sleep(0.05)
    assert stream.messages == messages


def steady(
    seconds: float, rate: float, chance: random.Random, tell: Callable[[str], object]
) -> Result:
    """Keep a relay at ``rate`` messages a second for so long, and hold it to what it promises.

    Raises ``AssertionError`` where a client misses a message or gets one twice or torn, and where
    descriptors stay open when all have left.
    """
    kept = int(rate * SIZE * KEPT_SECONDS * 8 / 7)
    journal = min(max(kept, JOURNAL_LEAST), JOURNAL_MOST)
    with (
        tempfile.TemporaryDirectory(prefix="soak-", dir=_memory()) as bookmarks,
        Relay("--journal-size", str(journal)) as relay,
        Log(relay) as log,
    ):
        before = count_descriptors(relay.process.pid)
        run = _Run(relay, rate, chance, Path(bookmarks))
        orders = [Other(relay.socket, source, BURST, PAUSE) for source in ORDERS]
        with Latency(relay.socket) as latency:
            run.begin()
            _watch(run, latency, seconds, tell)
        run.end(orders, len(latency.seconds))
        descriptors = before, _descriptors_left(relay, before)
    assert not log.faults, log.faults
    return _result(run, latency, descriptors)


def _memory() -> Path | None:
    """Return where files need no disk: a bookmark is synced, and the journal keeps a disk busy."""
    return MEMORY if MEMORY.is_dir() else None


def _watch(run: _Run, latency: Latency, seconds: float, tell: Callable[[str], object]) -> None:
    """Take samples for so long, and tell a line now and then."""
    start = time.monotonic()
    each, line_each = min(SAMPLE_SECONDS, seconds / 100), min(LINE_SECONDS, seconds / PARTS)
    run.look(latency)
    told = 0
    while (passed := time.monotonic() - start) < seconds:
        time.sleep(each)
        run.look(latency)
        if passed + each >= line_each * (told + 1):
            told += 1
            tell(_line(run, latency, line_each))


def _line(run: _Run, latency: Latency, seconds: float) -> str:
    """Tell of the last so many seconds."""
    last = run.samples[-1]
    since = next(each for each in run.samples if each[0].at >= last[0].at - seconds)
    rate, sample, late = _part(since, last, latency)
    named = sum(each.taken for each in run.named)
    return (
        f"{rate:,.0f} messages/s; resident {_mib(sample.resident)}, {_mib(sample.anonymous)} of it "
        f"not of files; {sample.descriptors} descriptors; {'/'.join(f'{us:,.0f}' for us in late)} "
        f"µs; {sum(each.visits for each in run.passers)} came and went, {named} to named clients"
    )


def _mib(kib: int) -> str:
    return f"{kib / 1024:.1f} MiB"


def _part(since: _Seen, last: _Seen, latency: Latency) -> Part:
    rate = (last[1] - since[1]) / (last[0].at - since[0].at)
    return rate, last[0], percentiles(latency.seconds[since[2] : last[2]])


def _descriptors_left(relay: Relay, wanted: int) -> int:
    """Return how many are open when all have gone, which the relay notices in a moment."""
    deadline = time.monotonic() + PATIENCE
    while (number := count_descriptors(relay.process.pid)) > wanted:
        assert time.monotonic() < deadline, f"{number} descriptors, there were {wanted}"
        time.sleep(0.05)
    return number


def _result(run: _Run, latency: Latency, descriptors: tuple[int, int]) -> Result:
    samples, number = run.samples, len(run.samples) - 1
    cuts = [samples[number * part // PARTS] for part in range(PARTS + 1)]
    warm = [sample for sample, _, _ in samples[int(number * WARM_UP) :]]
    anonymous = slope([(each.at, each.anonymous) for each in warm])
    first, second = (
        _part(cuts[half], cuts[half + PARTS // 2], latency)[2][-1] for half in (0, PARTS // 2)
    )
    return Result(
        rate=_part(cuts[0], cuts[-1], latency)[0],
        parts=[_part(*pair, latency) for pair in pairwise(cuts)],
        resident=slope([(each.at, each.resident) for each in warm]),
        anonymous=anonymous,
        grown=anonymous.per_hour * (warm[-1].at - warm[0].at) / 3600,
        descriptors=descriptors,
        halves=(first, second),
        told=(
            f"{run.reader.stream.messages} messages to one that takes all, {run.orders.messages} "
            f"to a WebSocket, {sum(each.taken for each in run.named)} to {len(run.named)} named "
            f"clients in {sum(each.runs for each in run.named)} runs"
        ),
    )


def table(result: Result) -> Iterator[str]:
    """Yield the lines that tell of a run."""
    columns = f"{'tenth':>5} {'messages/s':>11} {'resident':>11} {'not of files':>12} {'open':>5}"
    yield columns + "".join(f"{f'p{each:g} µs':>10}" for each in PERCENTILES)
    for number, (rate, sample, late) in enumerate(result.parts, start=1):
        memory = f"{_mib(sample.resident):>11} {_mib(sample.anonymous):>12}"
        figures = "".join(f"{us:>10,.0f}" for us in late)
        yield f"{number:>5} {rate:>11,.0f} {memory} {sample.descriptors:>5}{figures}"
    yield f"resident memory, with the journal's files: {result.resident}"
    grows = "it grows" if result.grows else "flat"
    yield f"what is not of files: {result.anonymous}: {result.grown:+,.0f} KiB, {grows}"
    yield "descriptors, without the journal's: {} before, {} after".format(*result.descriptors)
    flat = "flat" if result.is_flat else "not flat"
    first, second = result.halves
    yield f"p99.9: {first:,.0f} µs in the first half, {second:,.0f} in the second: {flat}"
    yield f"{result.told}: none missing, none repeated, none torn"
