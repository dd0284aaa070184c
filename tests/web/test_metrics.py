"""The metrics: every figure is that of known traffic, every name as Prometheus wants it."""

import re
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from alphapulse_relay import __version__
from alphapulse_relay.hub.counters import AGE_BOUNDS, FORWARD_BOUNDS
from alphapulse_relay.hub.journal import RETRY_SECONDS
from alphapulse_relay.hub.peer import Ending, Miss, Refusal, State
from alphapulse_relay.journal.format import data_path
from alphapulse_relay.protocol_v2.control import Start, Subscribe
from alphapulse_relay.protocol_v2.errors import Rejection
from alphapulse_relay.web.metrics import HubCollector
from alphapulse_relay.web.probes import Exposition
from tests.hub.fakes import WINDOW, Hub, message, messages
from tests.web.journaled import SIZE, JournaledHub, say
from tests.web.traffic import AGE_NS, Traffic

OPEN = "application/openmetrics-text;version=1.0.0;q=0.6"
TEXT = "text/plain;version=0.0.4"
Figures = Callable[[], "Scrape"]


class Scrape:
    """One rendering, parsed."""

    def __init__(self, hub: Hub, accept: str = OPEN, ready: bool = True) -> None:
        exposition = Exposition(HubCollector(hub.factory, lambda: ready), hub.clock)
        self.content_type, body = exposition.render(accept)
        self.text = body.decode()
        parse: Any = parse_open if "openmetrics" in self.content_type else parse_text
        self.families: list[Metric] = list(parse(self.text))

    def __getitem__(self, name: str) -> float:
        """Return the value of ``name`` or ``name{value of its one label}``, without the prefix."""
        plain, _, label = name.rstrip("}").partition("{")
        (found,) = (
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"signal_relay_{plain}"
            and [*sample.labels.values()] == [label] * bool(label)
        )
        return float(found)

    def labels(self, name: str) -> dict[str, float]:
        """Return the values of a family with one label by what the label says."""
        return {
            next(iter(sample.labels.values())): sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"signal_relay_{name}"
        }


@pytest.fixture
def traffic(hub: Hub, clock: Any) -> Traffic:
    return Traffic(hub, clock)


@pytest.fixture(params=[OPEN, TEXT])
def scrape(request: pytest.FixtureRequest, traffic: Traffic) -> Scrape:
    return Scrape(traffic.hub, request.param)


class TestFormat:
    @pytest.mark.parametrize("accept", ["", "*/*", "text/html", TEXT])
    def test_text_unless_asked(self, hub: Hub, accept: str) -> None:
        assert Scrape(hub, accept).content_type.startswith("text/plain; version=0.0.4")

    def test_openmetrics_if_asked(self, hub: Hub) -> None:
        scrape = Scrape(hub, f"{OPEN},text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
        assert scrape.content_type.startswith("application/openmetrics-text; version=1.0.0")
        assert scrape.text.endswith("# EOF\n")

    @pytest.mark.parametrize(
        "accept",
        [
            "application/openmetrics-text;version=nonsense",
            "application/openmetrics-text;version=",
            "text/plain;version=1.0.0;escaping=unheard-of",
            "text/plain;version=x",
            ";;;,,,",
        ],
    )
    def test_any_header_gets_an_answer(self, hub: Hub, accept: str) -> None:
        scrape = Scrape(hub, accept)
        assert scrape["ready"] == 1


class TestFigures:
    def test_messages(self, traffic: Traffic, scrape: Scrape) -> None:
        assert scrape["messages_received_total"] == 5
        assert scrape["bytes_received_total"] == traffic.bytes
        # The consumer has all five, the slow one 50 bytes: one of 34 and a part of the next.
        assert scrape["messages_delivered_total"] == 5 + 1
        assert scrape["bytes_delivered_total"] == traffic.bytes + 50

    def test_dropped(self, scrape: Scrape) -> None:
        expected = dict.fromkeys(map(str, Rejection), 0) | {"checksum": 2, "domain": 1}
        expected |= {"magic": 1, "torn": 1}
        assert scrape.labels("messages_dropped_total") == expected

    def test_types(self, scrape: Scrape) -> None:
        assert scrape.labels("tlv_messages_total") == {"21": 2, "22": 2, "malformed": 1}

    def test_publishers(self, hub: Hub) -> None:
        sender = hub.connect()
        for source, numbers in ((20, (5, 9, 9)), (21, (1, 2)), (255, (7, 6, 6))):
            sender.send(*(message(number=number, source=source) for number in numbers))
        scrape = Scrape(hub)
        assert scrape.labels("source_messages_total") == {"20": 3, "21": 2, "255": 3}
        assert scrape.labels("sequence_missing_total") == {"20": 3}
        assert scrape.labels("sequence_repeated_total") == {"20": 1, "255": 2}

    def test_connections(self, scrape: Scrape) -> None:
        assert scrape["connections_accepted_total"] == 7
        assert scrape["connections_refused_total{too_many_peers}"] == 1
        ended = dict.fromkeys(map(str, Ending), 0) | {"closed": 2, "magic": 1}
        assert scrape.labels("connections_ended_total") == ended
        assert scrape.labels("peers") == {"live": 2, "behind": 1, "muted": 1}
        assert scrape["replaying_peers"] == 0

    def test_flow(self, traffic: Traffic, scrape: Scrape) -> None:
        assert scrape["largest_lag_bytes"] == traffic.bytes - 50
        assert scrape["window_bytes"] == WINDOW
        assert (scrape["held_publishers"], scrape["held_seconds_total"]) == (0, 0)

    def test_log_in_memory(self, traffic: Traffic, scrape: Scrape) -> None:
        assert (scrape["log_tail_bytes"], scrape["log_head_bytes"]) == (0, traffic.bytes)
        assert scrape.labels("log_segments") == {"files": 0, "memory": 1}
        assert not [each for each in scrape.families if "journal" in each.name]

    def test_age(self, scrape: Scrape) -> None:
        # Four have a timestamp; they are half a minute old and a little more.
        assert scrape["signal_age_seconds_count"] == 4
        assert scrape["signal_age_seconds_sum"] == pytest.approx(4 * AGE_NS / 1e9, abs=8)
        buckets = list(scrape.labels("signal_age_seconds_bucket").items())
        assert [(float(bound), count) for bound, count in buckets[-3:]] == [
            (10, 0),
            (60, 4),
            (float("inf"), 4),
        ]

    def test_forward(self, traffic: Traffic, scrape: Scrape) -> None:
        assert scrape["forward_seconds_count"] == 1
        assert scrape["forward_seconds_sum"] == traffic.hub.counters.forward.total

    def test_buckets_have_the_bounds(self, scrape: Scrape) -> None:
        for name, bounds in (("forward", FORWARD_BOUNDS), ("signal_age", AGE_BOUNDS)):
            found = [float(bound) for bound in scrape.labels(f"{name}_seconds_bucket")]
            assert found == [*bounds, float("inf")]

    def test_buckets_are_cumulative(self, hub: Hub) -> None:
        hub.counters.forward.counts[:3] = array("Q", [1, 2, 3])
        values = list(Scrape(hub).labels("forward_seconds_bucket").values())
        assert values[:4] == [1, 3, 6, 6]
        assert values[-1] == 6

    def test_missed(self, hub: Hub) -> None:
        sender, slow, silent = hub.connect(), hub.connect(room=10), hub.connect(room=10)
        silent.send(message())
        sent = hub.fill(sender, 2 * WINDOW)
        assert slow.closed
        silent.take()
        missed = Scrape(hub).labels("messages_missed_total")
        # The one that is torn comes whole in the end.
        assert missed["muted"] == len(sent) - 1
        assert missed["overtaken"] == hub.counters.missed[Miss.OVERTAKEN] > 0

    def test_held(self, hub: Hub, clock: Any) -> None:
        sender, consumer = hub.connect(), hub.connect(room=10)
        hub.fill(sender, WINDOW // 2)
        clock.advance(0.5)
        scrape = Scrape(hub)
        assert scrape["held_publishers"] == 1
        assert scrape["held_seconds_total"] == 0.5
        consumer.take()
        clock.advance(2)
        scrape = Scrape(hub)
        assert scrape["held_publishers"] == 0
        assert scrape["held_seconds_total"] == 0.5

    def test_what_was_delivered_to_those_that_left_stays(self, hub: Hub) -> None:
        sender, consumer = hub.connect(), hub.connect()
        sender.send(*messages(3))
        before = Scrape(hub)
        consumer.lose()
        after = Scrape(hub)
        for name in ("messages_delivered_total", "bytes_delivered_total"):
            assert after[name] == before[name] > 0

    @pytest.mark.parametrize("ready", [True, False])
    def test_ready(self, hub: Hub, ready: bool) -> None:
        assert Scrape(hub, ready=ready)["ready"] == ready

    def test_build(self, scrape: Scrape) -> None:
        (line,) = (
            line for line in scrape.text.splitlines() if line.startswith("signal_relay_build_info")
        )
        assert f'version="{__version__}"' in line

    def test_an_empty_hub(self, hub: Hub) -> None:
        scrape = Scrape(hub)
        assert scrape["largest_lag_bytes"] == 0
        assert scrape.labels("peers") == dict.fromkeys(map(str, State), 0)
        assert scrape.labels("tlv_messages_total") == {"malformed": 0}


class TestJournal:
    def test_files(self, journaled: JournaledHub) -> None:
        publisher = journaled.connect()
        before = Scrape(journaled)
        assert before["journal_bytes"] == journaled.bytes_in_directory()
        journaled.fill_segment(publisher)
        scrape = Scrape(journaled)
        assert scrape.labels("log_segments") == {"files": 2, "memory": 0}
        assert before["journal_bytes"] < scrape["journal_bytes"] <= SIZE
        assert scrape["journal_bytes"] == journaled.bytes_in_directory()
        assert scrape["log_head_bytes"] == scrape["bytes_received_total"]
        assert scrape["journal_segment_wait_seconds_count"] == 2
        assert scrape["journal_segment_wait_seconds_sum"] == journaled.journal.waits.total

    def test_sync(self, journaled: JournaledHub, clock: Any) -> None:
        publisher = journaled.connect()
        publisher.send(message(64), message(36))
        scrape = Scrape(journaled)
        assert (scrape["journal_unsynced_bytes"], scrape["journal_sync_seconds_count"]) == (100, 0)
        clock.advance(1)
        scrape = Scrape(journaled)
        assert (scrape["journal_unsynced_bytes"], scrape["journal_sync_seconds_count"]) == (0, 1)
        assert scrape["journal_sync_seconds_sum"] == journaled.journal.sync.seconds.total > 0
        assert scrape["journal_sync_failures_total"] == 0

    def test_a_sync_that_fails(self, journaled: JournaledHub, clock: Any) -> None:
        journaled.disk.broken = True
        journaled.connect().send(message(64), message(36))
        clock.advance(1)
        scrape = Scrape(journaled)
        assert (scrape["journal_sync_failures_total"], scrape["journal_unsynced_bytes"]) == (1, 100)
        assert (scrape["journal_failing"], scrape["journal_failures_total"]) == (1, 1)

    def test_a_full_disk_that_has_room_again(self, journaled: JournaledHub, clock: Any) -> None:
        scrape = Scrape(journaled)
        assert (scrape["journal_failing"], scrape["journal_failures_total"]) == (0, 0)
        journaled.disk.full = True
        publisher = journaled.connect()
        journaled.fill_segment(publisher)
        journaled.fill_segment(publisher)
        scrape = Scrape(journaled)
        assert (scrape["journal_failing"], scrape["journal_failures_total"]) == (1, 1)
        assert scrape.labels("log_segments")["memory"] > 0
        journaled.disk.full = False
        clock.advance(RETRY_SECONDS)
        scrape = Scrape(journaled)
        assert (scrape["journal_failing"], scrape["journal_failures_total"]) == (0, 1)

    def test_damage(self, clock: Any, tmp_path: Path) -> None:
        hub = JournaledHub(clock, tmp_path)
        assert Scrape(hub)["journal_damages_total"] == 0
        hub.connect().send(message(64))
        hub.finish()
        with data_path(tmp_path, 0).open("r+b") as file:
            file.seek(40)
            file.write(b"?!?!")
        again = JournaledHub(clock, tmp_path)
        assert Scrape(again)["journal_damages_total"] == 1
        again.finish()

    def test_replay_and_refused_control(self, journaled: JournaledHub) -> None:
        publisher, consumer = journaled.connect(), journaled.connect(room=10)
        publisher.send(*messages(5))
        say(consumer, Subscribe(start=Start.POSITION))
        assert Scrape(journaled)["replaying_peers"] == 1
        consumer.take()
        publisher.send(*messages(2))
        scrape = Scrape(journaled)
        assert (scrape["replaying_peers"], scrape["messages_replayed_total"]) == (0, 5)
        say(consumer, Subscribe(start=Start.POSITION, start_value=1 << 50))
        assert Scrape(journaled)["messages_dropped_total{control}"] == 1

    def test_names(self, journaled: JournaledHub) -> None:
        for family in Scrape(journaled).families:
            assert re.fullmatch(r"(signal_relay|process)_[a-z_]+", family.name)
            assert family.type != "histogram" or family.name.endswith("_seconds")


class TestNames:
    def test_each_name_of_an_enum_is_a_label(self, hub: Hub) -> None:
        """From the start, so that a rate has a beginning; and no other."""
        scrape = Scrape(hub)
        for name, enum in (
            ("messages_dropped_total", Rejection),
            ("messages_missed_total", Miss),
            ("connections_refused_total", Refusal),
            ("connections_ended_total", Ending),
            ("peers", State),
        ):
            assert list(scrape.labels(name)) == [each.value for each in enum]

    def test_prefix(self, scrape: Scrape) -> None:
        for family in scrape.families:
            assert re.fullmatch(r"(signal_relay|process)_[a-z_]+", family.name)

    def test_help(self, scrape: Scrape) -> None:
        for family in scrape.families:
            assert len(family.documentation) > 10
            assert family.documentation.strip() == family.documentation

    def test_counters_end_in_total_and_nothing_else_does(self, scrape: Scrape) -> None:
        for family in scrape.families:
            for sample in family.samples:
                counter = family.type == "counter"
                assert sample.name.endswith("_total") == counter, sample.name

    def test_base_units(self, scrape: Scrape) -> None:
        for family in scrape.families:
            words = set(family.name.split("_"))
            assert not words & {"ms", "milliseconds", "ns", "us", "kb", "kib", "mb", "minutes"}
            if family.type == "histogram":
                assert family.name.endswith("_seconds")

    def test_no_label_has_a_value_per_connection(self, hub: Hub) -> None:
        def series() -> int:
            return sum(len(family.samples) for family in Scrape(hub).families)

        sender = hub.connect()
        sender.send(message())
        before = series()
        for _ in range(30):
            hub.connect()
        sender.send(message())
        for client in hub.clients[1:20]:
            client.lose()
        assert series() == before

    def test_one_family_of_each_name(self, scrape: Scrape) -> None:
        names = [family.name for family in scrape.families]
        assert len(names) == len(set(names))
