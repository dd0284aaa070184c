"""Layouts for a decoder in another language: with them alone it finds every field."""

import json
from typing import Any

from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.protocol_v2.tlv import TLV
from alphapulse_relay.web.layouts import describe_layouts

MINE = """
[30]
name = "Mine"
padded_to = 20
fields = [["a", "u8"], ["b", "i128"], ["gap", "reserved:2"]]
[31]
like = 30
name = "Like"
[32]
name = "Named"
"""
KINDS = (
    *("u8", "u16", "u32", "u64", "u128", "i8", "i16", "i32", "i64", "i128"),
    *("usd_q8", "address", "bytes:3", "reserved:2"),
)


def size_of(kind: str) -> int:
    """Return the bytes of a kind, as a decoder that knows only the kinds has them."""
    name, _, size = kind.partition(":")
    return int(size) if size else {"usd_q8": 8, "address": 20}.get(name) or int(name[1:]) // 8


def described(table: SignalTable) -> dict[str, Any]:
    """Return the layouts as who asks for the JSON gets them."""
    found = json.loads(json.dumps(describe_layouts(table)))
    assert isinstance(found, dict)
    return found


def test_of_a_table() -> None:
    found = described(SignalTable({}).extended(MINE, "mine.toml"))
    fields = [["a", "u8"], ["b", "i128"], ["gap", "reserved:2"]]
    assert found == {
        "30": {"name": "Mine", "fields": fields, "size": 19, "size_max": 20},
        "31": {"name": "Like", "fields": fields, "size": 19, "size_max": 20},
        "32": {"name": "Named", "fields": [], "size": 0, "size_max": -1},
    }


def test_of_the_builtin_table() -> None:
    found = described(SignalTable.builtin())
    assert list(found) == sorted(found, key=int)
    assert (found["21"]["name"], found["21"]["size"], found["21"]["size_max"]) == (
        "ArbitrageSignal",
        170,
        180,
    )
    assert found["21"]["fields"][-2:] == [["reserved", "reserved:2"], ["timestamp_ns", "u64"]]


def test_every_kind_by_the_name_that_a_table_gives_it() -> None:
    fields = ", ".join(f'["f{number}", "{kind}"]' for number, kind in enumerate(KINDS))
    table = SignalTable({}).extended(f'[30]\nname = "All"\nfields = [{fields}]', "mine.toml")
    found = described(table)["30"]
    assert [kind for _, kind in found["fields"]] == list(KINDS)
    assert found["size"] == sum(map(size_of, KINDS))


def test_fields_lie_where_they_are_told_to() -> None:
    table = SignalTable.builtin()
    for number, layout in described(table).items():
        if not layout["fields"]:
            continue
        assert sum(size_of(kind) for _, kind in layout["fields"]) == layout["size"]
        shown = [name for name, kind in layout["fields"] if not kind.startswith("reserved")]
        signal = table.decode(TLV(int(number), bytes(layout["size"])))
        assert list(signal.fields) == shown
