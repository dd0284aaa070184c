"""The relay's end: whether a bridge may listen there, and from where on it would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from alphapulse_relay.bridge.envelope import Place
from alphapulse_relay.bridge.state import State
from alphapulse_relay.cli.board import size
from alphapulse_relay.cli.bridge.ends import Ends, Refusal
from alphapulse_relay.cli.findings import Finding, note, ok, wrong
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.words import Failure, printable
from alphapulse_relay.client.bookmark import Bookmark
from alphapulse_relay.client.core import Missed, Synced
from alphapulse_relay.protocol_v2.control import SyncState

if TYPE_CHECKING:
    from alphapulse_relay.bridge.stream import Last

_RULES = (
    "give the bridge an [[access]] rule with subscribe, replay and publish, in the relay's file"
)
_COPY = (
    "copy it first if it is wanted elsewhere (signal-relay journal export), and give the relay a "
    "larger --journal-size"
)


def check_relay(ends: Ends) -> Iterator[Finding]:
    """Whether it is there, and lets a bridge listen, also to what came while it was away."""
    address, head = ends.settings.relay, ends.head
    if isinstance(head, Refusal):
        what = f"{address} does not let a bridge listen: {printable(head.message)}"
        yield wrong(what, _RULES if head.is_forbidden else _more(address))
        return
    if isinstance(head, Failure):
        what = f"no relay at {address}: {printable(head.message)}"
        yield wrong(what, f"start the relay, or give its address: --relay; {_more(address)}")
        return
    yield ok(
        f"{address} lets a bridge listen: its journal is {head.epoch:x}, its head at position "
        f"{head.position}"
    )
    try:
        _missed(ends, head.position, head.epoch)
    except Refusal as refusal:
        what = f"what comes while there is no bridge would not cross: {printable(refusal.message)}"
        yield wrong(what, _RULES)


def _more(address: str) -> str:
    option = f" --socket {address}" if address.startswith(("/", "@")) else ""
    return f"signal-relay doctor{option} on the relay's host tells more"


def check_outward(ends: Ends) -> Iterator[Finding]:
    """From where on the relay's messages would go to NATS, and whether it still has them."""
    head = ends.head
    if isinstance(head, Failure) or isinstance(ends.file, Failure):
        return
    last, state = _last(ends), ends.file.state
    if last is None and not (state.outward or state.first):
        yield ok(
            f"a first start: what comes behind the head, position {head.position}, would cross"
        )
        return
    place = _behind(ends, last, state, head.epoch)
    if place.epoch != head.epoch:
        yield note(
            f"the relay's journal is not {place.epoch:x}, of which {_words(place)} has crossed: "
            "all that it has would cross",
            "see whether --relay and --name are those of this bridge",
        )
    elif place.position > head.position:
        yield note(
            f"{_words(place)} has crossed, beyond the relay's head, {head.position}: its journal "
            "has lost its end, and what came after that would cross"
        )
    else:
        with suppress(Refusal):  # which the relay's check tells
            yield _kept(ends, place, head)


def _last(ends: Ends) -> Last | None:
    """Return the last message of this relay in the stream, as far as that is known."""
    view = ends.nats
    if view is None or isinstance(view, Failure) or view.stream is None:
        return None
    return view.stream.last


def _behind(ends: Ends, last: Last | None, state: State, epoch: int) -> Place:
    from alphapulse_relay.bridge.check import outward_place  # noqa: PLC0415

    return outward_place(ends.settings, last, state, ends.asked, epoch)


def _words(place: Place) -> str:
    more = f" and {counted(place.taken, 'message')}" if place.taken else ""
    return f"position {place.position}{more}"


def _kept(ends: Ends, place: Place, head: Bookmark) -> Finding:
    """Tell how far a place is behind the head, and what of that the relay has no more."""
    missed = _missed(ends, place.position, place.epoch)
    behind = head.position - place.position
    where = f"would go on behind {_words(place)}, " + (
        f"at most {size(behind)} before the head" if behind else "the head: nothing waits"
    )
    if missed is None:
        return ok(where)
    lost, why = missed.gap.stop - missed.gap.start, missed.gap.reason.name.lower()
    return wrong(f"{where}; {size(lost)} of that would not cross (relay_gap: {why})", _COPY)


def _missed(ends: Ends, position: int, epoch: int) -> Missed | None:
    """Return the gap that lies right behind a position, if one does. Raises :class:`Failure`."""
    with closing(ends.behind(position, epoch)) as events:
        for event in events:
            if isinstance(event, Missed):
                return event
            if not isinstance(event, Synced) or event.state is SyncState.LIVE:
                break
    return None
