"""From where on the stream's messages would come here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from alphapulse_relay.bridge.state import StateFile
from alphapulse_relay.cli.bridge.ends import Ends
from alphapulse_relay.cli.bridge.nats import stream_of
from alphapulse_relay.cli.findings import Finding, note, ok
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.words import Failure, printable

if TYPE_CHECKING:
    from alphapulse_relay.bridge.check import StreamView

_KEEP = "the stream keeps too little: give it more room (nats stream edit), or start bridges sooner"


class _Place(NamedTuple):
    """Up to which sequence all has been ``done``, and behind which one a bridge would go ``on``.

    ``had`` is up to where it had come in what the stream has lost, 0 if that has lost nothing;
    ``seen`` up to where all has come by what the bridge itself remembers: with ``--take-types`` it
    tells of what is gone behind that, as NATS counts it as done.
    """

    done: int
    on: int
    had: int = 0
    seen: int = 0
    is_first_start: bool = False


def check_inward(ends: Ends) -> Iterator[Finding]:
    """From where on they would come, and whether the stream has all of it."""
    stream, file = stream_of(ends), ends.file
    if stream is None or isinstance(file, Failure):
        return
    try:
        place = _place(ends, file, stream)
    except Failure as failure:
        yield note(f"whether the stream is what it was is not known: {printable(failure.message)}")
        return
    if place.is_first_start:
        yield ok(
            f"a first start: what comes behind message {place.done}, the last now, would come here"
        )
        return
    yield _goes_on(place, stream)
    first = stream.info.state.first_seq
    begin = (place.seen if ends.settings.take_types else place.on) + 1
    if begin < first:
        yield note(
            f"messages {begin} to {first - 1} are not in the stream any more: what of them "
            "was for this relay, and was not taken, does not come (stream_gap)",
            _KEEP,
        )


def _place(ends: Ends, file: StateFile, stream: StreamView) -> _Place:
    """Return where a bridge begins, as it finds it when it starts (:meth:`Progress.begin`)."""
    info, state, acknowledged = stream.info, file.state, _acknowledged(stream)
    if state.created != str(info.created):
        if acknowledged is not None:
            return _Place(acknowledged, acknowledged, seen=acknowledged)
        since = info.created.timestamp() if info.created else 0.0
        if state.created and state.gone < since:
            return _Place(0, 0)
        return _Place(info.state.last_seq, info.state.last_seq, is_first_start=True)
    if state.stored:
        same = ends.same_until(info, state.done, state.stored)
        if same != state.done:
            return _Place(same, same, had=state.done, seen=same)
    seen = max(state.done, min(state.caught_up, info.state.last_seq))
    done, parts = state.done, [first - 1 for first in state.parts.values()]
    if acknowledged is not None and acknowledged <= info.state.last_seq:
        done = max(done, acknowledged)
    return _Place(done, min([done, *parts]), seen=min([seen, *parts]))


def _acknowledged(stream: StreamView) -> int | None:
    """Return up to which sequence NATS knows all to be taken; None if there is no consumer."""
    if stream.consumer is None:
        return None
    return stream.consumer.ack_floor.stream_seq if stream.consumer.ack_floor else 0


def _goes_on(place: _Place, stream: StreamView) -> Finding:
    consumer, last = stream.consumer, stream.info.state.last_seq
    if place.had:
        return note(
            f"the stream has lost what it had behind message {place.done} when {place.had} had "
            f"come: what it has there now, {last - place.done:,} at most, is new and would come"
        )
    if place.done > last:
        return note(
            f"message {place.done} has come here, and the stream ends at {last}: it lost its end, "
            f"and what it is given up to {place.done} would not come"
        )
    where = f"would go on behind message {place.on}"
    if place.on < place.done:
        where += ", where a run begins that has not come as a whole"
    if consumer is None:
        return ok(f"{where}, {last - place.on:,} before the last: no consumer yet")
    pending = (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)
    runs = ", and a bridge asks for more just now" if consumer.num_waiting else ""
    return ok(
        f"{where}: {counted(pending, 'NATS message', ',')} to come for consumer "
        f"{consumer.name}{runs}"
    )
