"""A journal's directory, after whatever happened to its files: slow, but the whole of it.

What must hold, whatever is changed or lost in files, and whatever files are cut, gone or new:

- It is read, or refused with a FormatError of one line; a relay opens it, or refuses with a
  JournalError of one line.
- What is served is as in ``recovery.py``: what was written, at its own position, in order.
"""

import shutil
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from alphapulse_relay.hub import journal
from alphapulse_relay.hub.journal import JournalError
from alphapulse_relay.journal import files, headers, mending, reader, recovery
from alphapulse_relay.journal.format import PAGE, FormatError
from alphapulse_relay.journal.reader import Journal
from fuzz.choices import Choices
from fuzz.recovery import DAMAGES, DAMAGES_MAX, PLACES, ROOM, check_line, has_checksum
from tests.hub.fakes import make_clock
from tests.hub.journals import Kept
from tests.journal.writer import Message, Segment, messages, save

MODULES = (journal, files, headers, mending, reader, recovery)
MAX_LEN = 80
COMPARISONS = False
WORDS: tuple[str, ...] = ()
FILES = 7
"""Of three segments, and epoch.json."""
CUT = 200
"""A damage from here on is a file that is cut, or gone."""
_READ, _OPEN = 0, 1


def run(data: bytes) -> None:
    """Damage a journal, and read or open it; see above."""
    choices = Choices(data)
    kind = choices.byte() % 2
    _directory.damage(choices)
    if kind == _READ:
        read(_directory)
    else:
        open_by_relay(_directory)


def seeds() -> Iterator[bytes]:
    """Yield what to begin with: each kind of damage to each file, by each who opens it."""
    for kind in (_READ, _OPEN):
        yield bytes([kind, 0])
        for damage, file in product((*range(len(DAMAGES)), CUT, CUT + 1), range(FILES)):
            for place in PLACES[::3]:
                yield bytes([kind, 1, damage, file, *place.to_bytes(2, "little"), 3, 17])


class Directory:
    """A journal of three segments, made anew before each damage."""

    def __init__(self) -> None:
        self._room = tempfile.TemporaryDirectory(prefix="fuzz-")
        self.path = Path(self._room.name) / "journal"
        self.written: list[Message] = []
        segment = Segment(size=ROOM)
        save(self.path)
        for number in range(3):
            segment.fill(messages(24, number)).save(self.path)
            self.written += segment.written
            segment = segment.next()
        self._files = {path.name: path.read_bytes() for path in self.path.iterdir()}
        assert len(self._files) == FILES

    def damage(self, choices: Choices) -> None:
        """Write the files, with damage."""
        files = {name: bytearray(content) for name, content in self._files.items()}
        names = sorted(files)
        for _ in range(choices.byte() % DAMAGES_MAX):
            kind, name = choices.byte(), names[choices.byte() % len(names)]
            if kind < CUT and len(files.get(name, b"")) >= PAGE:
                DAMAGES[kind % len(DAMAGES)](files[name], bytes(len(files[name])), choices)
            elif kind % 2:
                del files.setdefault(name, bytearray())[choices.number(2) :]
            else:
                files.pop(name, None)
        shutil.rmtree(self.path)
        self.path.mkdir()
        for name, content in files.items():
            (self.path / name).write_bytes(content)

    def has(self, position: int, data: bytes) -> bool:
        """Tell whether that message was written there."""
        return Message(position, data) in self.written


def read(directory: Directory) -> None:
    """Read a journal as who only looks."""
    try:
        journal = Journal.open(directory.path)
    except FormatError as error:
        check_line(error)
        return
    last = -1
    for entry in journal.entries():
        assert entry.position > last
        assert directory.has(entry.position, entry.message) or not has_checksum(entry.message)
        last = entry.position
    for part in journal.parts:
        part.maps.close()


def open_by_relay(directory: Directory) -> None:
    """Open a journal as a relay, and see what it would serve."""
    try:
        kept = Kept(directory.path, make_clock())
    except JournalError as error:
        check_line(error)
        return
    try:
        kept.settle()
        for position, data in directory.written:
            if kept.log.tail <= position < kept.log.head and kept.log.gap_at(position) is None:
                found = bytes(kept.log.read(position)[: len(data)])
                assert found == data or not has_checksum(found)
    finally:
        kept.kill()


_directory = Directory()
