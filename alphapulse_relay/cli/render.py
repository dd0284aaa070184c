"""A message as text: a line for people, a JSON object for programs, a dump of its bytes.

Knows the wire and the signal table; neither where messages come from nor where the text goes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.header import Domain, Flags, Header
from alphapulse_relay.protocol_v2.signals import Signal, SignalTable
from alphapulse_relay.protocol_v2.tlv import TLV, parse_tlvs

HEX_SHOWN = 32
"""Bytes of an undecoded value in a line for people; values are up to 64 KiB long."""
DUMP_WIDTH = 16
"""Bytes in a line of a dump."""
_NS = 1_000_000_000

Paint = Callable[..., str]


@dataclass(frozen=True)
class Contents:
    """The TLVs of a message, or ``fault``: why they cannot be read."""

    tlvs: tuple[TLV, ...]
    fault: str | None = None


def read_contents(message: bytes, header: Header) -> Contents:
    """Return the TLVs of a whole message."""
    if not header.legacy and header.flags & Flags.ZSTD:
        return Contents((), f"compressed with zstd, {counted(header.payload_size, 'byte')}")
    try:
        return Contents(tuple(parse_tlvs(message)))
    except WireError as error:
        return Contents((), str(error))


def time_text(timestamp: int, digits: int = 9) -> str:
    """Return nanoseconds since the epoch as UTC text (RFC 3339) with so many decimals."""
    seconds, nanoseconds = divmod(timestamp, _NS)
    fraction = f"{nanoseconds:09}"[:digits]
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction}Z"


def plain(text: str, **_style: object) -> str:
    """Return the text as it is: ``click.style`` for what is no terminal."""
    return text


def line(header: Header, contents: Contents, table: SignalTable, *, colour: bool) -> str:
    """Return a message as one line: time, source, sequence, and each TLV's name and fields."""
    paint: Paint = click.style if colour else plain
    parts = [
        paint(time_text(header.timestamp, 6) if header.timestamp else "no time", dim=True),
        paint(f"source={header.publisher}", fg="cyan"),
        f"seq={header.sequence}",
    ]
    if header.legacy:
        parts.append("legacy")
    if header.domain != Domain.SIGNAL:
        parts.append(f"domain={header.domain}")
    if contents.fault is not None:
        parts.append(paint(contents.fault, fg="red"))
    elif not contents.tlvs:
        parts.append("no TLVs")
    parts += [_tlv(tlv, table, paint) for tlv in contents.tlvs]
    return " ".join(parts)


def _tlv(tlv: TLV, table: SignalTable, paint: Paint) -> str:
    signal = table.decode(tlv)
    name = paint(signal.name, fg="green", bold=True)
    if signal.hex is not None:
        return f"{name} {_shortened(tlv.value)}"
    fields = [f"{paint(f'{key}=', dim=True)}{value}" for key, value in signal.fields.items()]
    return " ".join([name, *fields])


def _shortened(value: bytes) -> str:
    if len(value) <= HEX_SHOWN:
        return f"0x{value.hex()}"
    return f"0x{value[:HEX_SHOWN].hex()}… ({len(value)} bytes)"


def json_line(message: bytes, header: Header, contents: Contents, table: SignalTable) -> str:
    """Return a message as one JSON object in one line.

    The header's fields are exact integers. ``source`` and ``flags`` are the bytes at offsets 6 and
    7 as they stand; ``publisher`` is the source that also holds for legacy writers.
    """
    document = {
        "time": time_text(header.timestamp),
        "publisher": header.publisher,
        **header._asdict(),
        "legacy": header.legacy,
        "message_size": len(message),
        "tlvs": [_tlv_document(tlv, table.decode(tlv)) for tlv in contents.tlvs],
        "fault": contents.fault,
    }
    return json.dumps(document, ensure_ascii=False)


def _tlv_document(tlv: TLV, signal: Signal) -> dict[str, object]:
    return {
        "type": signal.type,
        "name": signal.name,
        "fields": signal.fields,
        "hex": f"0x{tlv.value.hex()}",
    }


def dump(message: bytes) -> str:
    """Return the bytes of a message in lines of 16: offset, hex, and what is printable."""
    return "\n".join(
        _dump_line(start, message[start : start + DUMP_WIDTH])
        for start in range(0, len(message), DUMP_WIDTH)
    )


def _dump_line(start: int, part: bytes) -> str:
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
    return f"  {start:08x}  {part.hex(' '):{3 * DUMP_WIDTH - 1}}  |{text}|"
