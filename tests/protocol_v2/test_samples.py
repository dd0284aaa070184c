"""The sample streams, and what their manifest says must happen to them."""

import json
import random
import zlib
from itertools import chain, pairwise
from pathlib import Path

import pytest

from alphapulse_relay.protocol_v2.errors import Rejection
from alphapulse_relay.protocol_v2.framing import Level, MessageReader, Rules, split
from alphapulse_relay.protocol_v2.tlv import parse_tlvs
from tests.protocol_v2.test_framing import check_with_carry, read_all

SAMPLES = Path(__file__).parent.parent / "samples"
MANIFEST = json.loads((SAMPLES / "manifest.json").read_text())["files"]
ENDS_THE_STREAM = {"magic", "size"}
STRICT_ONLY = {
    "legacy.v2": (0, {"tlv": 1005}),
    "mixed.v2": (809, {"checksum": 191}),  # the ones without a checksum, which strict requires
}
"""What the manifest does not say of level ``strict``: messages forwarded, rejected by reason."""


def pieces(data: bytes, cut: str) -> list[bytes]:
    if cut == "whole":
        return [data]
    if cut == "one byte at a time":
        return [data[index : index + 1] for index in range(len(data))]
    places = random.Random(cut).choices(range(len(data)), k=40)
    return [data[start:stop] for start, stop in pairwise([0, *sorted(places), len(data)])]


def expected(name: str, level: Level) -> tuple[int, dict[str, int]]:
    """Messages forwarded, and the rejected ones by reason."""
    entry = MANIFEST[name]
    if level is Level.STRICT and name in STRICT_ONLY:
        return STRICT_ONLY[name]
    forwarded = entry.get("forwarded", entry["messages"])
    rejected = entry.get("rejected", {})
    if level is Level.STRICT:
        forwarded = entry.get("forwarded_strict", forwarded)
        rejected = entry.get("rejected_strict", rejected)
    return forwarded, rejected


@pytest.fixture(params=sorted(MANIFEST))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["whole", "one byte at a time", "at random 1", "at random 2"])
def parts(request: pytest.FixtureRequest, name: str) -> list[bytes]:
    return pieces((SAMPLES / name).read_bytes(), request.param)


def test_files_are_the_ones_of_the_manifest():
    assert {file.name for file in SAMPLES.glob("*.v2")} == set(MANIFEST)
    for name, entry in MANIFEST.items():
        data = (SAMPLES / name).read_bytes()
        assert (len(data), zlib.crc32(data)) == (entry["bytes"], entry["crc32"])


@pytest.mark.parametrize("level", [Level.CHECKSUM, Level.STRICT])
def test_reader(name, parts, level):
    forwarded, rejected = expected(name, level)
    messages, broken = read_all(parts, Rules(level))
    assert len(messages) == forwarded
    assert {broken} - {None} == set(rejected) & ENDS_THE_STREAM


@pytest.mark.parametrize("level", [Level.CHECKSUM, Level.STRICT])
def test_check(name, parts, level):
    forwarded, rejected = expected(name, level)
    outcome = check_with_carry(parts, Rules(level))
    assert len(list(split(outcome.accepted))) == forwarded
    broken = {outcome.broken[0]: 1} if outcome.broken else {}
    assert outcome.rejected | broken == rejected


def test_what_is_forwarded_is_byte_for_byte_what_came():
    for name in ("arbitrage.v2", "mixed.v2", "empty-payload.v2", "legacy.v2"):
        data = (SAMPLES / name).read_bytes()
        assert b"".join(MessageReader().feed(data)) == data


def test_torn_message_is_never_forwarded():
    data = (SAMPLES / "truncated.v2").read_bytes()
    reader = MessageReader()
    whole = b"".join(reader.feed(data))
    assert whole + reader.pending == data
    assert 0 < len(reader.pending) < 204


def test_types_of_the_mixed_stream():
    wanted = {int(key): count for key, count in MANIFEST["mixed.v2"]["messages_with_type"].items()}
    data = (SAMPLES / "mixed.v2").read_bytes()
    types = [{tlv.type for tlv in parse_tlvs(message)} for message in split(data)]
    found = list(chain.from_iterable(types))
    assert {number: found.count(number) for number in set(found)} == wanted


def test_legacy_writers_can_be_read():
    messages = split((SAMPLES / "legacy.v2").read_bytes())
    shapes = [[(tlv.type, len(tlv.value)) for tlv in parse_tlvs(message)] for message in messages]
    assert shapes == [[(21, 180)]] * 1000 + [[(255, 100)]] * 5


def test_reasons_in_the_manifest_are_ours():
    entries = MANIFEST.values()
    reasons = chain(
        *(entry.get("rejected", {}) | entry.get("rejected_strict", {}) for entry in entries)
    )
    assert set(reasons) <= set(Rejection)
