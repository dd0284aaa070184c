"""Where a consumer stopped, as a value and as a file that is always whole.

Knows nothing of connections.
"""

import json
import os
import zlib
from pathlib import Path
from typing import NamedTuple

from alphapulse_relay.protocol_v2.control import Subscribe


class Bookmark(NamedTuple):
    """How far a consumer has come in a relay's journal.

    All before ``position`` of the journal ``epoch`` has been taken, and of what follows the first
    ``taken`` messages. ``asked`` is the :func:`fingerprint` of the subscription: a count only has
    a meaning for the same one.
    """

    epoch: int
    position: int
    taken: int
    asked: int


def fingerprint(subscription: Subscribe) -> int:
    """Return 32 bits that differ between subscriptions to which other messages come.

    The name is one of the things that decide: a peer is not sent what came under its own name.
    """
    asked = sorted(subscription.types), sorted(subscription.sources), subscription.name
    return zlib.crc32(repr(asked).encode())


def load_bookmark(path: str | os.PathLike[str]) -> Bookmark | None:
    """Return the bookmark of a file, ``None`` if there is no file.

    Raises ``ValueError`` if the file holds something else: to go on without it would be a guess.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return _parse(text)
    except (ValueError, TypeError):
        raise ValueError(f"{path} is not a bookmark: it holds {text[:80]!r}") from None


def save_bookmark(path: str | os.PathLike[str], bookmark: Bookmark) -> None:
    """Replace the file with the bookmark.

    At any moment, also after a power cut, the file is whole: the old one or the new one. Takes as
    long as the disk needs for an ``fsync``, milliseconds perhaps. Raises ``OSError``.
    """
    temporary = Path(f"{os.fspath(path)}.new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(bookmark._asdict(), file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _parse(text: str) -> Bookmark:
    bookmark = Bookmark(**json.loads(text))
    if not all(isinstance(number, int) and number >= 0 for number in bookmark):
        raise ValueError
    return bookmark
