"""Where a journal may lie: in a directory that is the relay's alone, and nothing else's.

Knows the names of a journal's files, but not what is in them.
"""

import os
from pathlib import Path

from alphapulse_relay.journal.format import EPOCH_FILE, LOCK_FILE, slots
from alphapulse_relay.safe_path import faults

DIRECTORY_MODE = 0o750
"""Who may read a journal is the relay's group."""


def why_unfit(directory: Path) -> str | None:
    """Return why a journal must not be kept in a directory, and what to do; None if it may.

    Where others decide what is in it, they could have links there to what is not theirs. A
    directory of somebody else's files would be filled. Raises ``OSError``.
    """
    wrong = faults(directory, os.geteuid(), option="--journal", private=True)
    if (fault := next(wrong, None)) is not None:
        return f"{fault.what}: {fault.mend}"
    names = {path.name for path in directory.iterdir()}
    if names and not names & {EPOCH_FILE, LOCK_FILE} and not slots(directory):
        return f"{directory} is not empty and holds no journal"
    return None


def holder(directory: Path) -> int | None:
    """Return the process that has taken the lock; None if that cannot be told."""
    try:
        return int((directory / LOCK_FILE).read_text())
    except (OSError, ValueError):
        return None
