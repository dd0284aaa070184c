"""The end at NATS: its servers, the stream, and whose messages are in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from alphapulse_relay.bridge.envelope import relay_of
from alphapulse_relay.bridge.state import StateFile
from alphapulse_relay.cli.board import duration, size
from alphapulse_relay.cli.bridge.ends import Ends
from alphapulse_relay.cli.findings import Finding, note, ok, wrong
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.words import Failure, printable

if TYPE_CHECKING:
    from alphapulse_relay.bridge.check import ServerView, StreamView, View

SEVERAL_SUBJECTS = (2, 10)
"""The first version of nats-server whose consumers know more than one subject."""
NAMED = 20
"""Relays that are named: beyond, they are counted only."""
NEARLY_FULL = 0.9
"""Of a stream's size: nearly all that it keeps is there."""
_OWN_HOST = ("127.", "localhost", "::1")
_UP = "see whether it runs, listens there, and knows who we are: --nats, --credentials, --tls-ca, …"
_ALLOW = (
    "enable JetStream on the servers, and allow the user what docs/operations.md lists "
    "(Permissions in NATS)"
)


def _view(ends: Ends) -> View | None:
    """Return what is at NATS; None if none of it is known, which the servers' check tells."""
    view = ends.nats
    return None if view is None or isinstance(view, Failure) or not view.is_reached else view


def stream_of(ends: Ends) -> StreamView | None:
    """Return the stream, None if there is none or it is not known."""
    view = _view(ends)
    return None if view is None else view.stream


# Servers


def check_servers(ends: Ends) -> Iterator[Finding]:
    """Which of them let a bridge in."""
    view = ends.nats
    if isinstance(view, Failure):
        yield wrong(f"a file for TLS or credentials cannot be used: {view.message}", "see to it")
    elif view is not None:
        for server in view.servers:
            yield _server(ends, server, is_needed=not view.is_reached)


def _server(ends: Ends, server: ServerView, *, is_needed: bool) -> Finding:
    if server.trouble is not None:
        what = f"{server.url}: no connection: {printable(server.trouble)}"
        return wrong(what, _UP) if is_needed else note(what, _UP)
    kind = "encrypted" if server.is_encrypted else "not encrypted"
    text = (
        f"{server.url}: version {'.'.join(map(str, server.version))}, {kind}, round trip "
        f"{server.round_trip * 1e3:.1f} ms, takes messages of {size(server.max_payload)}"
    )
    chosen = ends.settings.take_from or ends.settings.take_types
    if chosen and server.version < SEVERAL_SUBJECTS:
        return wrong(
            f"{text}: too old for --take-from and --take-types", "a server of 2.10 is needed"
        )
    if not server.is_encrypted and not (urlsplit(server.url).hostname or "").startswith(_OWN_HOST):
        return note(f"{text}: who is on the way reads all", "use tls:// for what leaves the host")
    return ok(text)


# The stream


def check_jetstream(ends: Ends) -> Iterator[Finding]:
    """Whether it is enabled, and answers this user."""
    view = _view(ends)
    if view is None:
        return
    if view.trouble is None:
        yield ok("it is enabled, and answers")
    else:
        yield wrong(printable(view.trouble), _ALLOW)


def check_stream(ends: Ends) -> Iterator[Finding]:
    """Whether there is one that bridges can use, or it would be made."""
    view, name = _view(ends), ends.settings.stream
    if view is None or view.trouble is not None:
        return
    if view.stream is None:
        yield _absent(ends, view)
    elif view.stream.faults:
        yield wrong(
            f"stream {name}: {'; '.join(view.stream.faults)}",
            "change it (nats stream edit), or give another --stream and --subject",
        )
    else:
        yield from _copies(name, view.stream)


def _copies(name: str, stream: StreamView) -> Iterator[Finding]:
    config, cluster = stream.info.config, stream.info.cluster
    text = (
        f"stream {name} is there, and fits: kept by {counted(config.num_replicas or 1, 'server')}"
    )
    others = (cluster.replicas if cluster else None) or []
    if away := sorted(str(each.name) for each in others if each.offline):
        yield note(f"{text}, of which not all are there: {_some(away)}", "start them")
    else:
        yield ok(text)


def _absent(ends: Ends, view: View) -> Finding:
    ours = ends.settings
    if view.taken_by is not None:
        return wrong(
            f"there is no stream {ours.stream}, and {ours.subject}.> is of stream {view.taken_by}",
            "give that one as --stream, or another --subject",
        )
    if not ours.create_stream:
        return wrong(
            f"there is no stream {ours.stream}", "make it, or give --create-stream to a bridge"
        )
    age = "for ever" if ours.max_age is None else f"for {duration(ours.max_age)}"
    return ok(
        f"stream {ours.stream} would be made: {ours.subject}.>, {size(ours.max_bytes)}, {age}, on "
        f"{counted(ours.replicas, 'server')}; whether they have the room shows only then"
    )


def check_room(ends: Ends) -> Iterator[Finding]:
    """How full the stream is, and how far back it goes."""
    stream = stream_of(ends)
    if stream is None:
        return
    state, config = stream.info.state, stream.info.config
    most = config.max_bytes if config.max_bytes and config.max_bytes > 0 else None
    limit = f"of {size(most)}" if most else "without a limit"
    text = f"{counted(state.messages, 'NATS message', ',')}, {size(state.bytes)} {limit}"
    if stream.oldest is not None:
        text += f", the oldest of {duration(max(time.time() - stream.oldest, 0))} ago"
    if most and state.bytes > NEARLY_FULL * most:
        text += ": the oldest make room for what comes"
    yield ok(text)


# This relay in the stream


def check_name(ends: Ends) -> Iterator[Finding]:
    """Whether what is in the stream under this relay's name is of this relay."""
    stream, name = stream_of(ends), ends.settings.name
    if stream is None:
        return
    if stream.stranger is not None:
        yield wrong(
            f"no bridge has made what is called {name} in the stream: {printable(stream.stranger)}",
            "give another --name or --subject, or remove it (nats stream rmm)",
        )
    elif stream.last is None:
        yield ok(f"nothing in the stream is of a relay called {name}")
    elif not isinstance(ends.head, Failure):
        yield _whose(ends, stream.last.sequence, stream.last.envelope.end.epoch, ends.head.epoch)


def _whose(ends: Ends, sequence: int, epoch: int, here: int) -> Finding:
    what = f"message {sequence} is the last of {ends.settings.name}"
    if epoch == here:
        return ok(f"{what}, and of this relay's journal")
    if isinstance(ends.file, StateFile) and ends.file.state.outward.startswith(f"{epoch:x}:"):
        return note(f"{what}, and of a journal that this relay had before")
    return wrong(
        f"{what}, and of another journal, {epoch:x}: another relay is called so, or this one was "
        "made anew",
        "give another --name, unless nobody else has this one: then all of the journal would cross",
    )


# Other relays in the stream


def check_relays(ends: Ends) -> Iterator[Finding]:
    """Whose messages are in the stream, and which of them would come here."""
    stream, ours = stream_of(ends), ends.settings
    if stream is None:
        return
    found, coming = Counter[str](), Counter[str]()
    for subject, count in stream.subjects.items():
        relay = relay_of(subject, ours.subject)
        found[relay] += count
        if relay != ours.name and _comes(ends, subject):
            coming[relay] += count
    own = found.pop(ours.name, 0)
    yield ok(f"would come here: {_listed(coming)}; of its own, {own:,}, nothing would")
    if others := Counter({name: found[name] for name in found if name not in coming}):
        yield note(f"would not come here, by --take-from or --take-types: {_listed(others)}")
    if absent := sorted(ours.take_from - set(found)):
        yield note(
            f"--take-from: nothing in the stream is of {_some(absent)}",
            "see whether these are the --name of their bridges",
        )


def _comes(ends: Ends, subject: str) -> bool:
    """Tell whether a subject is asked for: what is in its messages, may be chosen from here."""
    ours = ends.settings
    relay, _, type_ = subject.removeprefix(f"{ours.subject}.").partition(".")
    wanted = not ours.take_from or relay in ours.take_from
    return wanted and (not type_ or not ours.take_types or type_ in map(str, ours.take_types))


def _listed(relays: Counter[str]) -> str:
    if not relays:
        return "nothing yet"
    return _some([f"{name} ({count:,})" for name, count in sorted(relays.items())])


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return printable(", ".join(names[:NAMED])) + more
