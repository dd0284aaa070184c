"""The relay that runs, by what its side port tells of it."""

from collections.abc import Iterator
from typing import Any

from alphapulse_relay import __version__
from alphapulse_relay.cli.board import size
from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.finding import Finding, note, ok, wrong
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.words import Failure, printable

NAMED = 5
"""Slow peers that are named."""
_PLUGIN = "signal-relay"
_SAME_OPTIONS = "tell doctor the relay's options, or --url"


def check_side_port(subject: Subject) -> Iterator[Finding]:
    """Whether it answers, for the relay that listens."""
    if not subject.listens and not isinstance(subject.answer, dict):
        return
    if subject.settings.web is None and subject.url is None:
        yield note("there is no side port (--web none): what the relay itself knows is not told")
    elif subject.url is None:
        yield note(f"cannot ask a side port at {subject.settings.web}", "give its --url")
    elif isinstance(subject.answer, Failure):
        yield wrong(subject.answer.message, _SAME_OPTIONS)
    elif subject.pid not in {None, subject.snapshot.pid}:
        text = f"{subject.url} is of pid {subject.snapshot.pid}, the relay is pid {subject.pid}"
        yield wrong(text, _SAME_OPTIONS)
    elif not subject.listens:
        text = f"{subject.url} answers, for pid {subject.snapshot.pid}, but nobody is at --socket"
        yield note(text, _SAME_OPTIONS)
    else:
        yield ok(f"{subject.url} answers")


def check_readiness(subject: Subject) -> Iterator[Finding]:
    """Whether it accepts connections, and puts all on the disk."""
    document = _document(subject)
    if document is None:
        return
    journal = document["journal"] or {}
    if failure := journal.get("failure"):
        yield wrong(
            f"the log goes on in memory: {printable(failure)}",
            "make room, or replace the disk; do not restart the relay before",
        )
    elif not document["ready"]:
        yield wrong("the relay is not ready: it starts, or leaves", "wait, and look into its log")
    else:
        yield ok("the relay is ready")
    if damages := journal.get("damages"):
        text = f"{counted(damages, 'place')} of the journal found damaged since the start"
        yield wrong(text, "signal-relay journal verify; look at the disk")
    if failures := journal.get("sync_failures"):
        yield wrong(f"{counted(failures, 'sync')} to the disk failed", "look at the disk")


def check_losses(subject: Subject) -> Iterator[Finding]:
    """Tell what was dropped, and what peers missed, since it started."""
    document = _document(subject)
    if document is None:
        return
    counters = document["counters"]
    for reason, number in counters["dropped"].items():
        if number:
            last = counters.get("last_dropped", {}).get(reason, {})
            who = (
                f", the last from {printable(last['peer'])}: {printable(last['detail'])}"
                if last
                else ""
            )
            text = f"{counted(number, 'message', ',')} dropped since it started, {reason}{who}"
            yield note(text, "mend that publisher, or see --validate")
    for reason, number in counters["missed"].items():
        if number:
            text = f"{counted(number, 'message', ',')} missed by connected peers, {reason}"
            yield note(text, "make them read faster, or give more room: --journal-size, --backlog")
    if not any(counters["dropped"].values()) and not any(counters["missed"].values()):
        yield ok("nothing was dropped or missed since it started")


def check_peers(subject: Subject) -> Iterator[Finding]:
    """Tell who is slow."""
    document = _document(subject)
    if document is None:
        return
    peers = subject.snapshot.peers
    window = document["log"]["window"]
    slow = [each for each in peers if each.state == "muted" or each.bytes_behind > window // 2]
    for each in sorted(slow, key=lambda peer: -peer.bytes_behind)[:NAMED]:
        text = f"peer {each.number} ({each.name}) is {each.state}, {size(each.bytes_behind)} behind"
        yield note(text, "make it read faster")
    if not slow:
        yield ok(f"{counted(len(peers), 'peer')}, all keep up")


def check_version(subject: Subject) -> Iterator[Finding]:
    """Whether it is what is installed, and how it was started."""
    document = _document(subject)
    if document is not None and document["version"] != __version__:
        text = f"the relay is {printable(document['version'])}, this command {__version__}"
        yield note(text, "restart the relay, to run what is installed")
    if subject.pid is not None:
        words = system.command_of(subject.pid)
        if _PLUGIN in words:
            options = " ".join(words[words.index(_PLUGIN) + 1 :])
            yield ok(f"started with: {printable(options) or 'no options'}")


def _document(subject: Subject) -> dict[str, Any] | None:
    """Return the status of a relay; None without one, which is told elsewhere."""
    return subject.answer if isinstance(subject.answer, dict) else None
