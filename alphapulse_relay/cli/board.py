"""The status as a board of tables, fit to the terminal's width.

Knows rich and snapshots; neither HTTP nor time. All text of a relay or a peer is put in ``Text``:
never read as markup.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.snapshot import Departed, Journal, Party, Peer, Snapshot

NARROW = 60
"""Columns of a terminal below which only what is needed most is shown."""
WIDE = 100
"""Columns from which all is shown."""
DEPARTED_SHOWN = 5
_STATES = {"live": "green", "behind": "yellow", "muted": "red", "replaying": "cyan"}
_UNITS = ("B", "K", "M", "G", "T")
_DAY = 86_400

Rates = Mapping[int, tuple[float, float]]
"""Messages a second, in and out, by the peer's number."""


@dataclass(frozen=True)
class Flow:
    """Messages a second between two snapshots: in, out, and those of each peer."""

    received: float
    delivered: float
    peers: Rates


def flow(before: Snapshot | None, now: Snapshot) -> Flow | None:
    """Return what flowed between two snapshots; None if they are not of one relay."""
    if before is None or before.started_at != now.started_at or before.uptime >= now.uptime:
        return None
    seconds = now.uptime - before.uptime
    known = {peer.number: peer for peer in before.peers}
    return Flow(
        (now.messages_in - before.messages_in) / seconds,
        (now.messages_out - before.messages_out) / seconds,
        {
            peer.number: (
                (peer.messages_in - known[peer.number].messages_in) / seconds,
                (peer.messages_out - known[peer.number].messages_out) / seconds,
            )
            for peer in now.peers
            if peer.number in known
        },
    )


def board(
    now: Snapshot, rates: Flow | None, width: int, rows: int | None = None, note: str = ""
) -> RenderableType:
    """Return all that is shown, ``width`` columns wide, with at most so many ``rows`` of peers.

    ``note`` is what there is to say of the snapshot itself.
    """
    parts: list[RenderableType] = [Text(note, style="bold red")] if note else []
    parts += [_head(now, rates), Text(), _peers(now.peers, rates, width, rows)]
    if rows is not None and len(now.peers) > rows:
        parts.append(Text(f"… and {len(now.peers) - rows} more", style="dim"))
    if now.departed:
        parts += [Text(), _departed(now.departed, width)]
    return Group(*parts)


def _head(now: Snapshot, rates: Flow | None) -> Text:
    text = Text.assemble(
        ("Signal Relay", "bold"), f" {now.version}, pid {now.pid}, up {duration(now.uptime)}, ",
        ("ready", "green") if now.ready else ("not ready", "red"),
    )  # fmt: skip
    text.append(f"\nreceived {_total(now.messages_in, rates.received if rates else None)}")
    text.append(f"\ndelivered {_total(now.messages_out, rates.delivered if rates else None)}")
    text.append("\ndropped ").append_text(_counts(now.dropped))
    text.append(", missed ").append_text(_counts(now.missed))
    text.append(", held ").append(str(now.held), "yellow" if now.held else "")
    text.append("\nrefused ").append_text(_counts(now.refused))
    return text.append("\njournal ").append_text(_journal(now.journal))


def _journal(journal: Journal | None) -> Text:
    if journal is None:
        return Text("none")
    text = Text(f"{journal.directory}, {size(journal.used)} of {size(journal.size)}")
    if journal.damages:
        text.append(f", {counted(journal.damages, 'place')} damaged", "yellow")
    if journal.failure:
        text.append(f"\n{journal.failure}", "bold red")
    return text


def _total(messages: int, rate: float | None) -> str:
    return counted(messages, "message", ",") + ("" if rate is None else f", {rate:,.0f}/s")


def _counts(counts: Mapping[str, int]) -> Text:
    if not counts:
        return Text("0")
    each = ", ".join(f"{reason} {number:,}" for reason, number in counts.items())
    return Text(f"{sum(counts.values()):,} ({each})", style="yellow")


def _peers(peers: Iterable[Peer], rates: Flow | None, width: int, rows: int | None) -> Table:
    """Return the table of peers: oldest first, or what matters if there is not room for all."""
    everybody = list(peers)
    if rows is not None and len(everybody) > rows:
        everybody = sorted(everybody, key=lambda peer: _weight(peer, rates), reverse=True)[:rows]
    lines = [_peer_cells(peer, rates, width) for peer in everybody]
    empty = {name for name in _WHERE_ANY if not any(cells.get(name) for cells in lines)}
    headings = [name for name in _peer_cells(_NOBODY, rates, width) if name not in empty]
    right = {"#", "pid", "uid", "in/s", "out/s", "in", "out", "behind"}
    table = _table("peers", headings, right=right)
    for cells in lines:
        table.add_row(*(cells[name] for name in headings))
    return table


_WHERE_ANY = ("rule", "certificate")
"""Columns that are there only if they are not empty."""
_NOBODY = Peer(0, None, None, "", "", 0, 0, rule="", state="", replaying=False, bytes_behind=0)


def _weight(peer: Peer, rates: Flow | None) -> tuple[bool, bool, float]:
    """Return what sorts peers: those muted or behind are the last, before them who publishes."""
    return peer.state != "live", peer.messages_in > 0, _busy(peer, rates)


def _busy(peer: Peer, rates: Flow | None) -> float:
    if rates is None:
        return peer.messages_in + peer.messages_out
    return sum(rates.peers.get(peer.number, (0.0, 0.0)))


def _peer_cells(peer: Peer, rates: Flow | None, width: int) -> dict[str, Text]:
    """Return a row by heading; a narrower terminal has fewer of them."""
    cells = {"#": _number(peer.number)} if width >= WIDE else {}
    if width >= NARROW:
        cells |= {"pid": _number(peer.pid), "uid": _number(peer.uid)}
    state = "replaying" if peer.replaying else peer.state
    cells |= {"name": _name(peer), "state": Text(state, _STATES.get(state, ""))}
    if rates is not None:
        inward, outward = rates.peers.get(peer.number, (None, None))
        cells |= {"in/s": _rate(inward), "out/s": _rate(outward)}
    if rates is None or width >= WIDE:
        cells |= {"in": _number(peer.messages_in), "out": _number(peer.messages_out)}
    cells |= {"behind": Text(size(peer.bytes_behind))}
    if width >= NARROW:
        cells |= {name: _given(getattr(peer, name)) for name in _WHERE_ANY}
    return cells


def _departed(departed: Iterable[Departed], width: int) -> Table:
    """Return the table of the latest disconnects, latest first."""
    latest = sorted(departed, key=lambda party: party.at, reverse=True)[:DEPARTED_SHOWN]
    rows = [_departed_cells(party, width) for party in latest]
    table = _table("departed", list(rows[0]), right={"#", "pid", "uid", "in", "out"})
    for row in rows:
        table.add_row(*row.values())
    return table


def _departed_cells(party: Departed, width: int) -> dict[str, Text]:
    at = datetime.fromtimestamp(party.at).astimezone()
    cells = {"at": Text(f"{at:%Y-%m-%d %H:%M:%S}" if width >= WIDE else f"{at:%H:%M:%S}")}
    cells |= {"#": _number(party.number)} if width >= WIDE else {}
    cells |= {"pid": _number(party.pid)} if width >= NARROW else {}
    cells |= {"uid": _number(party.uid)} if width >= WIDE else {}
    cells |= {"name": _name(party), "reason": Text(party.reason)}
    if width >= NARROW:
        cells |= {"in": _number(party.messages_in), "out": _number(party.messages_out)}
    return cells


def _table(title: str, headings: Iterable[str], right: set[str]) -> Table:
    """Return an empty table; names give way where there is not room for all."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=heading not in {"name", *_WHERE_ANY},
            overflow="ellipsis",
            header_style="dim",
        )
    return table


def _name(party: Party) -> Text:
    return _given(party.name)


def _given(text: str) -> Text:
    """Return a text that others choose, which may be long."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _number(number: int | None) -> Text:
    return Text("" if number is None else str(number))


def _rate(rate: float | None) -> Text:
    return Text("" if rate is None else f"{rate:,.0f}")


def size(number: int) -> str:
    """Return bytes as a person reads them, in powers of 1024."""
    value, unit = float(number), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{number} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Return a duration as a person reads it."""
    days, rest = divmod(int(seconds), _DAY)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
