"""The probes of any process: words and statuses, and metrics that are kept for a second."""

from collections.abc import Iterator

import pytest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.internet.task import Clock
from twisted.web.server import Site

from alphapulse_relay.web.pages import Directory
from alphapulse_relay.web.probes import CACHE_SECONDS, Exposition, add_probes
from tests.web.asking import Caller

OPEN = "application/openmetrics-text;version=1.0.0;q=0.6"
TEXT = "text/plain;version=0.0.4"
LATER = 1000.0
"""A time from which a clock can be set back."""


class Counted(Collector):
    """Tells how often it was asked."""

    def __init__(self) -> None:
        self.collected = 0

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        self.collected += 1
        yield GaugeMetricFamily("asked", "How often.", self.collected)


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(LATER)
    return clock


@pytest.fixture
def collector() -> Counted:
    return Counted()


class TestProbes:
    reason: str | None = None

    @pytest.fixture
    def caller(self, clock: Clock, collector: Counted) -> Iterator[Caller]:
        root = Directory()
        add_probes(root, lambda: self.reason, collector, clock)
        site = Site(root, reactor=clock)
        site.timeOut = None
        caller = Caller(site)
        yield caller
        caller.lose()

    def test_who_answers_is_alive(self, caller: Caller) -> None:
        self.reason = "starting"
        answer = caller.ask("/healthz")
        assert (answer.status, answer.body) == (200, b"alive\n")

    def test_whether_it_is_ready_is_told_as_it_is_now(self, caller: Caller) -> None:
        assert (caller.ask("/readyz").status, caller.response.body) == (200, b"ready\n")
        self.reason = "no disk"
        answer = caller.ask("/readyz")
        assert (answer.status, answer.body) == (503, b"not ready: no disk\n")

    @pytest.mark.parametrize(
        ("accept", "content_type"),
        [(OPEN, "application/openmetrics-text"), (TEXT, "text/plain"), ("\xff", "text/plain")],
    )
    def test_metrics_come_as_they_are_asked_for(
        self, caller: Caller, accept: str, content_type: str
    ) -> None:
        answer = caller.ask("/metrics", accept=accept)
        assert answer.headers["content-type"].startswith(content_type)
        assert b"\nasked 1.0\n" in answer.body
        assert b"\nprocess_open_fds " in answer.body


class TestExposition:
    @pytest.fixture
    def exposition(self, collector: Counted, clock: Clock) -> Exposition:
        return Exposition(collector, clock)

    def asked(self, exposition: Exposition) -> bool:
        return b"asked 2.0" in exposition.render(TEXT)[1]

    def test_is_kept_for_a_second(self, clock: Clock, exposition: Exposition) -> None:
        exposition.render(TEXT)
        clock.advance(CACHE_SECONDS - 0.01)
        assert not self.asked(exposition)
        clock.advance(0.01)
        assert self.asked(exposition)

    def test_of_each_format_apart(self, exposition: Exposition) -> None:
        assert exposition.render(TEXT)[1] != exposition.render(OPEN)[1]
        assert exposition.render(OPEN)[1].endswith(b"# EOF\n")

    def test_a_clock_that_was_set_back_does_not_keep_it(
        self, clock: Clock, exposition: Exposition
    ) -> None:
        exposition.render(TEXT)
        clock.rightNow -= LATER / 2
        assert self.asked(exposition)

    def test_renders_once_for_all_who_ask(self, collector: Counted, exposition: Exposition) -> None:
        for _ in range(100):
            exposition.render(TEXT)
        assert collector.collected == 1

    def test_what_is_kept_is_bounded_whatever_is_asked_for(
        self, collector: Counted, exposition: Exposition
    ) -> None:
        for number in range(50):
            exposition.render(f"application/openmetrics-text;version=1.0.{number}")
        assert collector.collected == 1
