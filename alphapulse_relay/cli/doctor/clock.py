"""The clock: history is found by its time, and the age of signals is counted by it."""

import ctypes
import os
import time
from collections.abc import Iterator

from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import Finding, note, ok, wrong
from alphapulse_relay.protocol_v2.header import Header

EARLIEST = 1_767_225_600
"""Seconds since the epoch: 2026 began; a clock that is before that was never set."""
STEP = 2.0
"""Seconds that the clock may drift from the monotonic one before it was set, not disciplined."""
AHEAD_NS = 1_000_000_000
"""How far a time may be in the future by another machine's clock."""
NEWEST = 100
"""Messages whose times are looked at."""
_TIMEX_SIZE = 512
"""More than ``struct timex`` has."""
_TIME_ERROR = 5
"""What adjtimex(2) returns where the clock is not synchronised."""


def check_synchronised(_subject: Subject) -> Iterator[Finding]:
    """Whether the kernel knows that its clock is synchronised (adjtimex(2))."""
    if time.time() < EARLIEST:
        yield wrong(f"the clock says {time.ctime()}", "set it: timedatectl set-ntp true")
        return
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_SIZE))
    if state < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if state == _TIME_ERROR:
        mend = "timedatectl set-ntp true, or run chrony; in a container its host's clock counts"
        yield note("the kernel does not know the clock to be synchronised", mend)
    else:
        yield ok("the clock is synchronised")


def check_steps(subject: Subject) -> Iterator[Finding]:
    """Whether the clock was set while the relay ran, which the monotonic one tells."""
    if not isinstance(subject.answer, dict):
        return
    step = time.time() - subject.snapshot.started_at - subject.snapshot.uptime
    if abs(step) > STEP:
        yield note(
            f"the clock was set by {step:+.1f} s since the relay started",
            "--since and --journal-age count by it: restart nothing, but bear it in mind",
        )
    else:
        yield ok("the clock has not been set since the relay started")


def check_messages(subject: Subject) -> Iterator[Finding]:
    """Whether the newest messages' times are in the past."""
    path = subject.settings.journal
    if path is None or not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        return
    found = subject.journal
    entries = [] if found is None else list(found.entries(last=NEWEST))
    now = time.time_ns()
    if not entries:
        return
    came = entries[-1].time
    if came > now + AHEAD_NS:
        yield wrong(
            f"the newest message came {_seconds(came - now)} from now: the clock was set back",
            "set it right: timedatectl set-ntp true",
        )
        return
    ahead = {
        header.publisher: header.timestamp - entry.time
        for entry in entries
        if (header := Header.unpack(entry.message)).timestamp > entry.time + AHEAD_NS
    }
    for publisher, by in sorted(ahead.items()):
        text = f"publisher {publisher}'s messages are {_seconds(by)} ahead of their receipt"
        yield note(text, "synchronise its clock; its timestamps are in ns")
    if not ahead:
        yield ok(f"the newest message came {_seconds(now - came)} ago")


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:,.1f} s"
