"""What the measurements come to: medians over the rounds, ratios, and whether targets are met.

A ratio is taken within each round, between measurements that lie seconds apart, and then the
median of those: what disturbs the machine for a while disturbs both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.loads import (
    ALL_READ,
    ONE_STALLED,
    PURE_LEAST,
    PURE_LOAD,
    STALLED_LIMIT,
    Figure,
    Load,
    Target,
)
from benchmarks.measure import Measurement

OURS = "relay"
JOURNAL = "journal"
PURE = "pure"
FLOOR = "floor"
DIRECT = "direct"
RIVALS = ("nats", "redis", "zeromq")
IDLE_LIMIT = 16 * 1024
"""Resident bytes that an idle peer may take."""

Key = tuple[str, str]
"""The keys of a load and of a system."""
Results = Mapping[Key, Sequence[Measurement | None]]
"""A measurement of each round, None where it failed."""


@dataclass(frozen=True)
class Row:
    """One figure of one load, for all systems that have it.

    ``medians`` and ``ratios`` (to the floor) are by system. ``incomplete`` are those that did not
    deliver everything in some round, or failed. ``met`` and ``behind`` (the rivals that the relay
    is not ahead of) are None where there is nothing to compare with.
    """

    load: Load
    target: Target
    medians: dict[str, float]
    ratios: dict[str, float]
    incomplete: frozenset[str]
    met: bool | None
    behind: tuple[str, ...] | None


@dataclass(frozen=True)
class Check:
    """One thing that is asked of the relay alone."""

    label: str
    measured: str
    target: str
    met: bool | None


def summarise(results: Results, loads: Sequence[Load], systems: Sequence[str]) -> list[Row]:
    """Return the rows of the table: each figure of each load that something is expected of."""
    return [_row(results, load, target, systems) for load in loads for target in load.targets]


def _row(results: Results, load: Load, target: Target, systems: Sequence[str]) -> Row:
    figure = target.figure
    medians = {s: m for s in systems if (m := value(results, figure, (load.key, s))) is not None}
    floor, ours = (load.key, FLOOR), (load.key, OURS)
    ratios = {s: r for s in medians if (r := ratio(results, figure, (load.key, s), floor))}
    to_rivals = {s: r for s in RIVALS if (r := ratio(results, figure, ours, (load.key, s)))}
    behind = tuple(s for s, r in to_rivals.items() if (r <= 1 if figure.more_is_better else r >= 1))
    incomplete = frozenset(
        system
        for system in systems
        if any(not (each and each.complete) for each in results.get((load.key, system), ()))
    )
    met = target.met_by(ratios[OURS]) and OURS not in incomplete if OURS in ratios else None
    return Row(load, target, medians, ratios, incomplete, met, behind if to_rivals else None)


def value(results: Results, figure: Figure, which: Key) -> float | None:
    """Return the median over the rounds; None if there is nothing."""
    found = [each.figure(figure) for each in results.get(which, ()) if each]
    return median(found) if found else None


def ratio(results: Results, figure: Figure, which: Key, to: Key) -> float | None:
    """Return the median of the rounds' ratios between two; None if there is nothing to compare."""
    pairs = zip(results.get(which, ()), results.get(to, ()), strict=False)
    ratios = [
        ours.figure(figure) / theirs.figure(figure)
        for ours, theirs in pairs
        if ours and theirs and theirs.figure(figure)
    ]
    return median(ratios) if ratios else None


def check_stalled(results: Results, fate: str) -> Check | None:
    """Judge what one consumer that never reads does to the others; ``fate`` tells its own."""
    with_it, without = (ONE_STALLED.key, OURS), (ALL_READ.key, OURS)
    slower = ratio(results, Figure.P99, with_it, without)
    if slower is None:
        return None
    times = [value(results, Figure.P99, which) or 0 for which in (with_it, without)]
    measured = f"{times[0]:,.0f} µs, without it {times[1]:,.0f}: {slower:.2f} times (it is {fate})"
    complete = all(each and each.complete for key in (with_it, without) for each in results[key])
    label = f"p99 of {ALL_READ.consumers} consumers beside one that never reads"
    return Check(
        label, measured, f"≤ {STALLED_LIMIT:g} times", complete and slower <= STALLED_LIMIT
    )


def check_pure(results: Results, loads: Sequence[Load]) -> Check | None:
    """Judge how much the relay takes without its compiled modules."""
    for load in loads:
        found = value(results, Figure.RATE, (load.key, PURE))
        if load.key == PURE_LOAD and found is not None:
            label = f"pure Python, {load.label}"
            measured = f"{found:,.0f} messages/s"
            return Check(label, measured, f"> {PURE_LEAST:,} messages/s", found > PURE_LEAST)
    return None


def check_ceilings(results: Results, loads: Sequence[Load]) -> list[Check]:
    """Tell what the load generator does with no hub between its two ends."""
    checks = []
    for load in loads:
        figure = load.targets[0].figure
        found = value(results, figure, (load.key, DIRECT))
        if found is not None:
            label = f"no hub at all, {load.label}"
            checks.append(Check(label, f"{found:,.0f} {figure.unit}", "", None))
    return checks


def check_idle(peer_bytes: float, peers: int) -> Check:
    """Judge what an idle peer costs."""
    label = f"memory of an idle peer, of {peers:,}"
    measured = f"{peer_bytes / 1024:.1f} KiB"
    return Check(label, measured, f"≤ {IDLE_LIMIT // 1024} KiB", peer_bytes <= IDLE_LIMIT)
