"""What a bridge remembers when it ends, however that happens.

A small file with two slots that are written in turn: ``kill -9`` leaves the old or the new state,
and so does a power cut. A new file each time would be simpler, but renaming it takes ext4 half a
millisecond (``auto_da_alloc``, ext4(5)), and all that is sent waits for it. It is not synced to the
disk, as a relay's journal is not at once either: after a power cut an older one may be found, by
which messages may be repeated but not lost.
"""

import errno
import json
import os
import zlib
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from alphapulse_relay.bridge.envelope import EnvelopeError, Place

PAGE = 4096
"""Bytes of which slots are made: what goes into a page is there as a whole, or not at all."""
_CHECKSUM_SIZE = len("01234567\n")


class StateError(Exception):
    """The file cannot be used. ``str()`` is one line that names it."""


@dataclass
class State:
    """How far each way has come.

    Outward, ``outward`` is the place (:attr:`Place.text`) from which on something is to be
    published, ``published`` that behind what was published last, and ``first`` where the relay was
    when a bridge was first started. Inward, of the stream that was
    ``created`` then, all up to the sequence ``done``, which was ``stored`` then (seconds since
    1970, 0 if that is not known), is in the relay's journal before ``position`` of its ``epoch``;
    behind that may be what was being sent, up to the sequence ``sending``. Of some relays the last
    run has not come as a whole: ``parts`` are the sequences with which it begins. ``ends`` are the
    places where each relay's next run should begin. ``gone`` is when a bridge last began to go
    inward (seconds since 1970, 0 for never). All up to the sequence ``caught_up`` has come,
    also where what came was long before, or was told to be gone.
    """

    outward: str = ""
    published: str = ""
    first: str = ""
    created: str = ""
    gone: float = 0.0
    done: int = 0
    stored: float = 0.0
    sending: int = 0
    epoch: int = 0
    position: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    caught_up: int = 0

    def begin(self, done: int) -> None:
        """Begin inward anew, behind a sequence."""
        self.done, self.stored, self.sending, self.parts = done, 0.0, 0, {}
        self.caught_up = 0


class StateFile:
    """Where it is kept."""

    def __init__(self, path: Path) -> None:
        self.saved = 0.0
        """When it was last saved before it was loaded, in seconds since 1970; 0 for never."""
        self._path = path
        self._number = 0  # of what was written last
        self._slot = 0  # bytes
        self.state = State()

    def load(self) -> None:
        """Read the file, if there is one. Raises :class:`StateError`."""
        try:
            data = self._path.read_bytes()
            self._slot = len(data) // 2
            slots = data[: self._slot], data[self._slot :]
            self._number, self.state = max(filter(None, map(_read, slots)), key=itemgetter(0))
            self.saved = self._path.stat().st_mtime
        except FileNotFoundError:
            self._check_writable()
        except (ValueError, TypeError, AttributeError, EnvelopeError):
            raise StateError(f"{self._path} is not a bridge's state: move it away") from None
        except OSError as error:
            raise StateError(f"{self._path} cannot be read: {error.strerror}") from error

    def save(self) -> None:
        """Keep the state. Raises :class:`StateError`."""
        self._number += 1
        text = json.dumps({"number": self._number, **asdict(self.state)}).encode()
        try:
            if len(text) + _CHECKSUM_SIZE > self._slot or not self._path.exists():
                self._make(text)
            else:
                self._write(text)
        except OSError as error:
            raise StateError(f"{self._path} cannot be written: {error.strerror}") from error

    def _make(self, text: bytes) -> None:
        """Make a file with room for as much again."""
        self._slot = -(-2 * len(text) // PAGE) * PAGE
        new = self._path.with_name(f"{self._path.name}.new")
        record, empty = _record(text, self._slot), b" " * self._slot
        new.write_bytes(empty + record if self._number % 2 else record + empty)
        new.replace(self._path)

    def _write(self, text: bytes) -> None:
        file = os.open(self._path, os.O_WRONLY)
        try:
            place = self._number % 2 * self._slot
            if os.pwrite(file, _record(text, self._slot), place) < self._slot:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)

    def _check_writable(self) -> None:
        directory = self._path.parent
        if not directory.is_dir():
            raise StateError(f"{self._path} cannot be written: there is no directory {directory}")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StateError(f"{self._path} cannot be written: nor can its directory, by this user")


def _record(text: bytes, size: int) -> bytes:
    text = text.ljust(size - _CHECKSUM_SIZE)
    return text + b"%08x\n" % zlib.crc32(text)


def _read(slot: bytes) -> tuple[int, State] | None:
    """Return what a slot holds, and its number; None if it was never, or not wholly, written."""
    text, checksum = slot[:-_CHECKSUM_SIZE], slot[-_CHECKSUM_SIZE:]
    if not text or checksum != b"%08x\n" % zlib.crc32(text):
        return None
    content: dict[str, Any] = json.loads(text)
    return content.pop("number"), _checked(State(**content))


def _checked(state: State) -> State:
    own = state.done, state.caught_up, state.sending, state.epoch, state.position
    numbers = (*own, *state.parts.values())
    places = [*filter(None, [state.outward, state.published, state.first]), *state.ends.values()]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError
    if not isinstance(state.stored, int | float) or not isinstance(state.gone, int | float):
        raise TypeError
    if not isinstance(state.created, str):
        raise TypeError
    for place in places:
        Place.parse(place)
    return state
