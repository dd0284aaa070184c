"""The metrics: each figure of the bridge has its own, of each way apart."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nats")

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from alphapulse_relay import __version__
from alphapulse_relay.bridge.account import Loss, Way
from alphapulse_relay.bridge.bridge import Bridge
from alphapulse_relay.bridge.metrics import PREFIX, BridgeCollector
from alphapulse_relay.web.probes import Exposition
from tests.bridge.bridges import make_ready, make_service

NOW = 2000.0


@pytest.fixture
def bridge(tmp_path: Path) -> Bridge:
    return make_service(tmp_path).bridge


def families(bridge: Bridge) -> Iterator[Metric]:
    exposition = Exposition(BridgeCollector(bridge, lambda: NOW), Clock())
    _, body = exposition.render("application/openmetrics-text")
    return text_string_to_metric_families(body.decode())


def figures(bridge: Bridge) -> dict[str, float]:
    """Return the bridge's samples by name, and the value of the one label, if any."""
    return {
        " ".join((sample.name.removeprefix(f"{PREFIX}_"), *sample.labels.values())): sample.value
        for family in families(bridge)
        if family.name.startswith(PREFIX) and family.type != "info"
        for sample in family.samples
    }


def test_ways(bridge: Bridge) -> None:
    account = bridge.account
    account.outward = Way(1, 2, 5, 3, 4, 6, 7, NOW - 8, 9.5)
    account.inward = Way(11, 12, 15, 13, 14, 16, 17, 0.0, 19.5)
    found = figures(bridge)
    for way, expected in (
        ("outward", (1, 2, 5, 3, 4, 6, 7, 8, 9.5)),
        ("inward", (11, 12, 15, 13, 14, 16, 17, 0, 19.5)),
    ):
        names = (
            *("messages_total", "bytes_total", "stored_bytes_total", "runs_total"),
            "repeated_total",
            *("waiting_messages", "waiting_bytes", "lag_seconds", "crossing_seconds"),
        )
        assert tuple(found[f"{name} {way}"] for name in names) == expected


def test_what_is_left_out(bridge: Bridge) -> None:
    bridge.account.lost[Loss.STREAM_GAP] = 3
    bridge.account.own, bridge.account.filtered = 4, 5
    found = figures(bridge)
    assert {name: found[f"lost_total {name}"] for name in Loss} == {
        Loss.RELAY_GAP: 0,
        Loss.STREAM_GAP: 3,
        Loss.REFUSED: 0,
        Loss.FOREIGN: 0,
    }
    assert (found["own_total"], found["filtered_total"]) == (4, 5)


def test_connections(bridge: Bridge) -> None:
    found = figures(bridge)
    assert (found["ready"], found["connected relay"], found["connected nats"]) == (0, 0, 0)
    bridge.link.trouble = None
    bridge.link.connections = 2
    found = figures(bridge)
    assert (found["ready"], found["connected relay"], found["connected nats"]) == (0, 1, 0)
    make_ready(bridge)
    bridge.server.reconnects = 3
    bridge.account.round_trip = 0.25
    found = figures(bridge)
    assert (found["ready"], found["connected nats"]) == (1, 1)
    assert (found["relay_connections_total"], found["nats_reconnects_total"]) == (2, 3)
    assert found["publish_seconds"] == 0.25


def test_a_way_that_stands_still_is_not_ready(bridge: Bridge) -> None:
    make_ready(bridge)
    bridge.account.inward.trouble = "there is no stream"
    assert figures(bridge)["ready"] == 0


def test_build(bridge: Bridge) -> None:
    (labels,) = (
        sample.labels
        for family in families(bridge)
        if family.name == f"{PREFIX}_build"
        for sample in family.samples
    )
    assert labels["version"] == __version__
    assert (labels["name"], labels["stream"]) == ("desk", "SIGNALS")


def test_names_are_as_prometheus_has_them(bridge: Bridge) -> None:
    found = [family for family in families(bridge) if family.name.startswith(PREFIX)]
    assert len({family.name for family in found}) == len(found)
    for family in found:
        assert re.fullmatch("[a-z_]+", family.name)
        assert re.match("[A-Z1].*[^.]$", family.documentation), family.name
        labels = {frozenset(sample.labels) for sample in family.samples}
        assert len(labels) == 1
        assert family.type == "info" or labels <= {
            frozenset(), *(frozenset({name}) for name in ("way", "side", "reason"))
        }  # fmt: skip
