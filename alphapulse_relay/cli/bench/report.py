"""Results of a benchmark, for people and for programs.

Knows rich and results; neither processes nor sockets.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alphapulse_relay.cli.bench.crew import Outcome
from alphapulse_relay.cli.bench.latency import Latencies
from alphapulse_relay.cli.numbers import counted

BAR_WIDTH = 40
"""Columns of the longest bar of a histogram."""
NEAR_CEILING = 0.7
"""Part of what the processes reach without a relay from which they, too, may be the limit."""
LATE = 0.01
"""Part of the seconds by which the last message may be late before it is worth a note."""
RELAY, DIRECT = "relay", "no relay"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"), (1, "ns"))
_NS = 1_000_000_000


@dataclass(frozen=True)
class Part:
    """What came of one load through the relay, and directly from publisher to consumers."""

    relay: Outcome
    direct: Outcome


@dataclass(frozen=True)
class Settings:
    """What was asked for: ``size`` in bytes of a message, ``rate`` in messages a second."""

    consumers: int
    rate: int
    seconds: float
    size: int


def latency_report(part: Part, settings: Settings) -> RenderableType:
    """Return the first part for a person: percentiles and a histogram."""
    rows = {RELAY: latencies(part.relay), DIRECT: latencies(part.direct)}
    table = _table("", *rows[RELAY].summary())
    for name, row in rows.items():
        table.add_row(name, *map(time_text, row.summary().values()))
    title = f"Latency at {settings.rate:,} messages/s, from when a message was due to its receipt"
    samples = f"\n{len(rows[RELAY]):,} receipts through the relay"
    histogram = _histogram(rows[RELAY])
    notes = _shown(_latency_notes(part, settings))
    return Group(Text(title, "bold"), table, Text(samples, "dim"), histogram, *notes, Text())


def throughput_report(part: Part, settings: Settings) -> RenderableType:
    """Return the second part for a person."""
    table = _table("", "messages/s", "MB/s", "deliveries/s")
    for name, outcome in ((RELAY, part.relay), (DIRECT, part.direct)):
        rate = slowest(outcome)
        megabytes = rate * settings.size / 1e6
        table.add_row(name, f"{rate:,.0f}", f"{megabytes:,.1f}", f"{deliveries(outcome):,.0f}")
    got = counted(part.relay.published.messages, "message", ",")
    verified = f"\nevery consumer got all {got}, in order, byte for byte"
    notes = _shown(_throughput_notes(part, settings))
    return Group(Text("Throughput", "bold"), table, Text(verified), *notes, Text())


def document(latency: Part, throughput: Part, settings: Settings) -> dict[str, Any]:
    """Return all results for a program: times in seconds, sizes in bytes."""
    return {
        "consumers": settings.consumers,
        "message_bytes": settings.size,
        "seconds": settings.seconds,
        "latency": {
            "messages_per_second": settings.rate,
            "last_late_seconds": latency.relay.published.late / _NS,
            **_latency_document(latencies(latency.relay)),
            "no_relay": _latency_document(latencies(latency.direct)),
        },
        "throughput": {
            **_rates(throughput.relay, settings),
            "no_relay": _rates(throughput.direct, settings),
        },
        "notes": [*_latency_notes(latency, settings), *_throughput_notes(throughput, settings)],
    }


def latencies(outcome: Outcome) -> Latencies:
    """Return the latencies of all consumers."""
    return Latencies.merged(received.latencies for received in outcome.received)


def slowest(outcome: Outcome) -> float:
    """Return the messages a second that every consumer got."""
    return min(received.rate for received in outcome.received)


def deliveries(outcome: Outcome) -> float:
    """Return the messages a second that all consumers together got."""
    return sum(received.rate for received in outcome.received)


def time_text(nanoseconds: int) -> str:
    """Return a time with three digits, in a unit that suits it."""
    value, unit = _in_unit(nanoseconds)
    decimals = max(3 - len(str(int(value))), 0) if unit != "ns" else 0
    return f"{value:.{decimals}f} {unit}"


def bound_text(nanoseconds: int) -> str:
    """Return the bound of a bucket, without decimals where it needs none."""
    value, unit = _in_unit(nanoseconds)
    return f"{value:.3g} {unit}"


def bar(part: float) -> str:
    """Return a bar for a part of the longest; what is not nothing is seen."""
    eighths = round(part * BAR_WIDTH * 8)
    if part and not eighths:
        eighths = 1
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _in_unit(nanoseconds: int) -> tuple[float, str]:
    size, unit = next((pair for pair in _UNITS if nanoseconds >= pair[0]), _UNITS[-1])
    return nanoseconds / size, unit


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left", header_style="dim")
    return table


def _histogram(values: Latencies) -> Table:
    """Return a row for each bucket: its range, its bar, its number and part of all."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("right", "left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    buckets = values.buckets()
    most = max((number for *_, number in buckets), default=1)
    for start, stop, number in buckets:
        edges = f"{bound_text(start)} - {bound_text(stop)}"
        part = f"{number / len(values):.2%}"
        table.add_row(edges, Text(bar(number / most), "cyan"), f"{number:,}", part)
    return table


def _latency_notes(part: Part, settings: Settings) -> Iterator[str]:
    late, direct_late = part.relay.published.late, part.direct.published.late
    if direct_late > LATE * settings.seconds * _NS:
        yield "the publisher alone cannot make that many messages a second: lower --rate"
    elif late > LATE * settings.seconds * _NS:
        yield f"the rate was not reached: the last message was sent {time_text(late)} too late"
    relay, direct = latencies(part.relay), latencies(part.direct)
    if direct.percentile(50) > NEAR_CEILING * relay.percentile(50):
        yield "publisher and consumers alone take nearly as long: most of it is not the relay's"


def _throughput_notes(part: Part, settings: Settings) -> Iterator[str]:
    reached = deliveries(part.relay) / deliveries(part.direct)
    if reached > NEAR_CEILING:
        yield (
            f"this is {reached:.0%} of what publisher and consumers reach without a relay: they "
            "may have been the limit"
        )
    processes, processors = settings.consumers + 2, len(os.sched_getaffinity(0))
    if processors < processes:
        yield (
            f"relay, publisher and {counted(settings.consumers, 'consumer')} share "
            f"{counted(processors, 'processor')}: they take time from each other"
        )


def _shown(notes: Iterator[str]) -> Iterator[Text]:
    return (Text(f"note: {note}", "yellow") for note in notes)


def _latency_document(values: Latencies) -> dict[str, Any]:
    buckets = [
        {"from": start / _NS, "to": stop / _NS, "count": number}
        for start, stop, number in values.buckets()
    ]
    return {
        "count": len(values),
        "latency_seconds": {name: value / _NS for name, value in values.summary().items()},
        "histogram": buckets,
    }


def _rates(outcome: Outcome, settings: Settings) -> dict[str, float]:
    return {
        "messages": outcome.published.messages,
        "messages_per_second": slowest(outcome),
        "bytes_per_second": slowest(outcome) * settings.size,
        "deliveries_per_second": deliveries(outcome),
    }
