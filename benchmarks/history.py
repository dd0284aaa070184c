"""The second part of a run: what is asked of the relay with a journal alone.

All parts are measured in turn, round after round, on one relay whose journal is full.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import bridged, browsers, handshakes, parts
from benchmarks.loads import Figure
from benchmarks.measure import MeasurementError
from benchmarks.parts import PACED, THROUGH, Figures
from benchmarks.summary import OURS, Check, Results, ratio
from benchmarks.systems import JournalRelay, StartError

STEADY_LEAST = 0.85
"""What a full journal must leave of the messages per second."""
LATENCY_LIMIT = 1.1
"""How much later messages may be (p50) with a journal."""
ERRORS = (MeasurementError, StartError, OSError)


@dataclass(frozen=True)
class Part:
    """Something that is asked; ``parts`` tells what the two functions take and return."""

    key: str
    label: str
    measure: Callable[[JournalRelay, int, float], Figures]
    judge: Callable[[Sequence[Figures]], Sequence[Check]]


PARTS = (
    Part("replay", "replay", parts.measure_replay, parts.judge_replay),
    Part("fresh", "a new journal", parts.measure_fresh, parts.judge_fresh),
    Part("cold", "live beside a replay", parts.measure_cold, parts.judge_cold),
    Part("filter", "a filter that all pass", parts.measure_filter, parts.judge_filter),
    Part("crash", "start after kill -9", parts.measure_start, parts.judge_start),
    Part("stores", "others that keep messages", parts.measure_stores, parts.judge_stores),
    Part("browsers", "browsers", browsers.measure_browsers, browsers.judge_browsers),
    Part("handshakes", "TLS", handshakes.measure_handshakes, handshakes.judge_handshakes),
    Part("bridges", "bridges", bridged.measure_bridge, bridged.judge_bridge),
)


@dataclass
class History:
    """What is to be measured, and then what was.

    ``scale`` shortens loads, and makes journals smaller.
    """

    parts: Sequence[Part]
    rounds: int
    scale: float
    results: dict[str, list[Figures]] = field(default_factory=lambda: defaultdict(list))
    """The rounds of each part that did not fail."""
    failures: list[str] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """How many measurements there are."""
        return len(self.parts) * self.rounds

    def measure_all(self, directory: Path, progress: Callable[[str], None]) -> None:
        """Measure everything, on a relay started in the directory.

        ``progress`` is told what comes next, once for each step.
        """
        relay = JournalRelay(directory, self.scale)
        if why := relay.missing():
            self.failures.append(f"history: {why}")
            return
        directory.mkdir(parents=True, exist_ok=True)
        try:
            relay.start()
            relay.prepare()
            for number in range(self.rounds):
                for part in self.parts:
                    progress(part.label)
                    self._measure(part, relay, number)
        except ERRORS as error:
            self.failures.append(f"history: {error}")
        finally:
            relay.stop()

    def _measure(self, part: Part, relay: JournalRelay, number: int) -> None:
        try:
            parts.settle(relay)
            self.results[part.key].append(part.measure(relay, number, self.scale))
        except ERRORS as error:
            self.failures.append(f"{part.label}: {error}")

    def checks(self) -> list[Check]:
        """Return what all parts come to."""
        return [
            check
            for part in self.parts
            if (rounds := self.results.get(part.key))
            for check in part.judge(rounds)
        ]


def check_steady(results: Results) -> list[Check]:
    """Judge the relay with a full journal beside the one without, by the ordinary loads."""
    checks = []
    for load in THROUGH:
        if (found := _with_and_without(results, Figure.RATE, load.key)) is not None:
            label = f"with a full journal / without: {Figure.RATE}, {load.label}"
            checks.append(parts.at_least(label, found, STEADY_LEAST))
    if (found := _with_and_without(results, Figure.P50, PACED.key)) is not None:
        label = f"with a full journal / without: {Figure.P50}, {PACED.label}"
        target = f"≤ {LATENCY_LIMIT:g}"
        checks.append(Check(label, f"{found:.2f}", target, found <= LATENCY_LIMIT))
    return checks


def _with_and_without(results: Results, figure: Figure, load: str) -> float | None:
    return ratio(results, figure, (load, JournalRelay.key), (load, OURS))
