"""Signals: what the values of TLVs mean, by a table of layouts.

Knows how to read such a table (TOML), and how to turn a value into named fields and back. Which
types there are, and how their values are laid out, is not code: it stands in ``signals.toml``
beside this file, and in a file of the user's own (protocol document, "Signal table").
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from alphapulse_relay.protocol_v2.tlv import EXTENDED, EXTENDED_MAX, TLV

JSON_SAFE_BITS = 32
"""Wider integers are shown as text: many JSON readers keep only 53 bits of a number."""
Q8_DIGITS = 8  # the integer on the wire is US dollars times 10^8
Q8_RANGE = "with up to 8 decimals, at most 92233720368.54775807 either way"
KINDS = "u8 to u128, i8 to i128, usd_q8, address, bytes:N, reserved:N"


class LayoutError(ValueError):
    """A table that cannot be used; its one line names the file, the type and the field."""


class Signal(NamedTuple):
    """A decoded TLV, ready for JSON.

    Either ``fields`` holds the layout's fields but the reserved ones, in order, and ``hex`` is
    ``None``; or no layout fits: ``fields`` is empty and ``hex`` is the value (0x…).
    """

    name: str
    type: int
    fields: dict[str, int | str]
    hex: str | None


class Kind(NamedTuple):
    """How one field lies on the wire: its bytes, and how they are shown and read.

    ``name`` is what a table calls it. ``read`` takes what ``show`` gives, as text; its
    ``ValueError`` says what is accepted.
    """

    name: str
    size: int
    show: Callable[[bytes], int | str]
    read: Callable[[str], bytes]
    hidden: bool = False


@dataclass(frozen=True)
class Layout:
    """A type's name, and its fields in order: ``size`` bytes, with padding up to ``size_max``."""

    name: str
    fields: Mapping[str, Kind] = field(default_factory=dict)
    size: int = 0
    size_max: int = -1  # with only a name: no value fits


class SignalTable:
    """Layouts by TLV type. Never changes: :meth:`extended` gives a new one."""

    def __init__(self, layouts: Mapping[int, Layout]) -> None:
        self.layouts: Mapping[int, Layout] = MappingProxyType(dict(layouts))
        """All of it; a view."""

    @classmethod
    def builtin(cls) -> Self:
        """Return the table that ships with the package (``signals.toml``)."""
        file = resources.files(__package__) / "signals.toml"
        return cls({}).extended(file.read_text("utf-8"), file.name)

    def extended(self, text: str, origin: str) -> Self:
        """Return this table with the types of a TOML text added; a type in both is the text's.

        ``origin`` is the file's name for the message of the :class:`LayoutError` that is raised
        if the text is not such a table.
        """
        layouts = dict(self.layouts)
        for key, entry in _parse(text, origin).items():
            where = f"{origin}: type {key if key.isdecimal() else repr(key)}"
            layouts[_type_number(key, where)] = _layout(entry, layouts, where)
        return type(self)(layouts)

    def name(self, tlv_type: int) -> str:
        """Return the type's name; "type 24" for one that is not in the table."""
        return self.layouts[tlv_type].name if tlv_type in self.layouts else f"type {tlv_type}"

    def decode(self, tlv: TLV) -> Signal:
        """Return the TLV's fields, or its value as hex where no layout fits it."""
        layout = self.layouts.get(tlv.type)
        if layout is None or not layout.size <= len(tlv.value) <= layout.size_max:
            return Signal(self.name(tlv.type), tlv.type, {}, _hex(tlv.value))
        fields, start = {}, 0
        for name, kind in layout.fields.items():
            if not kind.hidden:
                fields[name] = kind.show(tlv.value[start : start + kind.size])
            start += kind.size
        return Signal(layout.name, tlv.type, fields, None)

    def encode(self, tlv_type: int, values: Mapping[str, str]) -> bytes:
        """Return a value of that type, without padding. A field that is not given is 0.

        Each field's text is what :meth:`decode` shows; of an amount, the last decimals may be left
        out. Raises ``ValueError``, one line that names the field and what is accepted.
        """
        layout = self.layouts.get(tlv_type)
        if layout is None or not layout.fields:
            raise ValueError(f"the fields of {self.name(tlv_type)} are not known")
        shown = [name for name, kind in layout.fields.items() if not kind.hidden]
        for name in values.keys() - set(shown):
            raise ValueError(f"{layout.name} has no field {name!r}, but {', '.join(shown)}")
        return b"".join(_value(name, kind, values) for name, kind in layout.fields.items())


def _value(name: str, kind: Kind, values: Mapping[str, str]) -> bytes:
    if name not in values:
        return bytes(kind.size)
    try:
        return kind.read(values[name])
    except ValueError as error:
        raise ValueError(f"{name}: {values[name]!r} is not {error}") from None


def _kind(text: str) -> Kind | None:
    """Return the kind that a table calls ``text``."""
    if match := re.fullmatch(r"([ui])(8|16|32|64|128)", text):
        return _integer(text, int(match[2]), signed=match[1] == "i")
    if match := re.fullmatch(r"(bytes|reserved):([1-9][0-9]{0,4})", text):
        return _raw(text, int(match[2]), hidden=match[1] == "reserved")
    return {"address": _raw("address", 20), "usd_q8": _usd_q8()}.get(text)


def _integer(name: str, bits: int, *, signed: bool) -> Kind:
    size = bits // 8
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    def show(value: bytes) -> int | str:
        number = int.from_bytes(value, "little", signed=signed)
        return number if bits <= JSON_SAFE_BITS else str(number)

    def read(text: str) -> bytes:
        # 39 digits hold 128 bits; thousands would make int() fail with words of its own
        if re.fullmatch(r"-?[0-9]{1,39}", text) and low <= int(text) <= high:
            return int(text).to_bytes(size, "little", signed=signed)
        raise ValueError(f"an integer from {low} to {high}")

    return Kind(name, size, show, read)


def _usd_q8() -> Kind:
    integer = _integer("i64", 64, signed=True)

    def show(value: bytes) -> str:
        number = int(integer.show(value))
        whole, fraction = divmod(abs(number), 10**Q8_DIGITS)
        return f"{'-' if number < 0 else ''}{whole}.{fraction:0{Q8_DIGITS}}"

    def read(text: str) -> bytes:
        match = re.fullmatch(rf"(-?[0-9]+)(?:\.([0-9]{{1,{Q8_DIGITS}}}))?", text)
        try:
            return integer.read(match[1] + (match[2] or "").ljust(Q8_DIGITS, "0") if match else "")
        except ValueError:
            raise ValueError(f"US dollars, {Q8_RANGE}") from None

    return Kind("usd_q8", integer.size, show, read)


def _raw(name: str, size: int, *, hidden: bool = False) -> Kind:
    def read(text: str) -> bytes:
        if len(text) == 2 + 2 * size and re.fullmatch("0[xX][0-9a-fA-F]*", text):
            return bytes.fromhex(text[2:])
        raise ValueError(f"0x and {2 * size} hex digits")

    return Kind(name, size, _hex, read, hidden)


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{origin}: not TOML: {' '.join(str(error).split())}") from None


def _type_number(key: str, where: str) -> int:
    if re.fullmatch(r"0|[1-9][0-9]{0,2}", key) and int(key) < EXTENDED:
        return int(key)
    raise LayoutError(f"{where}: not a TLV type, 0-{EXTENDED - 1}")


def _layout(entry: Any, known: Mapping[int, Layout], where: str) -> Layout:
    if not isinstance(entry, dict):
        raise LayoutError(f"{where}: not a table with a name")
    for key in entry.keys() - {"name", "fields", "padded_to", "like"}:
        raise LayoutError(f"{where}: unknown key {key!r} (name, fields, padded_to, like)")
    if "like" in entry:
        return _like(entry, known, where)
    name = _identifier(entry.get("name"), f"{where}: name")
    if entry.keys() == {"name"}:
        return Layout(name)
    fields = _fields(entry.get("fields"), where)
    size = sum(kind.size for kind in fields.values())
    return Layout(name, fields, size, _size_max(size, entry.get("padded_to", size), where))


def _like(entry: dict[str, Any], known: Mapping[int, Layout], where: str) -> Layout:
    model = entry["like"]
    if type(model) is not int or model not in known or len(entry) > 1 + ("name" in entry):
        raise LayoutError(f"{where}: like takes a type known by then, and only a name beside it")
    name = entry.get("name", known[model].name)
    return replace(known[model], name=_identifier(name, f"{where}: name"))


def _fields(entries: Any, where: str) -> dict[str, Kind]:
    if not isinstance(entries, list) or not entries:
        raise LayoutError(f'{where}: fields must be a list of ["name", "kind"]')
    fields: dict[str, Kind] = {}
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, list) or len(entry) != 2:
            raise LayoutError(f'{where}, field {number}: must be ["name", "kind"], not {entry!r}')
        name = _identifier(entry[0], f"{where}, field {number}")
        kind = _kind(entry[1]) if isinstance(entry[1], str) else None
        if kind is None:
            raise LayoutError(f"{where}, field {name}: unknown kind {entry[1]!r} ({KINDS})")
        if name in fields:
            raise LayoutError(f"{where}, field {name}: there are two of this name")
        fields[name] = kind
    return fields


def _size_max(size: int, padded_to: Any, where: str) -> int:
    if size > EXTENDED_MAX:
        raise LayoutError(f"{where}: the fields have {size} bytes, a TLV at most {EXTENDED_MAX}")
    if type(padded_to) is int and size <= padded_to <= EXTENDED_MAX:
        return padded_to
    raise LayoutError(f"{where}: padded_to {padded_to!r} is not within {size}-{EXTENDED_MAX} bytes")


def _identifier(name: Any, where: str) -> str:
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return name
    raise LayoutError(f"{where}: {name!r} is not a name of letters, digits and _")
