"""The files of a journal: names, headers and index records.

A journal is a directory. ``epoch.json`` tells which journal it is. Each *segment* of the log is two
files of fixed size, preallocated and used again when its messages are the oldest. That of messages
is all zeros then, on the disk too, before anything is written:

- ``0003.v2``: the messages, end to end, as they came on the wire; behind the room for them a
  trailer of one page that begins with the segment's header;
- ``0003.index``: a page that begins with the same header, then records of 48 bytes, one for each
  append, without gaps.

All integers are little-endian. A record is written after the bytes that it covers, and its
``check`` after the rest of it. The first slot that does not hold a record for the next position is
the segment's end: what is left there of the files' earlier use holds records of lower positions.

This is fit to be read by another process while the relay writes.
"""

import json
import os
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

from alphapulse_relay.protocol_v2.header import CHECKSUM_OFFSET, checksum
from alphapulse_relay.protocol_v2.native import load
from alphapulse_relay.small_files import read_small

FORMAT = 2
"""Version of all that is told here."""
MAGIC = b"V2SEGMNT"
PAGE = 4096
"""Bytes of an index file before its records, and of a data file behind its messages."""
EPOCH_FILE = "epoch.json"
LOCK_FILE = "lock"
MEMORY_FOLLOWS = 0x59524F4D454D  # "MEMORY"
"""What :data:`MEMORY_FLAG` holds where the log went on in memory, so that positions were given that
no file knows of. Any other value means nothing."""
MEMORY_FLAG = struct.Struct("<Q")
MEMORY_FLAG_OFFSET = 64
"""In an index file, behind the header."""
SLOT_SIZE = 64 << 20
"""Bytes of a segment's two files at most. Larger ones would be given up in larger steps."""
SLOTS = 8
"""Segments that a journal has at least: a small one has smaller ones."""
EPOCH_MAX = 4096
"""Bytes of ``epoch.json`` that are read: more than it ever has."""
FILE_MODE = 0o640
"""Of all files: who may read what the relay has written is its group."""
MARK_SIZE = 8
"""Bytes at the start of a page of messages that tell by being 0 that it was not written."""
UNKNOWN_ORIGIN = 0
"""Origin of what a damaged record covered: nobody's."""

_HEADER = struct.Struct("<8sIIQQQQQI4x")
_RECORD = struct.Struct("<QQQQIIII")
RECORD_SIZE = _RECORD.size
"""48 bytes."""
_CHECKED = RECORD_SIZE - 4
_U32 = struct.Struct("<I")
_scan = load("alphapulse_relay.protocol_v2._scan")


class FormatError(Exception):
    """A journal that cannot be used; ``str()`` is one line that says what is wrong and where."""


class Header(NamedTuple):
    """What a segment is.

    ``number`` counts the journal's segments, ``start`` is the position of its first byte,
    ``ordinal`` the messages before it, ``size`` the bytes that it has room for.
    """

    epoch: int
    number: int
    start: int
    ordinal: int
    size: int

    def pack(self) -> bytes:
        """Return the 64 bytes."""
        head = _HEADER.pack(MAGIC, FORMAT, 0, *self, 0)
        return head[:56] + _U32.pack(zlib.crc32(head[:56])) + head[60:]

    @classmethod
    def unpack(cls, data: bytes | memoryview, offset: int = 0) -> Self | None:
        """Read a header; None if there is none that is whole.

        Raises :class:`FormatError` for one of another format.
        """
        if len(data) < offset + _HEADER.size:
            return None
        magic, version, _, *fields, check = _HEADER.unpack_from(data, offset)
        if magic != MAGIC or check != zlib.crc32(data[offset : offset + 56]):
            return None
        if version != FORMAT:
            raise FormatError(f"format {version}, this program knows {FORMAT}")
        return cls(*fields)


class Record(NamedTuple):
    """One append: ``length`` bytes at ``position``, ``messages`` whole ones.

    ``time`` is when they came, in ns since the epoch; ``origin`` who sent them; ``ordinal`` how
    many messages the log has before them; ``crc`` their :func:`run_check`.
    """

    position: int
    time: int
    origin: int
    ordinal: int
    length: int
    messages: int
    crc: int

    @property
    def stop(self) -> int:
        """The position behind it."""
        return self.position + self.length

    def pack(self, epoch: int) -> bytes:
        """Return the 48 bytes."""
        body = _RECORD.pack(*self, 0)[:_CHECKED]
        return body + _U32.pack(record_check(body, epoch))

    @classmethod
    def unpack(cls, index: bytes | memoryview, number: int, epoch: int) -> Self | None:
        """Read a record of an index file; None if that slot does not hold a whole one."""
        offset = PAGE + number * RECORD_SIZE
        *fields, check = _RECORD.unpack_from(index, offset)
        if check != record_check(index[offset : offset + _CHECKED], epoch):
            return None
        return cls(*fields)


def record_check(body: bytes | memoryview, epoch: int) -> int:
    """CRC-32 of a record's first 44 bytes, begun with the epoch's low 32 bits."""
    return zlib.crc32(body, epoch & 0xFFFFFFFF)


def run_check(run: bytes | memoryview) -> int:
    """Return what a record keeps of its bytes, 0 if there are none.

    That is the run's checksum computed as a single message's is (protocol document, "Checksum"),
    so without bytes 28-31, and those four bytes, rotated left by one bit, added (exclusive or). Not
    rotated they would cancel out in a single message whose own checksum is right, and all such
    messages would have the same check.
    """
    if _scan is not None:
        return int(_scan.check_run(run))
    if not run:
        return 0
    field: int = _U32.unpack_from(run, CHECKSUM_OFFSET)[0]
    return checksum(run) ^ (field << 1 & 0xFFFFFFFF | field >> 31)


def index_capacity(index_bytes: int) -> int:
    """Return how many records an index file of so many bytes has room for."""
    return (index_bytes - PAGE) // RECORD_SIZE


def index_size(data_bytes: int) -> int:
    """Return how large an index file is at least beside a data file of so many bytes.

    Whole pages, a quarter of the data: a segment of shorter appends than 192 bytes ends when its
    index is full.
    """
    return max((data_bytes // PAGE - 1) // 4, 2) * PAGE


def data_size_of(journal_bytes: int) -> int:
    """Return how large the files of messages are in a journal of so many bytes.

    A quarter as much goes to their indexes.
    """
    return min(journal_bytes // SLOTS, SLOT_SIZE) * 4 // 5 // PAGE * PAGE


def room_of(journal_bytes: int) -> int:
    """Return how many bytes of messages fit a segment of such a journal."""
    return data_size_of(journal_bytes) - PAGE


def size_for(room: int) -> int:
    """Return how large a journal must be so that so many bytes fit a segment; in whole MiB."""
    return -(-(room + PAGE) * SLOTS * 5 // 4 // (1 << 20)) + 1 << 20


def data_path(directory: Path, slot: int) -> Path:
    """Return the path of a segment's messages."""
    return directory / f"{slot:04}.v2"


def index_path(directory: Path, slot: int) -> Path:
    """Return the path of a segment's index."""
    return directory / f"{slot:04}.index"


def slots(directory: Path) -> list[int]:
    """Return which segments' files are there, by either of the two."""
    names = {path.stem for path in directory.iterdir() if path.suffix in {".v2", ".index"}}
    return sorted(int(name) for name in names if name.isdecimal())


@dataclass(frozen=True)
class Epoch:
    """Which journal it is, as ``epoch.json`` says.

    ``starts`` counts how often it was opened to write, ``boot`` tells the machine's start then
    (proc(5), ``boot_id``), ``closed`` whether it was left in order.
    """

    epoch: int
    starts: int
    boot: str
    closed: bool

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Read it; None if there is none. Raises :class:`FormatError`."""
        path = directory / EPOCH_FILE
        try:
            content = json.loads(read_small(path, EPOCH_MAX).content)
            version = content.pop("format")
            if version != FORMAT:
                raise FormatError(f"{path}: format {version}, this program knows {FORMAT}")
            return cls(**content)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{path}: cannot be read: {error}") from None

    def write(self, directory: Path) -> None:
        """Write it, so that it appears whole, and is on the disk. Raises ``OSError``."""
        path, new = directory / EPOCH_FILE, directory / f"{EPOCH_FILE}.new"
        with open(make_file(new), "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, **asdict(self)}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_directory(directory)


def make_file(path: Path) -> int:
    """Make an empty file, and open it to read and write, in place of what has that name.

    Raises ``OSError``.
    """
    path.unlink(missing_ok=True)  # what is there may be a link, or be waited for
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)


def sync_directory(directory: Path) -> None:
    """Have the directory's entries on the disk (fsync(2)). Raises ``OSError``."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
