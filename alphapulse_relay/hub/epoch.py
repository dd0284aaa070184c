"""Which journal this is, how often it was opened, and whether positions were given that it lost.

Knows what the last run left of itself, and which start of the machine this is; of the segments only
the mark that the log went on in memory.
"""

import random
from dataclasses import replace
from mmap import mmap
from pathlib import Path

from alphapulse_relay.journal.format import (
    MEMORY_FLAG,
    MEMORY_FLAG_OFFSET,
    MEMORY_FOLLOWS,
    Epoch,
)

JUMP = 1 << 40
"""Positions left out where messages may have been lost that somebody has seen: more than can have
been appended. So no position is ever given twice."""
UNKNOWN_STARTS = 0x3FFFFFFF
"""Of which a number is drawn where the journal's own count is lost."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Differs from one start of the machine to the next (proc(5))."""


def new_epoch() -> int:
    """Return a number that no other journal has."""
    return random.SystemRandom().getrandbits(63) | 1


def boot_id() -> str:
    """Return which start of the machine this is; never the same twice if it cannot be told."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return str(new_epoch())


def reopened(before: Epoch, boot: str) -> Epoch:
    """Return what a journal is now that was left as ``before``, and is opened again."""
    # Where it is not known how often it was opened, no number of then must come again.
    starts = before.starts if before.boot else new_epoch() & UNKNOWN_STARTS
    return replace(before, starts=starts + 1, boot=boot, closed=False)


def why_lost(last_index: mmap, before: Epoch, boot: str) -> str | None:
    """Return why positions may have been given behind the last segment, if they may."""
    (flag,) = MEMORY_FLAG.unpack_from(last_index, MEMORY_FLAG_OFFSET)
    if flag == MEMORY_FOLLOWS:
        return "the disk was full while the relay ran"
    return (
        "the machine stopped while the relay ran"
        if not before.closed and before.boot != boot
        else None
    )
