"""A whole run: all systems side by side, round after round."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.alone import IDLE_PEERS, QUICK_IDLE_PEERS, idle_peer_bytes, measure_stalled
from benchmarks.loads import ALL_READ, ONE_STALLED, Load
from benchmarks.measure import Measurement, MeasurementError, measure
from benchmarks.summary import Key
from benchmarks.systems import Relay, StartError, System

Step = tuple[Load, System]


@dataclass
class Run:
    """What is to be measured, and then what was.

    ``scale`` shortens every load; ``alone`` says whether the relay is also asked what only it is.
    """

    systems: Sequence[System]
    loads: Sequence[Load]
    rounds: int
    scale: float
    alone: bool
    results: dict[Key, list[Measurement | None]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)
    fate: str = ""
    idle_bytes: float | None = None

    @property
    def idle_peers(self) -> int:
        """How many idle peers are connected."""
        return IDLE_PEERS if self.scale == 1 else QUICK_IDLE_PEERS

    def steps(self) -> list[Step]:
        """Return all measurements, in order.

        Within a round each load goes over all systems before the next; which is first, and by that
        which follows which, changes from round to round.
        """
        return [step for number in range(self.rounds) for step in self._round(number)]

    def _round(self, number: int) -> Iterator[Step]:
        first = number % len(self.systems)
        rotated = [*self.systems[first:], *self.systems[:first]]
        for load in self.loads:
            for system in rotated:
                if system.most_consumers is None or load.consumers <= system.most_consumers:
                    yield load, system
        if self.alone:
            relay = next(each for each in self.systems if isinstance(each, Relay))
            pair = [(ALL_READ, relay), (ONE_STALLED, relay)]
            yield from pair if number % 2 else reversed(pair)

    def measure_all(self, directory: Path, progress: Callable[[str], None]) -> None:
        """Measure everything on systems that are started.

        ``progress`` is told what comes next: once for each step, and once for the idle peers,
        whose relay is started in the directory.
        """
        for load, system in self.steps():
            progress(f"{load.label}: {system.label}")
            self.results[load.key, system.key].append(self._measure(load, system))
        if self.alone:
            progress(f"{self.idle_peers:,} idle peers: relay")
            try:
                self.idle_bytes = idle_peer_bytes(directory, self.idle_peers)
            except (MeasurementError, StartError, OSError) as error:
                self.failures.append(f"idle peers: {error}")

    def _measure(self, load: Load, system: System) -> Measurement | None:
        try:
            if load is ONE_STALLED and isinstance(system, Relay):
                measurement, self.fate = measure_stalled(system, self.scale)
                return measurement
            return measure(system, load, self.scale)
        except (MeasurementError, OSError) as error:
            self.failures.append(f"{load.label}: {system.label}: {error}")
            return None


@contextmanager
def started(systems: Sequence[System]) -> Iterator[dict[str, str]]:
    """Start the systems, and stop them at the end; yield, by key, why some could not be started."""
    absent = {}
    with ExitStack() as stack:
        for system in systems:
            why = system.missing()
            if why is None:
                stack.callback(system.stop)
                try:
                    system.start()
                    system.prepare()
                except StartError as error:
                    why = str(error)
            if why is not None:
                absent[system.key] = why
        yield absent
