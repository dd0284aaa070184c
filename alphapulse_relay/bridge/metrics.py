"""What Prometheus scrapes of a bridge: its plain counters as metric families.

Read in the reactor when it is scraped. Both ways have the same families, with the label ``way``.
"""

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from alphapulse_relay import __version__
from alphapulse_relay.bridge.account import Way

if TYPE_CHECKING:
    from alphapulse_relay.bridge.bridge import Bridge

PREFIX = "signal_relay_bridge"

_COUNTERS: tuple[tuple[str, str, Callable[[Way], float]], ...] = (
    ("messages", "Messages that have crossed", lambda way: way.messages),
    ("bytes", "Bytes of the messages that have crossed", lambda way: way.bytes),
    (
        "stored_bytes",
        "Bytes of what has crossed as NATS has it, compressed or not, but for headers",
        lambda way: way.stored_bytes,
    ),
    ("runs", "Runs of messages that have crossed: each was waited for", lambda way: way.runs),
    (
        "repeated",
        "Messages that were not sent again after a break, since they were there already",
        lambda way: way.repeated,
    ),
)


class BridgeCollector(Collector):
    """Reads the bridge when it is scraped. ``clock`` returns seconds since 1970."""

    def __init__(self, bridge: "Bridge", clock: Callable[[], float] = time.time) -> None:
        self._bridge = bridge
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        settings = self._bridge.settings
        yield InfoMetricFamily(
            f"{PREFIX}_build",
            "Versions of the bridge and of Python, and what it joins",
            {
                "version": __version__,
                "python": platform.python_version(),
                "name": settings.name,
                "stream": settings.stream,
            },
        )
        yield from self._connections()
        yield from self._crossed()
        yield from self._waiting()
        yield from self._left_out()

    def _connections(self) -> Iterator[Metric]:
        bridge = self._bridge
        yield _gauge(
            "ready", "1 while messages cross both ways, as far as is known", bridge.trouble is None
        )
        yield _by_label(
            GaugeMetricFamily,
            "connected",
            "1 while there is a connection to that side",
            "side",
            {"relay": bridge.link.trouble is None, "nats": bridge.server.trouble is None},
        )
        yield _counter(
            "relay_connections",
            "Connections that the relay answered",
            bridge.link.connections,
        )
        yield _counter(
            "nats_reconnects",
            "How often a lost connection to NATS came back",
            bridge.server.reconnects,
        )

    def _crossed(self) -> Iterator[Metric]:
        account = self._bridge.account
        for name, help_text, read in _COUNTERS:
            yield self._of_ways(CounterMetricFamily, name, help_text, read)
        yield self._of_ways(
            GaugeMetricFamily,
            "crossing_seconds",
            "Age of what crossed last, when it had crossed",
            lambda way: way.crossing_seconds,
        )
        yield _gauge(
            "publish_seconds",
            "How long NATS took to acknowledge what was published last",
            account.round_trip,
        )

    def _waiting(self) -> Iterator[Metric]:
        now = self._clock()
        yield self._of_ways(
            GaugeMetricFamily,
            "waiting_messages",
            "Messages that are still to cross; inward NATS messages, which are whole runs",
            lambda way: way.waiting_messages,
        )
        yield self._of_ways(
            GaugeMetricFamily,
            "waiting_bytes",
            "Bytes that are here and still to cross",
            lambda way: way.waiting_bytes,
        )
        yield self._of_ways(
            GaugeMetricFamily,
            "lag_seconds",
            "Age of the oldest that is still to cross, 0 if there is none",
            lambda way: way.waited(now),
        )

    def _left_out(self) -> Iterator[Metric]:
        account = self._bridge.account
        yield _by_label(
            CounterMetricFamily,
            "lost",
            "How often messages did not cross and will not, by reason",
            "reason",
            {str(reason): number for reason, number in account.lost.items()},
        )
        yield _counter(
            "own",
            "NATS messages of the bridge's own relay, which were passed over",
            account.own,
        )
        yield _counter(
            "filtered", "Messages that came from NATS and are not wanted here", account.filtered
        )

    def _of_ways(
        self,
        family: type["_Family"],
        name: str,
        help_text: str,
        read: Callable[[Way], float],
    ) -> Metric:
        account = self._bridge.account
        ways = {"outward": read(account.outward), "inward": read(account.inward)}
        return _by_label(family, name, help_text, "way", ways)


_Family = CounterMetricFamily | GaugeMetricFamily


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}_{name}", help_text, value)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", help_text, value)


def _by_label(
    family: type[_Family], name: str, help_text: str, label: str, values: Mapping[str, float]
) -> Metric:
    metric = family(f"{PREFIX}_{name}", help_text, labels=[label])
    for key, value in values.items():
        metric.add_metric([str(key)], value)
    return metric
