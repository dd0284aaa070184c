"""Signals against literal bytes, and tables that must be refused with a telling line."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2.signals import LayoutError, Signal, SignalTable
from alphapulse_relay.protocol_v2.tlv import TLV

TABLE = SignalTable.builtin()

ARBITRAGE = bytes.fromhex(
    "1500"  # strategy_id 21
    "0100000000000080"  # signal_id 2^63 + 1
    "89000000"  # chain_id 137
    + "a1" * 20  # source_pool
    + "b2" * 20  # target_pool
    + "0300 0400"  # source_venue, target_venue
    + "c3" * 20  # token_in
    + "d4" * 20  # token_out
    + "80 7c 81 4a 00000000"  # expected_profit 12.5 USD
    "00 e8 76 48 17000000"  # required_capital 1000 USD
    "4b00"  # spread_bps 75
    "01 00000000000000"  # dex_fees 0.00000001 USD
    "ff ffffffffffffff"  # gas_cost -0.00000001 USD
    "00 00000000000080"  # slippage, the lowest
    "ff ffffffffffff7f"  # net_profit, the highest
    "3200"  # slippage_tolerance_bps 50
    "1e000000"  # max_gas_price_gwei 30
    "80a8ad68"  # valid_until
    "0100"  # priority
    "eeee"  # reserved
    "00007a4609285f18"  # timestamp_ns
)
ARBITRAGE_FIELDS = {
    "strategy_id": 21,
    "signal_id": "9223372036854775809",
    "chain_id": 137,
    "source_pool": "0x" + "a1" * 20,
    "target_pool": "0x" + "b2" * 20,
    "source_venue": 3,
    "target_venue": 4,
    "token_in": "0x" + "c3" * 20,
    "token_out": "0x" + "d4" * 20,
    "expected_profit_usd_q8": "12.50000000",
    "required_capital_usd_q8": "1000.00000000",
    "spread_bps": 75,
    "dex_fees_usd_q8": "0.00000001",
    "gas_cost_usd_q8": "-0.00000001",
    "slippage_usd_q8": "-92233720368.54775808",
    "net_profit_usd_q8": "92233720368.54775807",
    "slippage_tolerance_bps": 50,
    "max_gas_price_gwei": 30,
    "valid_until": 1756211328,
    "priority": 1,
    "timestamp_ns": "1756166400000000000",
}
EVERY_KIND = """
[30]
name = "EveryKind"
fields = [
    ["a", "u8"], ["b", "u16"], ["c", "u32"], ["d", "u64"], ["e", "u128"],
    ["f", "i8"], ["g", "i16"], ["h", "i32"], ["i", "i64"], ["j", "i128"],
    ["k", "usd_q8"], ["l", "address"], ["m", "bytes:3"], ["n", "reserved:2"],
]
"""


def one_field(kind: str) -> SignalTable:
    return TABLE.extended(f'[30]\nname = "One"\nfields = [["x", "{kind}"]]', "one.toml")


class TestDecode:
    def test_arbitrage_signal(self):
        assert len(ARBITRAGE) == 170
        signal = TABLE.decode(TLV(21, ARBITRAGE))
        assert signal == Signal("ArbitrageSignal", 21, ARBITRAGE_FIELDS, None)
        assert list(signal.fields) == list(ARBITRAGE_FIELDS)

    def test_signal_identity(self):
        value = struct.pack("<HQIBIx", 7, 8, 9, 100, 1)
        fields = {
            "strategy_id": 7,
            "signal_id": "8",
            "signal_nonce": 9,
            "confidence": 100,
            "chain_id": 1,
        }
        assert TABLE.decode(TLV(22, value)) == ("SignalIdentity", 22, fields, None)

    def test_signal_economics(self):
        value = b"\xfe" + b"\xff" * 15 + b"\xff" * 16 + b"\x01" + bytes(15)
        fields = {
            "expected_profit": "-2",
            "required_capital": "340282366920938463463374607431768211455",
            "gas_estimate": "1",
        }
        assert TABLE.decode(TLV(23, value)) == ("SignalEconomics", 23, fields, None)

    @pytest.mark.parametrize("padding", [1, 9, 10])
    def test_padded_value(self, padding):
        assert TABLE.decode(TLV(21, ARBITRAGE + bytes(padding))).fields == ARBITRAGE_FIELDS

    @pytest.mark.parametrize(
        ("tlv_type", "size"),
        [(21, 0), (21, 169), (21, 181), (22, 19), (22, 21), (23, 47), (23, 49), (24, 3), (100, 0)],
    )
    def test_shown_as_hex_where_no_layout_fits(self, tlv_type, size):
        signal = TABLE.decode(TLV(tlv_type, b"\xa5" * size))
        assert signal == (TABLE.name(tlv_type), tlv_type, {}, "0x" + "a5" * size)

    def test_json_loses_nothing_where_numbers_are_floating_point(self):
        text = json.dumps(TABLE.decode(TLV(21, ARBITRAGE))._asdict())
        assert json.loads(text, parse_int=float)["fields"] == ARBITRAGE_FIELDS

    @given(st.integers(0, 255), st.binary(max_size=200))
    def test_any_value(self, tlv_type, value):
        signal = TABLE.decode(TLV(tlv_type, value))
        assert bool(signal.fields) == (signal.hex is None)
        json.dumps(signal)


class TestEncode:
    def test_literal(self):
        values = {name: str(value) for name, value in ARBITRAGE_FIELDS.items()}
        assert TABLE.encode(21, values) == ARBITRAGE.replace(b"\xee\xee", b"\0\0")

    def test_missing_fields_are_zero(self):
        assert TABLE.encode(21, {}) == bytes(170)
        value = TABLE.encode(22, {"confidence": "255"})
        assert value == bytes(14) + b"\xff" + bytes(5)

    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("12.5", 1_250_000_000),
            ("12", 1_200_000_000),
            ("-0.5", -50_000_000),
            ("0.00000001", 1),
            ("-92233720368.54775808", -(2**63)),
        ],
    )
    def test_amounts(self, text, number):
        assert one_field("usd_q8").encode(30, {"x": text}) == struct.pack("<q", number)

    @pytest.mark.parametrize(
        ("kind", "text", "accepted"),
        [
            ("u8", "256", "an integer from 0 to 255"),
            ("u8", "-1", "an integer from 0 to 255"),
            ("i8", "-129", "an integer from -128 to 127"),
            ("i8", "128", "an integer from -128 to 127"),
            ("u16", "1.0", "an integer from 0 to 65535"),
            ("u16", "0x10", "an integer from 0 to 65535"),
            ("u16", "1_0", "an integer from 0 to 65535"),
            ("u16", "\N{ARABIC-INDIC DIGIT ONE}", "an integer from 0 to 65535"),
            ("u16", "1\n", "an integer from 0 to 65535"),
            ("u64", "9" * 5000, "an integer from 0 to 18446744073709551615"),
            ("usd_q8", "", "US dollars, with up to 8 decimals"),
            ("usd_q8", "1.000000001", "US dollars, with up to 8 decimals"),
            ("usd_q8", "1e3", "US dollars, with up to 8 decimals"),
            ("usd_q8", "92233720368.54775808", "at most 92233720368.54775807 either way"),
            ("address", "a1" * 20, "0x and 40 hex digits"),
            ("address", "0x" + "a1" * 19, "0x and 40 hex digits"),
            ("bytes:2", "0xzzzz", "0x and 4 hex digits"),
            ("bytes:2", "0x 123", "0x and 4 hex digits"),
        ],
    )
    def test_refused_text(self, kind, text, accepted):
        with pytest.raises(ValueError, match=r"^x: ") as caught:
            one_field(kind).encode(30, {"x": text})
        line = str(caught.value)
        assert accepted in line
        assert "\n" not in line

    @pytest.mark.parametrize("name", ["profit", "reserved"])
    def test_unknown_field(self, name):
        with pytest.raises(ValueError, match=f"SignalIdentity has no field '{name}', but strategy"):
            TABLE.encode(22, {name: "1"})

    @pytest.mark.parametrize(("tlv_type", "name"), [(24, "type 24"), (100, "Heartbeat")])
    def test_type_without_layout(self, tlv_type, name):
        with pytest.raises(ValueError, match=f"the fields of {name} are not known"):
            TABLE.encode(tlv_type, {})

    @given(st.binary(min_size=93, max_size=93))
    def test_takes_what_decode_shows(self, value):
        table = TABLE.extended(EVERY_KIND, "mine.toml")
        value += bytes(2)  # reserved
        fields = table.decode(TLV(30, value)).fields
        assert table.encode(30, {name: str(text) for name, text in fields.items()}) == value


class TestName:
    @pytest.mark.parametrize(
        ("tlv_type", "name"),
        [(21, "ArbitrageSignal"), (100, "Heartbeat"), (112, "SequenceSync"), (199, "type 199")],
    )
    def test_name(self, tlv_type, name):
        assert TABLE.name(tlv_type) == name


class TestLayouts:
    def test_by_type(self):
        layout = TABLE.layouts[22]
        assert (layout.name, layout.size, layout.size_max) == ("SignalIdentity", 20, 20)
        assert [kind.name for kind in layout.fields.values()][:2] == ["u16", "u64"]

    def test_cannot_be_changed(self):
        with pytest.raises(TypeError):
            TABLE.layouts[22] = TABLE.layouts[21]


class TestExtended:
    def test_adds_and_overrides_and_leaves_the_first_alone(self):
        table = TABLE.extended(EVERY_KIND + '[21]\nname = "Mine"\nfields = [["x", "u8"]]', "m.toml")
        assert table.decode(TLV(21, b"\x07")) == ("Mine", 21, {"x": 7}, None)
        assert (table.name(30), table.name(22)) == ("EveryKind", "SignalIdentity")
        assert (TABLE.name(30), TABLE.name(21)) == ("type 30", "ArbitrageSignal")

    def test_every_kind(self):
        table = TABLE.extended(EVERY_KIND, "mine.toml")
        signal = table.decode(TLV(30, b"\xff" * 95))
        assert signal.fields == {
            "a": 255,
            "b": 65_535,
            "c": 2**32 - 1,
            "d": str(2**64 - 1),
            "e": str(2**128 - 1),
            **dict.fromkeys("fgh", -1),
            **dict.fromkeys("ij", "-1"),
            "k": "-0.00000001",
            "l": "0x" + "ff" * 20,
            "m": "0xffffff",
        }

    def test_another_number_for_a_known_layout(self):
        table = TABLE.extended('[20]\nlike = 21\n[32]\nlike = 20\nname = "Old"', "mine.toml")
        assert table.decode(TLV(20, ARBITRAGE)) == ("ArbitrageSignal", 20, ARBITRAGE_FIELDS, None)
        assert table.decode(TLV(32, ARBITRAGE + bytes(10))).name == "Old"

    def test_types_0_and_254(self):
        table = TABLE.extended('[0]\nname = "Zero"\n[254]\nname = "Last"', "mine.toml")
        assert (table.name(0), table.name(254)) == ("Zero", "Last")

    def test_largest_layout(self):
        assert len(one_field("bytes:65535").encode(30, {})) == 65_535

    def test_empty_text(self):
        assert TABLE.extended("", "mine.toml").name(21) == "ArbitrageSignal"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[21", "mine.toml: not TOML: "),
            ("x = " + "[" * 10_000, "mine.toml: not TOML: "),
            ("x = " + "9" * 5000, "mine.toml: not TOML: "),
            ("[21]\nname='A'\n[21]\nname='B'", "mine.toml: not TOML: Cannot declare"),
            ("[255]\nname='A'", "mine.toml: type 255: not a TLV type, 0-254"),
            ("[-1]\nname='A'", "mine.toml: type '-1': not a TLV type, 0-254"),
            ("[021]\nname='A'", "mine.toml: type 021: not a TLV type, 0-254"),
            ('["a\\nb"]\nname="A"', r"mine.toml: type 'a\nb': not a TLV type, 0-254"),
            ("21 = 5", "mine.toml: type 21: not a table with a name"),
            ("[21]", "mine.toml: type 21: name: None is not a name of letters"),
            ("[21]\nname='A b'", "mine.toml: type 21: name: 'A b' is not a name of letters"),
            ("[21]\nname='A'\nsize=3", "mine.toml: type 21: unknown key 'size' (name, fields"),
            ("[21]\nname='A'\nfields=5", "mine.toml: type 21: fields must be a list"),
            ("[21]\nname='A'\nfields=[]", "mine.toml: type 21: fields must be a list"),
            ("[21]\nname='A'\npadded_to=5", "mine.toml: type 21: fields must be a list"),
            ("[21]\nname='A'\nfields=[5]", 'mine.toml: type 21, field 1: must be ["name", "kind"]'),
            ("[21]\nname='A'\nfields=[['x']]", "mine.toml: type 21, field 1: must be"),
            ("[21]\nname='A'\nfields=[['x=','u8']]", "mine.toml: type 21, field 1: 'x=' is not"),
            (
                "[21]\nname='A'\nfields=[['x','u7']]",
                "mine.toml: type 21, field x: unknown kind 'u7'",
            ),
            ("[21]\nname='A'\nfields=[['x',7]]", "mine.toml: type 21, field x: unknown kind 7"),
            ("[21]\nname='A'\nfields=[['x','bytes:0']]", "field x: unknown kind 'bytes:0'"),
            (
                "[21]\nname='A'\nfields=[['x','u8'],['x','u8']]",
                "mine.toml: type 21, field x: there are two of this name",
            ),
            (
                "[21]\nname='A'\nfields=[['x','u32']]\npadded_to=3",
                "mine.toml: type 21: padded_to 3 is not within 4-65535 bytes",
            ),
            ("[21]\nname='A'\nfields=[['x','u8']]\npadded_to=true", "padded_to True is not within"),
            ("[21]\nname='A'\nfields=[['x','bytes:65535'],['y','u8']]", "the fields have 65536"),
            ("[20]\nlike=24", "mine.toml: type 20: like takes a type known by then"),
            ("[20]\nlike=[21]", "mine.toml: type 20: like takes a type known by then"),
            ("[20]\nlike=21\npadded_to=200", "and only a name beside it"),
            ("[20]\nlike=21\nname=''", "mine.toml: type 20: name: '' is not a name"),
        ],
    )
    def test_refused(self, text, message):
        with pytest.raises(LayoutError) as caught:
            TABLE.extended(text, "mine.toml")
        line = str(caught.value)
        assert line.startswith("mine.toml: ")
        assert message in line
        assert "\n" not in line

    @given(st.text(max_size=60))
    def test_any_text_gives_a_table_or_one_line(self, text):
        try:
            table = TABLE.extended(text, "mine.toml")
        except LayoutError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - either outcome is right
        else:
            assert table.name(21)
