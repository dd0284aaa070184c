"""Signals worth looking at: two publishers, with fields that can be told apart."""

import struct
import time

from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.protocol_v2.tlv import build_tlv

TABLE = SignalTable.builtin()
ARBITRAGE, IDENTITY = 21, 22


def arbitrage(sequence: int, source: int = 20, **fields: object) -> bytes:
    """Return an arbitrage signal that is made now and expires in a minute."""
    values = {
        "strategy_id": "7",
        "signal_id": str(1_000_000 + sequence),
        "source_venue": "200",
        "target_venue": "300",
        "expected_profit_usd_q8": "180.25",
        "net_profit_usd_q8": "151.5",
        "required_capital_usd_q8": "25000",
        "spread_bps": "35",
        "valid_until": str(int(time.time()) + 60),
        **{name: str(value) for name, value in fields.items()},
    }
    return _message(ARBITRAGE, TABLE.encode(ARBITRAGE, values), sequence, source)


def identity(sequence: int, source: int = 21) -> bytes:
    """Return a signal of another type."""
    return _message(IDENTITY, TABLE.encode(IDENTITY, {"signal_id": "77"}), sequence, source)


def flood(count: int, first: int) -> bytes:
    """Return so many signals of two publishers and types in one piece, cheap to make."""
    now = struct.pack("<Q", time.time_ns())
    pieces = []
    for number in range(first, first + count):
        model = _MODELS[number % 2]
        sequence = struct.pack("<Q", number // 2 + 1)
        pieces.append(model[:8] + sequence + now + model[24:28] + bytes(4) + model[32:])
    return b"".join(pieces)


def _message(tlv_type: int, value: bytes, sequence: int, source: int) -> bytes:
    payload = build_tlv(tlv_type, value)
    return build_message(payload, source=source, sequence=sequence, timestamp=time.time_ns())


_MODELS = (arbitrage(1, 20), identity(1, 21))
