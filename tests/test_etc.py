"""The alerts and the dashboard in ``etc/`` ask for what a relay has, or a bridge, and Prometheus
takes them.
"""

import http.client
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from alphapulse_relay.protocol_v2.header import build_message
from tests.bridge.running import BridgeProcess, NATSServer, joining
from tests.programs import run, tool
from tests.support import PATIENCE, Relay, message

ETC = Path(__file__).parent.parent / "etc"
ALERTS = ETC / "prometheus" / "alerts.yml"
TESTS = ETC / "prometheus" / "alerts_test.yml"
SCRAPE = ETC / "prometheus" / "scrape.yml"
DASHBOARD: dict[str, Any] = json.loads((ETC / "grafana" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

ALERT_EXPRESSIONS = dict(re.findall(r"- alert: (\w+)\n +expr: (.+)\n", ALERTS.read_text()))
PANEL_EXPRESSIONS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
OF_DASHBOARD = PANEL_EXPRESSIONS | {
    each["name"]: each["expr"] for each in DASHBOARD["annotations"]["list"]
}
EXPRESSIONS = OF_DASHBOARD | ALERT_EXPRESSIONS
TARGET_LABELS = {"job", "instance"}
"""What Prometheus adds to each metric, and each expression may go by."""
PROMETHEUS_METRICS = {"up"}
"""What Prometheus says of a scrape itself."""
LIVELY = {
    "Ready A", "Up since A", "Peers A", "Not accepted A", "Version A",
    "Messages A", "Messages B", "Bytes A", "Bytes B", "Copies of each message A",
    "Messages by publisher A", "Messages by type A", "Sequence numbers A", "Sequence numbers B",
    "Connections A", "Connections B", "Why connections ended A", "Largest lag B", "Largest lag C",
    "Messages dropped A", "Connections refused A", "Messages that their sender may not send A",
    "Messages that cannot be read A", "Held for sending too much A",
    "Forwarding A", "Forwarding, quantiles A", "Age of signals A", "Age of signals, quantiles A",
    "Disk space A", "Kept A", "Segments of the log A", "Requests and WebSockets refused A",
    "Memory A", "Open files A", "Open files B",
    "Bridges ready A", "Bridges connected A", "Messages across A", "Bytes across A", "Age across B",
    "Publishing to NATS A",
}  # fmt: skip
"""The targets in which :func:`make_traffic` must be seen: something else than 0."""
WRONG = {
    "SignalRelayMessagesDropped", "SignalRelayMessagesForbidden", "SignalRelayMessagesMalformed",
    "SignalRelaySequenceGaps",
}  # fmt: skip
"""The alerts of what is not in order in it."""
CHOSEN = {
    "relay": '{job="signal-relay",instance=~"$instance"',
    "bridge": '{job="signal-relay-bridge",instance=~"$bridge"',
}
"""How a panel asks for what was chosen at the dashboard's top."""
UNITS = {
    "binBps", "bytes", "cps", "dateTimeFromNow", "mps", "percentunit", "s", "short"
}  # fmt: skip
"""The units of Grafana that are in use; a misspelt one is shown as text behind each number."""


ACCESS = """
[[access]]
name = "tests"
publish = {sources = [20]}
messages-per-second = 2
"""
"""Rules by which :func:`make_traffic` sends too much, and what it may not."""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that has seen what there are metrics of only then: gaps and repetitions."""
    config = tmp_path_factory.mktemp("etc") / "relay.toml"
    config.write_text(ACCESS)
    with Relay("--config", str(config)) as relay:
        relay.connect()  # who reads
        make_traffic(relay)
        yield relay


def make_traffic(relay: Relay) -> None:
    """Show the relay what is in order and what is not, in one connection that ends."""
    before = relay.status()["counters"]["messages_received"]
    damaged = bytearray(message(20, 6))
    damaged[-1] ^= 1
    unreadable = build_message(b"\x15\xff", source=20, sequence=6, timestamp=0)
    good = b"".join(message(20, number) for number in (1, 5, 5))
    sender = relay.connect()
    sender.send(good + bytes(damaged) + message(21, 1) + unreadable)
    now = relay.wait_until(lambda now: now["counters"]["messages_received"] == before + 4)
    (number,) = (peer["number"] for peer in now["peers"] if peer["messages_in"])
    sender.close()
    relay.wait_until(lambda now: number in {peer["number"] for peer in now["departed"]})
    assert relay.get("/healthz", Host="another.example")[0] == 403


@pytest.fixture(scope="module")
def bridge(relay: Relay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    """A bridge of that relay, with nobody else in the stream."""
    pytest.importorskip("nats")
    directory = tmp_path_factory.mktemp("bridge")
    with (
        NATSServer(directory) as nats,
        BridgeProcess(directory, *joining(relay.socket, nats.url)) as bridge,
    ):
        bridge.wait_until(lambda now: bool(now["ready"]))
        yield bridge


class Exposed:
    """The names, and the labels with their values, of metrics as they are stored."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.names: set[str] = set()
        self.labels: dict[str, dict[str, set[str]]] = {}
        for text in texts:
            self._add(text)

    def _add(self, text: str) -> None:
        self.names |= set(re.findall(r"^# TYPE (\w+) (?:counter|gauge)$", text, re.M))
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.names.add(sample.name)
                labels = self.labels.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)


@pytest.fixture(scope="module")
def exposed(relay: Relay, bridge: BridgeProcess) -> Exposed:
    return Exposed(*(each.get("/metrics", Accept="text/plain")[1] for each in (relay, bridge)))


SELECTOR = re.compile(r"([a-z_][a-z0-9_]*)(?:\{([^}]*)\})")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|without|ignoring) \(([^)]*)\)")
OPERATORS = {"absent", "and", "offset", "or", "unless"}


def metrics_of(expression: str) -> set[str]:
    """Return the metrics that a PromQL expression names."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b\d\w*", " ", GROUPING.sub(" ", expression))
    words = re.findall(r"\b([a-z_][a-z0-9_]*)\b(?! *\()", bare)
    return set(words) - OPERATORS


def grouped_by(expression: str) -> set[str]:
    """Return the labels that a PromQL expression goes by."""
    return {label for group in GROUPING.findall(expression) for label in group.split(", ")}


def test_metrics_are_found_in_expressions() -> None:
    expression = 'sum by (le, x) (rate(a_total{job="b_c"}[5m])) / 1e3 > 0.5 * d_e offset 5m or up'
    assert metrics_of(expression) == {"a_total", "d_e", "up"}
    assert grouped_by(expression) == {"le", "x"}


@pytest.mark.parametrize("name", EXPRESSIONS)
class TestExpressions:
    def test_metrics_are_exposed(self, name: str, exposed: Exposed) -> None:
        metrics = metrics_of(EXPRESSIONS[name])
        assert metrics
        assert metrics <= exposed.names | PROMETHEUS_METRICS

    def test_labels_are_exposed(self, name: str, exposed: Exposed) -> None:
        metrics = metrics_of(EXPRESSIONS[name])
        labels = set().union(*(exposed.labels.get(metric, {}) for metric in metrics))
        assert grouped_by(EXPRESSIONS[name]) <= labels | TARGET_LABELS

    def test_values_of_labels_occur(self, name: str, exposed: Exposed) -> None:
        for metric, matchers in SELECTOR.findall(EXPRESSIONS[name]):
            for label, operator, wanted in MATCHER.findall(matchers):
                if label in TARGET_LABELS:
                    continue
                occurring = exposed.labels[metric][label]
                patterns = wanted.split("|") if "~" in operator else [re.escape(wanted)]
                for pattern in patterns:
                    assert any(re.fullmatch(pattern, each) for each in occurring), pattern


class TestDashboard:
    def test_ids_are_unique(self) -> None:
        ids = [panel["id"] for panel in DASHBOARD["panels"]]
        assert len(set(ids)) == len(ids)

    def test_no_panels_overlap(self) -> None:
        for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert beside or above, (one, other)

    def test_panels_lie_in_the_grid(self) -> None:
        for panel in DASHBOARD["panels"]:
            at = panel["gridPos"]
            assert 0 <= at["x"] < at["x"] + at["w"] <= 24, panel["title"]

    @pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']} {panel['title']}")
    def test_panels_explain_themselves(self, panel: dict[str, Any]) -> None:
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS

    @pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']} {panel['title']}")
    def test_legends_name_labels_that_are_there(
        self, panel: dict[str, Any], exposed: Exposed
    ) -> None:
        for target in panel["targets"]:
            expression = target["expr"]
            known = [exposed.labels.get(metric, {}) for metric in metrics_of(expression)]
            left = grouped_by(expression) or TARGET_LABELS.union(*known)
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left

    def test_panels_ask_for_the_relays_and_bridges_that_were_chosen(self) -> None:
        for name, expression in OF_DASHBOARD.items():
            for metric in metrics_of(expression):
                chosen = CHOSEN["bridge" if "_bridge_" in metric else "relay"]
                asked = expression.count(metric + chosen)
                assert asked == len(re.findall(rf"\b{metric}\b", expression)), name


class TestAlerts:
    def test_all_are_found(self) -> None:
        assert len(ALERT_EXPRESSIONS) == ALERTS.read_text().count("alert:") > 0

    @pytest.mark.parametrize("name", ALERT_EXPRESSIONS)
    def test_each_says_what_to_do_and_how_soon(self, name: str) -> None:
        (text,) = re.findall(rf"- alert: {name}\n(.*?)(?=\n\n|\Z)", ALERTS.read_text(), re.S)
        assert re.search(r"^ +severity: (critical|warning)$", text, re.M)
        assert re.search(r"^ +summary: [A-Z].+[^.]$", text, re.M)
        assert re.search(r"^ +description: >-\n( {12}.+\n?)+\Z", text, re.M)
        assert text.rstrip().endswith(".")

    @pytest.mark.parametrize("name", ALERT_EXPRESSIONS)
    def test_each_has_a_case_that_fires_and_one_that_does_not(self, name: str) -> None:
        (text,) = re.findall(
            rf"- name: {name}(?: #[^\n]*)?\n(.*?)(?=\n\n|\Z)", TESTS.read_text(), re.S
        )
        series, expected = text.split("promql_expr_test:")
        assert set(re.findall(r'instance="(\w+)"', series)) == {"firing", "quiet"}
        assert re.findall(r'instance="(\w+)"', expected) == ["firing"]

    def test_rules_are_accepted_by_promtool(self) -> None:
        run(tool("promtool"), "check", "rules", ALERTS)

    def test_rules_fire_and_are_quiet(self) -> None:
        run(tool("promtool"), "test", "rules", TESTS)


def test_scrape_config_is_accepted_by_promtool() -> None:
    run(tool("promtool"), "check", "config", SCRAPE)


def test_metrics_are_accepted_by_promtool(exposed: Exposed) -> None:
    for text in exposed.texts:
        assert run(tool("promtool"), "check", "metrics", given=text) == ""


class Prometheus:
    """A real Prometheus on a port of its own that scrapes both, with the alerts loaded.

    Takes :data:`SCRAPE` as it is, but for the addresses, and the interval, which is a second.
    """

    def __init__(self, path: str, relay: Relay, bridge: BridgeProcess, directory: Path) -> None:
        config = SCRAPE.read_text()
        for installed, own in ((9750, relay.port), (9751, bridge.port)):
            config = config.replace(f"127.0.0.1:{installed}", f"127.0.0.1:{own}")
        (directory / "scrape.yml").write_text(re.sub(r"interval: \d+s", "interval: 1s", config))
        shutil.copy(ALERTS, directory)
        self._process = subprocess.Popen(
            [
                path,
                f"--config.file={directory}/scrape.yml",
                f"--storage.tsdb.path={directory}/data",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._port = self._wait_for_port()

    def _wait_for_port(self) -> int:
        """Read the log until it is ready; return the port that it listens on."""
        assert self._process.stderr is not None
        watchdog = threading.Timer(PATIENCE, self._process.kill)  # which ends the log
        watchdog.start()
        log = ""
        for line in self._process.stderr:
            log += line
            if "Server is ready" in line:
                break
        watchdog.cancel()
        found = re.search(r'"?Listening on"? address=127.0.0.1:(\d+)', log)
        assert found, log
        return int(found[1])

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE)

    def get(self, path: str, **query: str) -> Any:
        """Return the data of an answer of the API."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """Return the present values of an expression."""
        values: list[Any] = self.get("query", query=expression)["result"]
        return values

    def rules(self) -> list[Any]:
        """Return the alerts, and how they stand."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def wait_for(self, holds: Callable[[], object]) -> None:
        """Wait until something is true of what it has: it tells nobody when that is so."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, "never came true"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def prometheus(
    relay: Relay, bridge: BridgeProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    started = Prometheus(tool("prometheus"), relay, bridge, directory)
    try:
        started.wait_for(lambda: len(started.query("up == 1")) == 2)
        make_traffic(relay)  # rates are of what comes between two scrapes
        refused = 'signal_relay_connections_refused_total{reason="host"}'
        started.wait_for(lambda: started.query(f"increase({refused}[1m]) > 0"))
        crossed = 'signal_relay_bridge_messages_total{way="outward"}'
        started.wait_for(lambda: started.query(f"increase({crossed}[1m]) > 0"))
        yield started
    finally:
        started.stop()


class TestPrometheus:
    @pytest.mark.parametrize("name", PANEL_EXPRESSIONS)
    def test_each_panel_shows_something(self, name: str, prometheus: Prometheus) -> None:
        expression = re.sub(r"\$__\w+", "1m", PANEL_EXPRESSIONS[name])
        series = prometheus.query(re.sub(r"\$(?:instance|bridge)", ".*", expression))
        assert series
        if name in LIVELY:
            assert any(float(value) > 0 for _, value in (each["value"] for each in series))

    def test_panels_with_traffic_are_there(self) -> None:
        assert set(PANEL_EXPRESSIONS) >= LIVELY

    def test_alerts_are_evaluated(self, prometheus: Prometheus) -> None:
        prometheus.wait_for(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()))
        assert {rule["name"]: rule["health"] for rule in prometheus.rules()} == dict.fromkeys(
            ALERT_EXPRESSIONS, "ok"
        )

    def test_alerts_tell_what_is_wrong_and_no_more(self, prometheus: Prometheus) -> None:
        def firing(severity: str) -> set[str]:
            rules = [each for each in prometheus.rules() if each["state"] == "firing"]
            return {each["name"] for each in rules if each["labels"]["severity"] == severity}

        prometheus.wait_for(lambda: firing("warning") >= WRONG)
        assert firing("critical") == set()
