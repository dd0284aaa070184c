"""A journal is read again: what its files hold, and what of it is damaged.

Knows the files, their records and which bytes are surely good; neither who wrote them nor who wants
them. What is damaged is reported and stepped over; only a torn tail is cut. A segment's end is the
first slot of its index without a record for the next position.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alphapulse_relay.journal.files import Maps, map_slot
from alphapulse_relay.journal.format import (
    EPOCH_FILE,
    PAGE,
    Epoch,
    FormatError,
    Header,
    data_path,
    slots,
)
from alphapulse_relay.journal.headers import data_name, header_of, is_blank, is_spare
from alphapulse_relay.journal.mending import Damage, Mender, Recovered, verify_records

__all__ = [
    "Damage",
    "Maps",
    "Recovered",
    "Recovery",
    "map_slot",
    "recover",
    "recover_segment",
    "verify_records",
]


@dataclass
class Recovery:
    """What a directory holds: ``segments`` in order; ``spare`` slots hold nothing.

    ``maps`` are the segments' files, by slot. ``epoch`` is None where there is no journal yet.
    ``damage`` is all of it, the segments' included.
    """

    epoch: Epoch | None
    segments: list[Recovered]
    spare: list[int]
    damage: list[Damage]
    maps: dict[int, Maps]


def recover(
    directory: Path,
    *,
    writable: bool,
    verify: Literal["none", "last", "all"],
    progress: Callable[[int, int], object] = lambda _done, _all: None,
) -> Recovery:
    """Read the whole journal in a directory, and mend what can be.

    ``writable``: in the files; otherwise only in memory. ``verify``: of which segments the bytes
    are compared with their records. ``progress`` is told how many segments are done, of how many.
    Raises :class:`FormatError` for what is no journal, or more than one, and ``OSError``.
    """
    found = Recovery(Epoch.read(directory), [], [], [], {})
    headers = {}
    for slot in slots(directory):
        header = _look_at(directory, slot, found, writable)
        if header is not None:
            headers[slot] = header
    _settle_epoch(directory, found, headers)
    order = sorted(headers, key=lambda slot: (headers[slot].start, headers[slot].number))
    for done, slot in enumerate(order, 1):
        progress(done - 1, len(order))
        following = order[done] if done < len(order) else None
        deep = verify == "all" or (verify == "last" and following is None)
        _recover_next(found, slot, following, headers, deep)
    progress(len(order), len(order))
    return found


def _look_at(directory: Path, slot: int, found: Recovery, writable: bool) -> Header | None:
    """Map a slot and return its header. One that holds no segment is spare, if it is whole."""
    maps = map_slot(directory, slot, writable=writable)
    header = header_of(slot, maps.data, maps.index)
    if header is not None:
        found.maps[slot] = maps
        return header
    name = data_path(directory, slot).name
    if _is_spare(maps):
        found.spare.append(slot)
    else:
        detail = "both copies of the header are lost: what the file holds cannot be placed"
        found.damage.append(Damage(name, 0, 0, detail))
    maps.close()
    return None


def _is_spare(maps: Maps) -> bool:
    if not is_spare(maps.data, maps.index):
        return False
    # A kill while the slot was made or removed may have left one file of two; but a file that is
    # gone may also have held the only good header...
    if maps.short:
        return is_blank(maps.index) and is_blank(maps.data)
    # ...and so may an index that was made anew at the start before this one.
    return not is_blank(maps.index) or is_blank(maps.data[:PAGE])


def _settle_epoch(directory: Path, found: Recovery, headers: dict[int, Header]) -> None:
    """Make sure that all segments are of one journal; where its name is lost, they tell it."""
    if found.epoch is None and headers:
        epoch = next(iter(headers.values())).epoch
        found.epoch = Epoch(epoch, 0, "", closed=False)
        detail = "the file is lost, the epoch is taken from the segments"
        found.damage.append(Damage(EPOCH_FILE, 0, 0, detail))
    for slot, header in headers.items():
        if found.epoch is not None:
            _require_epoch(data_path(directory, slot), header, found.epoch.epoch)


def _require_epoch(path: Path, header: Header, epoch: int) -> None:
    if header.epoch != epoch:
        raise FormatError(
            f"{path}: its messages are of epoch {header.epoch}, the journal is {epoch}"
        )


def _recover_next(
    found: Recovery, slot: int, following: int | None, headers: dict[int, Header], deep: bool
) -> None:
    maps, header = found.maps[slot], headers[slot]
    end = None if following is None else headers[following].start
    with memoryview(maps.data) as data, memoryview(maps.index) as index:
        segment = recover_segment(
            slot,
            data,
            index,
            epoch=header.epoch,
            size=header.size,
            verify=deep,
            end=end,
            short=bool(maps.short),
        )
    if segment is None or header_of(slot, maps.data, maps.index, header.size) != header:
        return  # a relay that runs has used the files again meanwhile
    if following is not None and segment.stop > headers[following].start:
        raise FormatError(f"{data_name(slot)} and {data_name(following)} both hold position {end}")
    detail = "the file was lost or cut off: zeros are in place of the rest"
    segment.damage[:0] = [Damage(name, header.start, header.start, detail) for name in maps.short]
    found.segments.append(segment)
    found.damage += segment.damage


def recover_segment(
    slot: int,
    data: memoryview,
    index: memoryview,
    *,
    epoch: int,
    size: int | None,
    verify: bool,
    end: int | None,
    short: bool = False,
) -> Recovered | None:
    """Read what a slot holds and mend its index and headers in place; None if it is spare.

    ``data`` and ``index`` are the two whole files, writable. ``size`` is how many bytes of messages
    they have room for, if that is known; ``end`` where the following segment starts, if there is
    one. ``verify`` compares the bytes with their records; records that are known to cover damage
    always are. ``short``: one of the files was, and goes on with zeros. Raises
    :class:`FormatError` for a segment of another epoch or format.
    """
    header = header_of(slot, data, index, size)
    if header is None:
        return None
    _require_epoch(Path(data_name(slot)), header, epoch)
    return Mender(slot, data, index, header, end, short).run(verify)
