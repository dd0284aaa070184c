"""What a bridge remembers when it ends, however that happens.

A small file, replaced as a whole: ``kill -9`` leaves the old or the new one. It is not synced to
the disk, as a relay's journal is not at once either: after a power cut an older one may be found,
by which messages may be repeated but not lost.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alphapulse_relay.bridge.envelope import EnvelopeError, Place


class StateError(Exception):
    """The file cannot be used. ``str()`` is one line that names it."""


@dataclass
class State:
    """How far each way has come.

    Outward, ``outward`` is the place (:attr:`Place.text`) behind what was published last, and
    ``first`` where the relay was when a bridge was first started. Inward,
    of the stream that was ``created`` then, all up to the sequence ``done``, which was ``stored``
    then (seconds since 1970, 0 if that is not known), is in the relay's journal before ``position``
    of its ``epoch``; behind that may be what was being sent, up to the sequence ``sending``.
    Of some relays the last run has not come as a whole: ``parts`` are the sequences with which it
    begins. ``ends`` are the places where each relay's next run should begin.
    """

    outward: str = ""
    first: str = ""
    created: str = ""
    done: int = 0
    stored: float = 0.0
    sending: int = 0
    epoch: int = 0
    position: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)

    def begin(self, done: int) -> None:
        """Begin inward anew, behind a sequence."""
        self.done, self.stored, self.sending, self.parts = done, 0.0, 0, {}


class StateFile:
    """Where it is kept."""

    def __init__(self, path: Path) -> None:
        self.saved = 0.0
        """When it was last saved before it was first loaded, in seconds since 1970; 0 for never."""
        self._path = path
        self._new = path.with_name(f"{path.name}.new")
        self.state = State()

    def load(self) -> None:
        """Read the file, if there is one. Raises :class:`StateError`."""
        try:
            self.state = _parse(self._path.read_bytes())
            self.saved = self.saved or self._path.stat().st_mtime
        except FileNotFoundError:
            self._check_writable()
        except (ValueError, TypeError, AttributeError, EnvelopeError):
            raise StateError(f"{self._path} is not a bridge's state: move it away") from None
        except OSError as error:
            raise StateError(f"{self._path} cannot be read: {error.strerror}") from error

    def save(self) -> None:
        """Replace the file. Raises :class:`StateError`."""
        try:
            self._new.write_text(json.dumps(asdict(self.state)) + "\n", encoding="utf-8")
            self._new.replace(self._path)
        except OSError as error:
            raise StateError(f"{self._path} cannot be written: {error.strerror}") from error

    def _check_writable(self) -> None:
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise StateError(f"{self._path} cannot be written: no such directory, or not ours")


def _parse(data: bytes) -> State:
    content: dict[str, Any] = json.loads(data)
    state = State(**content)
    numbers = (state.done, state.sending, state.epoch, state.position, *state.parts.values())
    places = [*filter(None, [state.outward, state.first]), *state.ends.values()]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError
    if not isinstance(state.stored, int | float):
        raise TypeError
    if not isinstance(state.created, str):
        raise TypeError
    for place in places:
        Place.parse(place)
    return state
