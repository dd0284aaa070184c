"""The relay that runs, by what its side port tells of it."""

from collections.abc import Iterator
from typing import Any

from alphapulse_relay import __version__
from alphapulse_relay.cli.board import size
from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.causes import DROPPED, REFUSED
from alphapulse_relay.cli.doctor.sockets import relay_options
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import Finding, note, ok, wrong
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.snapshot import Silence
from alphapulse_relay.cli.words import Failure, printable

NAMED = 5
"""Slow peers that are named."""
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
        yield _unanswered(subject, subject.answer)
    elif subject.pid not in {None, subject.snapshot.pid}:
        text = f"{subject.url} is of pid {subject.snapshot.pid}, the relay is pid {subject.pid}"
        yield wrong(text, _SAME_OPTIONS)
    elif not subject.listens:
        text = f"{subject.url} answers, for pid {subject.snapshot.pid}, but nobody is at --socket"
        yield note(text, _SAME_OPTIONS)
    else:
        yield ok(f"{subject.url} answers")


def _unanswered(subject: Subject, failure: Failure) -> Finding:
    pid = subject.pid
    if pid is not None and system.is_stopped(pid):
        return wrong(f"{subject.url} is silent: pid {pid} is stopped", f"kill -CONT {pid}")
    if pid is not None and isinstance(failure, Silence):
        return wrong(
            f"{subject.url} is silent: pid {pid} hangs, or has more to do than it can",
            f"see how busy it is (top -p {pid}), and its log; restart it if it hangs",
        )
    if subject.is_guessed("web"):
        return note(
            f"{printable(failure.message)}; where it is, the settings leave open", _SAME_OPTIONS
        )
    return wrong(printable(failure.message), _SAME_OPTIONS)


def check_file(subject: Subject) -> Iterator[Finding]:
    """Whether the relay goes by its configuration file as it is now."""
    document = _document(subject)
    if document is None or "settings" not in document:  # an older relay does not tell
        return
    read = document["settings"]
    if read["restart"]:
        options = printable(", ".join(read["restart"]))
        yield note(f"the relay has other values than it would start with: {options}", "restart it")
    if subject.config is None:
        return
    if subject.config.stat().st_mtime > read["read_at"]:
        yield note(
            f"{subject.config} was changed since the relay read its settings",
            f"kill -HUP {subject.snapshot.pid}, or restart it; its log tells what it could take up",
        )
    elif not read["restart"]:
        yield ok(f"the relay goes by {subject.config}")


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
            messages = counted(number, "message", ",")
            text = f"{messages} dropped since it started, {printable(reason)}{who}"
            yield note(text, DROPPED.get(reason, "mend that publisher"))
    for reason, number in counters["missed"].items():
        if number:
            messages = counted(number, "message", ",")
            text = f"{messages} missed by connected peers, {printable(reason)}"
            yield note(text, "make them read faster, or give more room: --journal-size, --backlog")
    if not any(counters["dropped"].values()) and not any(counters["missed"].values()):
        yield ok("nothing was dropped or missed since it started")


def check_refusals(subject: Subject) -> Iterator[Finding]:
    """Tell who was not let in since it started."""
    document = _document(subject)
    if document is None:
        return
    refused = document["counters"]["connections"]["refused"]
    for reason, number in refused.items():
        if number:
            connections = counted(number, "connection", ",")
            text = f"{connections} refused since it started, {printable(reason)}"
            yield note(text, f"the log says who; {REFUSED.get(reason, 'and why')}")
    if not any(refused.values()):
        yield ok("nobody was refused since it started")


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
        options = relay_options(system.command_of(subject.pid))
        if options is not None:
            yield ok(f"started with: {printable(' '.join(options)) or 'no options'}")


def _document(subject: Subject) -> dict[str, Any] | None:
    """Return the status of a relay; None without one, which is told elsewhere."""
    return subject.answer if isinstance(subject.answer, dict) else None
