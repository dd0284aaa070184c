"""Latencies: percentiles and buckets."""

import random

import pytest

from alphapulse_relay.cli.bench.latency import STEPS, Latencies


def of(*values: int) -> Latencies:
    kept = Latencies()
    for value in values:
        kept.add(value)
    return kept


def test_none():
    assert len(Latencies()) == 0
    assert set(Latencies().summary().values()) == {0}
    assert Latencies().buckets() == []


def test_one():
    assert set(of(123_456).summary().values()) == {123_456}


@pytest.mark.parametrize("percent", [50, 90, 99, 99.9])
def test_percentiles_of_small_numbers_are_exact(percent):
    assert (
        of(*range(1, 101)).percentile(percent)
        == [50, 90, 99, 100][[50, 90, 99, 99.9].index(percent)]
    )


def test_percentiles_are_within_one_percent_and_never_too_short():
    values = sorted(int(random.Random(1).lognormvariate(12, 2)) for _ in range(5000))
    kept = of(*values)
    assert (kept.least, kept.most) == (values[0], values[-1])
    for percent in (1, 50, 90, 99, 99.9, 100):
        exact = values[max(-int(-len(values) * percent // 100), 1) - 1]
        assert exact <= kept.percentile(percent) <= exact * 1.01


def test_summary_has_what_is_shown():
    assert list(of(1).summary()) == ["min", "p50", "p90", "p99", "p99.9", "max"]


def test_zero_and_early():
    """A clock that is read on two processors may tell that a message came before it was due."""
    assert of(0).summary()["max"] == 0
    assert of(0).buckets() == [(0, STEPS[0], 1)]


def test_merged():
    merged = Latencies.merged([of(5, 7), Latencies(), of(1, 9)])
    assert (len(merged), merged.least, merged.most) == (4, 1, 9)
    assert merged.percentile(50) == 5
    assert len(Latencies.merged([])) == 0


def test_buckets_hold_all_and_follow_each_other():
    kept = of(11_000, 12_000, 16_000, 60_000)
    rows = kept.buckets()
    assert rows[0] == (10_000, 15_000, 2)
    assert rows[1] == (15_000, 20_000, 1)
    assert rows[-1] == (50_000, 70_000, 1)
    assert [start for start, _, _ in rows[1:]] == [stop for _, stop, _ in rows[:-1]]
    assert sum(number for *_, number in rows) == len(kept)


def test_longer_than_all_bounds():
    ages = 10**15
    ((start, stop, number),) = of(ages).buckets()
    assert start <= ages < stop
    assert number == 1
