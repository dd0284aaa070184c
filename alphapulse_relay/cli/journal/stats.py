"""``signal-relay journal stats``: how much of what the journal holds.

Knows messages' types and sources, and how sums of them are shown.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alphapulse_relay.cli.journal.files import (
    JournalCommand,
    journal_option,
    open_journal,
    tell_lost,
)
from alphapulse_relay.cli.journal.tables import console, empty_table, moment
from alphapulse_relay.cli.layouts import layouts_option
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.times import since_option
from alphapulse_relay.cli.words import examples
from alphapulse_relay.journal.reader import Entry
from alphapulse_relay.protocol_v2.document import read_contents, time_text
from alphapulse_relay.protocol_v2.header import Header
from alphapulse_relay.protocol_v2.signals import SignalTable


@dataclass
class Sum:
    """Messages of one kind: how many, how large, and when the first and the last came (ns)."""

    messages: int = 0
    size: int = 0
    first: int = 0
    last: int = 0

    def add(self, entry: Entry) -> None:
        """Count a message."""
        self.messages += 1
        self.size += len(entry.message)
        self.first = self.first or entry.time
        self.last = max(self.last, entry.time)

    def document(self) -> dict[str, object]:
        """Return it for JSON; a time that is not known is null."""
        first, last = (time_text(time) if time else None for time in (self.first, self.last))
        return {"messages": self.messages, "bytes": self.size, "first": first, "last": last}


@dataclass
class Sums:
    """All messages, and those of each type and source. One with two types counts for both."""

    total: Sum = field(default_factory=Sum)
    types: dict[int, Sum] = field(default_factory=dict)
    sources: dict[int, Sum] = field(default_factory=dict)
    without: Sum = field(default_factory=Sum)
    """Messages in which no TLV can be read."""

    def add(self, entry: Entry) -> None:
        """Count a message."""
        header = Header.unpack(entry.message)
        types = {tlv.type for tlv in read_contents(entry.message, header).tlvs}
        self.total.add(entry)
        self.sources.setdefault(header.publisher, Sum()).add(entry)
        for tlv_type in types:
            self.types.setdefault(tlv_type, Sum()).add(entry)
        if not types:
            self.without.add(entry)


@click.command(
    cls=JournalCommand,
    epilog=examples(
        "signal-relay journal stats --since 24h",
        "signal-relay journal stats --json | jq '.sources[] | {source, messages}'",
    ),
)
@journal_option
@since_option
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON document.")
@layouts_option
def stats(directory: Path, since: int | None, as_json: bool, table: SignalTable) -> None:
    """Tell how many messages and bytes the journal holds, by type and by source.

    With the time (UTC) at which the relay received the first and the last of them. A message that
    holds TLVs of two types counts for both. What is damaged is not counted, and told; then the exit
    status is 1.
    """
    shown = console()
    found = open_journal(directory)
    sums = Sums()
    for entry in found.entries(since=since):
        sums.add(entry)
    if as_json:
        click.echo(json.dumps(_document(sums, table), indent=2))
    else:
        _show(sums, table, shown)
    tell_lost(found.lost)


def _document(sums: Sums, layouts: SignalTable) -> dict[str, object]:
    return {
        "total": sums.total.document(),
        "types": [
            {"type": number, "name": layouts.name(number), **each.document()}
            for number, each in sorted(sums.types.items())
        ],
        "without_type": sums.without.document(),
        "sources": [
            {"source": number, **each.document()} for number, each in sorted(sums.sources.items())
        ],
    }


def _show(sums: Sums, layouts: SignalTable, shown: Console) -> None:
    types = _table("type", sums.types, lambda number: f"{number} {layouts.name(number)}")
    if sums.without.messages:
        _add_row(types, "none that can be read", sums.without)
    shown.print(types)
    shown.print()
    shown.print(_table("source", sums.sources, str))
    size = counted(sums.total.size, "byte", ",")
    click.echo(f"\n{counted(sums.total.messages, 'message', ',')}, {size}")


def _table(heading: str, sums: Mapping[int, Sum], name: Callable[[int], str]) -> Table:
    rows = empty_table((heading,), ("messages", "bytes"), ("first", "last"))
    for number, each in sorted(sums.items(), key=lambda item: -item[1].messages):
        _add_row(rows, name(number), each)
    return rows


def _add_row(rows: Table, name: str, each: Sum) -> None:
    figures = (f"{each.messages:,}", f"{each.size:,}", moment(each.first), moment(each.last))
    rows.add_row(Text(name), *figures)
