"""What the documents list is what the code has, each word of it."""

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import pytest

from alphapulse_relay.hub.peer import Ending, Miss, Refusal, State
from alphapulse_relay.option_table import OPTIONS
from alphapulse_relay.protocol_v2.errors import Rejection
from tests.hub.fakes import make_clock
from tests.web.journaled import JournaledHub
from tests.web.test_metrics import Scrape

ROOT = Path(__file__).parent.parent
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def first_cells(heading: str) -> list[str]:
    """Return the first cells of the table that has this heading."""
    (table,) = re.findall(rf"^\| {re.escape(heading)} \|.*\n((?:\|.*\n)+)", OPERATIONS, re.M)
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
    ],
)
def test_reasons(heading: str, enum: type[StrEnum]) -> None:
    assert sorted(words(first_cells(heading))) == sorted(enum)


def test_options() -> None:
    listed = [re.search(r"--([a-z-]+)", cell) for cell in first_cells("option")]
    assert [each[1] for each in listed if each] == [option.name for option in OPTIONS]


def test_metrics(tmp_path: Path) -> None:
    hub = JournaledHub(make_clock(), tmp_path)
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Scrape(hub).families
        if not family.name.startswith("process_")
    }
    hub.finish()
    listed = {word.partition("{")[0].removesuffix("_info") for word in words(first_cells("metric"))}
    assert listed - {"process_*"} == found


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
