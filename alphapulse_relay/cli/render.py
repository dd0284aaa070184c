"""A message as text: a line for people, a JSON object for programs, a dump of its bytes.

Knows the wire and the signal table; neither where messages come from nor where the text goes.
"""

import json
from collections.abc import Callable

import click

from alphapulse_relay.protocol_v2.document import describe, read_contents, time_text
from alphapulse_relay.protocol_v2.header import Domain, Header
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.protocol_v2.tlv import TLV

HEX_SHOWN = 32
"""Bytes of an undecoded value in a line for people; values are up to 64 KiB long."""
DUMP_WIDTH = 16
"""Bytes in a line of a dump."""

Paint = Callable[..., str]


def plain(text: str, **_style: object) -> str:
    """Return the text as it is: ``click.style`` for what is no terminal."""
    return text


def line(message: bytes, table: SignalTable, *, colour: bool) -> str:
    """Return a message as one line: time, source, sequence, and each TLV's name and fields."""
    header = Header.unpack(message)
    contents = read_contents(message, header)
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


def json_line(message: bytes, table: SignalTable) -> str:
    """Return a message as one JSON object in one line."""
    return json.dumps(describe(message, table), ensure_ascii=False)


def dump(message: bytes) -> str:
    """Return the bytes of a message in lines of 16: offset, hex, and what is printable."""
    return "\n".join(
        _dump_line(start, message[start : start + DUMP_WIDTH])
        for start in range(0, len(message), DUMP_WIDTH)
    )


def _dump_line(start: int, part: bytes) -> str:
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
    return f"  {start:08x}  {part.hex(' '):{3 * DUMP_WIDTH - 1}}  |{text}|"
