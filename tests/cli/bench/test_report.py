"""How results are shown."""

import json

import pytest
from rich.console import Console

from alphapulse_relay.cli.bench.consumer import Received
from alphapulse_relay.cli.bench.crew import Outcome
from alphapulse_relay.cli.bench.latency import Latencies
from alphapulse_relay.cli.bench.publisher import Published
from alphapulse_relay.cli.bench.report import (
    BAR_WIDTH,
    Part,
    Settings,
    bar,
    document,
    latency_report,
    throughput_report,
    time_text,
)

SETTINGS = Settings(consumers=2, rate=1000, seconds=1.0, size=200)


def steady(*values: int, late: int = 0) -> Outcome:
    kept = Latencies()
    for value in values:
        kept.add(value)
    return Outcome(Published(len(values), late), (Received(len(values), kept, 0.0),) * 2)


def full(*rates: float) -> Outcome:
    received = tuple(Received(1000, Latencies(), rate) for rate in rates)
    return Outcome(Published(1000, 0), received)


LATENCY = Part(steady(120_000, 120_000, 2_000_000), steady(10_000))
THROUGHPUT = Part(full(1000.0, 2000.0), full(10_000.0, 10_000.0))


def text(report: object, width: int = 100) -> str:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as capture:
        console.print(report)
    return capture.get()


def test_latency():
    lines = text(latency_report(LATENCY, SETTINGS)).splitlines()
    assert lines[0].startswith("Latency at 1,000 messages/s")
    assert lines[1].split() == ["min", "p50", "p90", "p99", "p99.9", "max"]
    assert lines[2].split()[:5] == ["relay", "120", "µs", "120", "µs"]
    assert lines[2].split()[-2:] == ["2.00", "ms"]
    assert lines[3].startswith("no relay")
    assert "6 receipts through the relay" in lines[5]
    assert [line.split()[:5] for line in lines[6:8]] == [
        ["100", "µs", "-", "150", "µs"],
        ["150", "µs", "-", "200", "µs"],
    ]
    assert lines[6].split()[-2:] == ["4", "66.67%"]


@pytest.mark.parametrize("width", [80, 200])
def test_fits(width):
    for report in (latency_report(LATENCY, SETTINGS), throughput_report(THROUGHPUT, SETTINGS)):
        assert max(map(len, text(report, width).splitlines())) <= width


def test_throughput_is_what_the_slowest_got():
    lines = text(throughput_report(THROUGHPUT, SETTINGS)).splitlines()
    assert lines[2].split() == ["relay", "1,000", "0.2", "3,000"]
    assert lines[3].split() == ["no", "relay", "10,000", "2.0", "20,000"]
    assert "every consumer got all 1,000 messages, in order, byte for byte" in lines[5]


@pytest.mark.parametrize(
    ("part", "note"),
    [
        (Part(steady(100_000, late=20_000_000), steady(1)), "sent 20.0 ms too late"),
        (Part(steady(1, late=10**9), steady(1, late=10**9)), "the publisher alone cannot make"),
        (Part(steady(100_000), steady(90_000)), "publisher and consumers alone take nearly as"),
    ],
)
def test_notes_on_latency(part, note):
    assert note in text(latency_report(part, SETTINGS))
    assert "note" not in text(latency_report(LATENCY, SETTINGS))


def test_notes_on_throughput(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    assert "note" not in text(throughput_report(THROUGHPUT, SETTINGS))
    near = Part(full(800.0, 800.0), full(1000.0, 1000.0))
    assert "note: this is 80% of what" in text(throughput_report(near, SETTINGS))
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0})
    shown = text(throughput_report(THROUGHPUT, SETTINGS))
    assert "note: relay, publisher and 2 consumers share 1 processor:" in shown


def test_document():
    made = json.loads(json.dumps(document(LATENCY, THROUGHPUT, SETTINGS)))
    assert made["latency"]["latency_seconds"]["p50"] == pytest.approx(1.2e-4, rel=0.01)
    assert made["latency"]["count"] == 6
    assert sum(row["count"] for row in made["latency"]["histogram"]) == 6
    assert made["throughput"]["messages_per_second"] == 1000
    assert made["throughput"]["bytes_per_second"] == 200_000
    assert made["throughput"]["deliveries_per_second"] == 3000
    assert made["throughput"]["no_relay"]["messages_per_second"] == 10_000
    assert isinstance(made["notes"], list)


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1000, "1.00 µs"),
        (45_600, "45.6 µs"),
        (123_456_789, "123 ms"),
        (2_500_000_000, "2.50 s"),
        (75_000_000_000, "75.0 s"),
    ],
)
def test_times_have_three_digits(nanoseconds, shown):
    assert time_text(nanoseconds) == shown


def test_bars():
    assert bar(0) == ""
    assert len(bar(1)) == BAR_WIDTH
    assert bar(0.5) == "█" * (BAR_WIDTH // 2)
    assert bar(1e-9)  # what is not nothing is seen
