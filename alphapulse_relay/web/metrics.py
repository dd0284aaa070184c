"""What Prometheus scrapes: the hub's plain counters as metric families.

Rendered in the reactor: the hub is only read, and a scrape costs less than a thread that would
compete for the interpreter's lock. Names follow Prometheus's conventions: base units, counters end
in ``_total``, no label with one value per connection.
"""

import platform
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from alphapulse_relay import __version__
from alphapulse_relay.hub.counters import Histogram
from alphapulse_relay.hub.factory import BUILD, SignalRelayFactory
from alphapulse_relay.hub.journal import Journal
from alphapulse_relay.hub.peer import State
from alphapulse_relay.web.journal import journal_of, segments_of

_NS = 1_000_000_000


class HubCollector(Collector):
    """Reads the hub when it is scraped. ``ready`` tells whether the relay accepts and journals."""

    def __init__(self, hub: SignalRelayFactory, ready: Callable[[], bool]) -> None:
        self._hub = hub
        self._ready = ready

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        yield InfoMetricFamily(
            "signal_relay_build",
            "Versions of the relay and of Python, and whether the inner loop is compiled",
            {"version": __version__, "python": platform.python_version(), "build": BUILD},
        )
        yield from self._messages()
        yield from self._connections()
        yield from self._flow()
        yield from self._kept()
        if (journal := journal_of(self._hub)) is not None:
            yield from _journal(journal)

    def _messages(self) -> Iterator[Metric]:
        hub, counters = self._hub, self._hub.counters
        yield _counter(
            "messages_received",
            "Messages that passed the checks and were accepted",
            counters.messages_received,
        )
        yield _counter("bytes_received", "Bytes of the accepted messages", counters.bytes_received)
        yield _counter(
            "messages_delivered",
            "Messages delivered whole, counted once for each peer that got one",
            hub.messages_delivered,
        )
        yield _counter("bytes_delivered", "Bytes delivered, to all peers", hub.bytes_delivered)
        yield _counter(
            "messages_replayed",
            "Those of the delivered messages whose receiver was still in the past",
            hub.messages_replayed,
        )
        yield _by_label(
            "messages_dropped",
            "Messages that were not accepted, by the rule that they broke",
            "reason",
            counters.dropped.items(),
        )
        yield _by_label(
            "messages_missed",
            "Messages that a connected peer did not get, by reason",
            "reason",
            counters.missed.items(),
        )
        yield self._types()
        yield from self._publishers()

    def _types(self) -> Metric:
        counters = self._hub.counters
        by_type = ((str(number), count) for number, count in enumerate(counters.types) if count)
        return _by_label(
            "tlv_messages",
            "Accepted messages that hold a TLV of the type; malformed: whose TLVs cannot be read",
            "type",
            [*by_type, ("malformed", counters.malformed[0])],
        )

    def _publishers(self) -> Iterator[Metric]:
        counters = self._hub.counters
        for name, help_text, counts in (
            ("source_messages", "Accepted messages, by their publisher's number", counters.sources),
            (
                "sequence_missing",
                "Sequence numbers that a publisher's accepted messages jumped over",
                counters.sequences_missing,
            ),
            (
                "sequence_repeated",
                "Accepted messages whose sequence number is not above the publisher's highest",
                counters.sequences_repeated,
            ),
        ):
            by_source = ((str(number), count) for number, count in enumerate(counts) if count)
            yield _by_label(name, help_text, "source", by_source)

    def _connections(self) -> Iterator[Metric]:
        hub, counters = self._hub, self._hub.counters
        yield _counter("connections_accepted", "Connections that became peers", counters.accepted)
        yield _by_label(
            "connections_refused",
            "Connections not accepted, by reason",
            "reason",
            counters.refused.items(),
        )
        yield _by_label(
            "connections_ended",
            "Connections that ended, by reason",
            "reason",
            counters.ended.items(),
        )
        peers = GaugeMetricFamily(
            "signal_relay_peers", "Connected peers, by how they stand to the log", labels=["state"]
        )
        states = [peer.state for peer in hub.peers]
        for state in State:
            peers.add_metric([state.value], states.count(state))
        yield peers
        yield _gauge(
            "replaying_peers",
            "Connected peers that have asked for the past and are still in it",
            sum(peer.cursor.replaying for peer in hub.peers),
        )
        yield _gauge(
            "ready", "1 while connections are accepted, and messages journaled", int(self._ready())
        )

    def _flow(self) -> Iterator[Metric]:
        hub, counters = self._hub, self._hub.counters
        lag = max((peer.cursor.behind for peer in hub.peers), default=0)
        yield _gauge(
            "largest_lag_bytes", "Bytes that the peer furthest behind has still to be sent", lag
        )
        yield _gauge(
            "window_bytes",
            "How far behind consumers may be: at half of it publishers are held",
            hub.log.window,
        )
        yield _counter("held_seconds", "Time in which publishers were held", hub.pace.held_seconds)
        yield _gauge("held_publishers", "Publishers that are held now", hub.pace.held)
        yield _by_label(
            "limited",
            "How often an identity's connections were held for sending too much, by access rule",
            "rule",
            counters.limited.items(),
        )
        yield _gauge(
            "limited_peers",
            "Connections that are held now since their identity has sent too much",
            hub.accounts.held,
        )
        yield _histogram(
            "forward_seconds",
            "From the receipt of a chunk to its last write to a peer that keeps up",
            counters.forward,
        )
        yield _histogram(
            "signal_age_seconds",
            "From a message's own timestamp to its receipt; not for messages without one",
            counters.age,
            unit=_NS,
        )

    def _kept(self) -> Iterator[Metric]:
        log = self._hub.log
        yield _gauge("log_head_bytes", "Position behind the newest message", log.head)
        yield _gauge("log_tail_bytes", "Position of the oldest message that is kept", log.tail)
        segments = GaugeMetricFamily(
            "signal_relay_log_segments", "Pieces of the log, by where they lie", labels=["place"]
        )
        for place, number in segments_of(self._hub).items():
            segments.add_metric([place], number)
        yield segments


def _journal(journal: Journal) -> Iterator[Metric]:
    sync = journal.sync
    yield _gauge("journal_bytes", "Bytes that the journal's files take", journal.pool.disk_bytes)
    yield _gauge(
        "journal_failing",
        "1 while the disk does not take the log, which goes on in memory",
        int(journal.failure is not None),
    )
    yield _counter("journal_failures", "How often the log had to go on in memory", journal.failures)
    yield _counter(
        "journal_damages", "Places found damaged in the files since the start", journal.pager.damage
    )
    yield _gauge("journal_unsynced_bytes", "Bytes not known to be on the disk", sync.unsynced)
    yield _counter("journal_sync_failures", "Syncs that failed", sync.failures)
    yield _histogram("journal_sync_seconds", "How long a sync took", sync.seconds)
    yield _histogram(
        "journal_segment_wait_seconds",
        "How long the relay stood still until the next file was ready",
        journal.waits,
    )


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(f"signal_relay_{name}", help_text, value)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"signal_relay_{name}", help_text, value)


def _by_label(name: str, help_text: str, label: str, values: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(f"signal_relay_{name}", help_text, labels=[label])
    for key, value in values:
        family.add_metric([str(key)], value)
    return family


def _histogram(name: str, help_text: str, histogram: Histogram, unit: int = 1) -> Metric:
    bounds = [f"{bound / unit:g}" for bound in histogram.bounds]
    buckets = list(zip([*bounds, "+Inf"], accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(
        f"signal_relay_{name}", help_text, buckets=buckets, sum_value=histogram.total / unit
    )
