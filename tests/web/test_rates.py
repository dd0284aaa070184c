"""Rates: what happened in which second, of known traffic, and for how long that is kept."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from alphapulse_relay.web import rates as module
from alphapulse_relay.web.rates import RATES_INTERVAL, RATES_KEPT, Rates
from tests.hub.fakes import Hub, message
from tests.web.traffic import damaged, signal


class Time:
    """The machine's clocks, which follow the hub's unless a test says otherwise."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self.set_by = 1_800_000_000.0
        """Seconds by which the machine's time of day is ahead of the hub's clock."""
        self.late = 0.0

    def time(self) -> float:
        return float(self._clock.seconds()) + self.set_by

    def monotonic(self) -> float:
        return float(self._clock.seconds()) + self.late


@pytest.fixture
def moment(clock: Any, monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time(clock)
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def rates(hub: Hub, clock: Any, moment: Time) -> Iterator[Rates]:
    """The rates of a hub, under way; left without a trace."""
    made = Rates(hub.factory, clock)
    made.start()
    yield made
    made.stop()
    assert not clock.getDelayedCalls()


def samples(rates: Rates, since: float | None = None) -> list[dict[str, Any]]:
    """Return the samples as who asks for the JSON gets them."""
    document = json.loads(json.dumps(rates.describe(since)))
    assert document.keys() == {"interval", "samples"}
    assert document["interval"] == RATES_INTERVAL
    found = document["samples"]
    assert isinstance(found, list)
    return found


def messages_in(rates: Rates, since: float | None = None) -> list[int]:
    return [sample["messages"] for sample in samples(rates, since)]


class TestSamples:
    def test_nothing_yet(self, rates: Rates) -> None:
        assert samples(rates) == []

    def test_nothing_happens(self, rates: Rates, clock: Any, moment: Time) -> None:
        clock.advance(1)
        assert samples(rates) == [
            {
                "at": moment.time(),
                "seconds": 1.0,
                **dict.fromkeys(("messages", "bytes", "delivered", "dropped", "missed"), 0),
                "types": {},
                "sources": {},
                "troubles": {},
            }
        ]

    def test_of_known_traffic(self, hub: Hub, rates: Rates, clock: Any) -> None:
        sender, _, _ = (hub.connect() for _ in range(3))
        run = [signal(21), signal(21, 22), message(source=7), signal()]
        sender.send(*run, damaged(message(), 50))
        clock.advance(1)
        (sample,) = samples(rates)
        del sample["at"]
        assert sample == {
            "seconds": 1.0,
            "messages": 4,
            "bytes": sum(map(len, run)),
            "delivered": 8,
            "dropped": 1,
            "missed": 0,
            "types": {"21": 3, "22": 1},
            "sources": {"7": 1, "20": 3},
            "troubles": {"dropped.checksum": 1},
        }

    def test_of_all_that_goes_wrong(self, hub: Hub, rates: Rates, clock: Any) -> None:
        sender, consumer = hub.connect(), hub.connect()
        sender.send(message(number=5), message(number=5), message(number=9))
        clock.advance(1)
        consumer.lose()
        sender.send(message(number=8))
        clock.advance(1)
        assert [sample["troubles"] for sample in samples(rates)] == [
            {"missing.20": 3, "repeated.20": 1},
            {"repeated.20": 1, "ended.closed": 1},
        ]

    def test_each_has_only_its_own(self, hub: Hub, rates: Rates, clock: Any) -> None:
        sender = hub.connect()
        for number in (1, 0, 3):
            sender.send(*[message()] * number)
            clock.advance(1)
        assert messages_in(rates) == [1, 0, 3]
        assert [sample["sources"] for sample in samples(rates)] == [{"20": 1}, {}, {"20": 3}]

    def test_what_was_before_the_start_is_in_none(self, hub: Hub, clock: Any, moment: Time) -> None:
        rates = Rates(hub.factory, clock)
        hub.connect().send(message())
        rates.start()
        clock.advance(1)
        rates.stop()
        assert messages_in(rates) == [0]

    def test_missed(self, hub: Hub, rates: Rates, clock: Any) -> None:
        sender, consumer = hub.connect(), hub.connect(room=10)
        sent = hub.fill(sender, 2 * hub.factory.log.window)
        assert consumer.closed
        clock.advance(1)
        (sample,) = samples(rates)
        assert 0 < sample["missed"] <= len(sent)

    def test_what_was_delivered_to_one_that_left_is_counted_once(
        self, hub: Hub, rates: Rates, clock: Any
    ) -> None:
        sender, consumer = hub.connect(), hub.connect()
        sender.send(message())
        clock.advance(1)
        consumer.lose()
        clock.advance(1)
        assert [sample["delivered"] for sample in samples(rates)] == [1, 0]


class TestTime:
    def test_a_late_one_says_how_long_it_was(self, rates: Rates, clock: Any, moment: Time) -> None:
        moment.late = 4.25
        clock.advance(1)
        clock.advance(1)
        assert [sample["seconds"] for sample in samples(rates)] == [5.25, 1.0]

    def test_a_machine_that_slept(self, rates: Rates, clock: Any, moment: Time) -> None:
        clock.advance(1)
        moment.set_by += 3600
        clock.advance(1)
        first, second = samples(rates)
        assert second["at"] - first["at"] == 3601
        assert second["seconds"] == 1, "it did nothing meanwhile"

    def test_goes_on_after_a_failure(
        self, hub: Hub, rates: Rates, clock: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("no")

        with monkeypatch.context() as patched:
            patched.setattr(module, "_totals", fail)
            with pytest.raises(RuntimeError, match="no"):
                clock.advance(1)
        hub.connect().send(message())
        clock.advance(1)
        (sample,) = samples(rates)
        assert (sample["messages"], sample["seconds"]) == (1, 2.0), "of both intervals"

    def test_stops(self, rates: Rates, clock: Any) -> None:
        clock.advance(1)
        rates.stop()
        clock.advance(5)
        assert len(samples(rates)) == 1
        rates.stop()

    def test_may_be_stopped_before_the_start(self, hub: Hub, clock: Any) -> None:
        Rates(hub.factory, clock).stop()


class TestSince:
    def test_all_that_is_newer(self, hub: Hub, rates: Rates, clock: Any) -> None:
        sender = hub.connect()
        for number in range(1, 5):
            sender.send(*[message()] * number)
            clock.advance(1)
        second = samples(rates)[1]["at"]
        assert messages_in(rates, second) == [3, 4]
        assert messages_in(rates, second - 0.5) == [2, 3, 4]
        assert messages_in(rates, second - 1000) == [1, 2, 3, 4]
        assert messages_in(rates, second + 2) == []
        assert messages_in(rates, second + 1000) == []

    def test_a_clock_that_was_set_back(
        self, hub: Hub, rates: Rates, clock: Any, moment: Time
    ) -> None:
        """Who asks for what follows on a sample gets that: it would get nothing for an hour."""
        sender = hub.connect()
        clock.advance(1)
        (last,) = samples(rates)
        moment.set_by -= 3600
        sender.send(message())
        clock.advance(1)
        assert messages_in(rates, last["at"]) == [1]

    def test_times_survive_the_way_through_text(
        self, hub: Hub, rates: Rates, clock: Any, moment: Time
    ) -> None:
        moment.set_by += 0.123456789
        clock.advance(1)
        clock.advance(1)
        first = samples(rates)[0]["at"]
        assert len(samples(rates, float(str(first)))) == 1


def test_keeps_so_many(hub: Hub, rates: Rates, clock: Any) -> None:
    sender = hub.connect()
    sender.send(message())
    for _ in range(RATES_KEPT):
        clock.advance(1)
    assert messages_in(rates)[0] == 1
    clock.advance(1)
    assert messages_in(rates) == [0] * RATES_KEPT
