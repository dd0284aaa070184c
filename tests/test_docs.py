"""What the documents list is what the code has, each word of it."""

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from alphapulse_relay.bridge.account import Loss
from alphapulse_relay.bridge.option_table import BRIDGE
from alphapulse_relay.hub.peer import Ending, Miss, Refusal, State
from alphapulse_relay.option_table import CONFIG, RELAY, Option, Table
from alphapulse_relay.protocol_v2.errors import Rejection
from tests.hub.fakes import make_clock
from tests.web.journaled import JournaledHub
from tests.web.test_metrics import Scrape

ROOT = Path(__file__).parent.parent
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DESIGN = (ROOT / "docs" / "design.md").read_text()
BRIDGE_CHAPTER = OPERATIONS.partition("\n## The bridge\n")[2]
ALERTS = (ROOT / "etc" / "prometheus" / "alerts.yml").read_text()
OF_COMMANDS = {"SIGNAL_RELAY_CONNECT"}
"""Environment variables that belong to no table of options."""


def first_cells(heading: str, document: str = OPERATIONS) -> list[str]:
    """Return the first cells of the table that has this heading."""
    (table,) = re.findall(rf"^\| {re.escape(heading)} \|.*\n((?:\|.*\n)+)", document, re.M)
    return [line.split("|")[1].strip() for line in table.splitlines()[1:]]


def words(cells: Iterable[str]) -> list[str]:
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize(
    ("heading", "enum"),
    [
        ("why a connection ended", Ending),
        ("why a connection was refused", Refusal),
        ("why a message was dropped", Rejection),
        ("why a connected peer missed messages", Miss),
        ("how a peer stands", State),
        ("why messages do not cross", Loss),
    ],
)
def test_reasons(heading: str, enum: type[StrEnum]) -> None:
    assert sorted(words(first_cells(heading))) == sorted(enum)


@pytest.mark.parametrize(
    ("heading", "table"), [("option", RELAY), ("option of the bridge", BRIDGE)]
)
def test_options(heading: str, table: Table) -> None:
    listed = [re.search(r"--([a-z-]+)", cell) for cell in first_cells(heading)]
    assert [each[1] for each in listed if each] == [option.name for option in table.options]


@pytest.mark.parametrize("option", BRIDGE.options, ids=lambda option: option.name)
def test_defaults_of_the_bridge(option: Option) -> None:
    (cell,) = re.findall(rf"^\| `--{option.name}[ `][^|]*\| ([^|]*) \|", BRIDGE_CHAPTER, re.M)
    assert cell.replace("`", "").startswith(option.default.replace("host name", "name of the host"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_environment(path: Path) -> None:
    known = {table.variable(each) for table in (RELAY, BRIDGE) for each in (*table.options, CONFIG)}
    assert set(re.findall(r"\bSIGNAL_RELAY_[A-Z_]*[A-Z]", path.read_text())) <= known | OF_COMMANDS


def test_metrics(tmp_path: Path) -> None:
    hub = JournaledHub(make_clock(), tmp_path)
    found = names(Scrape(hub).families)
    hub.finish()
    assert set(documented("metric")) - {"process_*"} == found


def test_metrics_of_the_bridge(tmp_path: Path) -> None:
    pytest.importorskip("nats")
    from alphapulse_relay.bridge.metrics import BridgeCollector
    from tests.bridge.bridges import make_service

    families = list(BridgeCollector(make_service(tmp_path).bridge).collect())
    listed = documented("metric of the bridge")
    assert set(listed) == names(families)
    for family in families:
        told = listed[f"{family.name}_total" if family.type == "counter" else family.name]
        assert family.type == "info" or told == {key for s in family.samples for key in s.labels}


def names(families: Iterable[Metric]) -> set[str]:
    """Return the names of metrics, but of the process's own, as Prometheus has them."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if not family.name.startswith("process_")
    }


def documented(heading: str) -> dict[str, set[str]]:
    """Return the metrics of the table that has this heading, each with its labels."""
    found = (re.fullmatch(r"(.*?)(?:\{(.*)\})?", word) for word in words(first_cells(heading)))
    return {
        match[1].removesuffix("_info"): set(match[2].split(",")) if match[2] else set()
        for match in found
        if match
    }


def test_modules_of_the_bridge() -> None:
    package = ROOT / "alphapulse_relay" / "bridge"
    listed = words(first_cells("module of the bridge", DESIGN))
    assert sorted([*listed, "__init__.py"]) == sorted(path.name for path in package.glob("*.py"))


def test_alerts_of_the_bridge() -> None:
    alerts = re.findall(r"- alert: (SignalRelayBridge\w+)\n(?:.*\n)*?.*severity: (\w+)", ALERTS)
    listed = re.findall(r"^\| `(SignalRelayBridge\w+)` \| (\w+) \|", BRIDGE_CHAPTER, re.M)
    assert words(first_cells("alert of the bridge")) == [name for name, _ in alerts]
    assert listed == alerts


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]*(?:#[^)]*)?)\)", path.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.M)
            assert anchor in {slug(heading) for heading in headings}, target


def slug(heading: str) -> str:
    """Return the anchor of a heading, as web sites for repositories make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
