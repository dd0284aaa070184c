"""The bytes of headers and records, and which journal it is."""

import json
import zlib

import pytest

from alphapulse_relay.journal.format import (
    Epoch,
    FormatError,
    Header,
    Record,
    data_path,
    index_path,
    run_check,
    slots,
)
from tests.journal.writer import EPOCH, PAGE, message

HEADER = Header(EPOCH, 1, 2, 3, 4)
RECORD = Record(1, 2, 3, 4, 5, 6, 7)


def test_header():
    packed = HEADER.pack()
    assert len(packed) == 64
    assert packed[:16] == b"V2SEGMNT\x02\x00\x00\x00\x00\x00\x00\x00"
    assert packed[16:24] == EPOCH.to_bytes(8, "little")
    assert Header.unpack(packed) == HEADER
    assert Header.unpack(b"xx" + packed, 2) == HEADER
    assert Header.unpack(packed[:-1]) is None


@pytest.mark.parametrize("bit", range(60 * 8))
def test_header_with_a_wrong_bit(bit):
    packed = bytearray(HEADER.pack())
    packed[bit // 8] ^= 1 << bit % 8
    assert Header.unpack(bytes(packed)) is None


def test_record():
    packed = RECORD.pack(EPOCH)
    assert len(packed) == 48
    index = bytes(PAGE) + bytes(48) + packed
    assert Record.unpack(index, 1, EPOCH) == RECORD
    assert Record.unpack(index, 1, EPOCH + 1) is None
    assert Record.unpack(index, 0, EPOCH) is None
    assert RECORD.stop == 6


@pytest.mark.parametrize("byte", range(48))
def test_record_that_is_damaged(byte):
    packed = bytearray(bytes(PAGE) + RECORD.pack(EPOCH))
    packed[PAGE + byte] ^= 8
    assert Record.unpack(packed, 0, EPOCH) is None


def test_run_check():
    one, two = message(1), message(2)
    assert run_check(b"") == 0
    assert len({run_check(each) for each in (one, two, bytes(32))}) == 3
    assert run_check(one + two) != run_check(two + one)
    run = one + two
    for byte in range(len(run)):
        assert run_check(run[:byte] + bytes([run[byte] ^ 1]) + run[byte + 1 :]) != run_check(run)


def test_run_check_is_told_in_the_format():
    """The checksum of all but bytes 28-31, and those, rotated left by one bit."""
    run = message(1) + message(2)
    crc, field = zlib.crc32(run[:28] + run[32:]), int.from_bytes(run[28:32], "little")
    rotated = field * 2 % (1 << 32) + (field >> 31)
    assert run_check(run) == crc ^ rotated


def test_run_check_of_an_append_with_one_message_tells_which_it_is():
    """The checksum is right in all of them: nothing else would."""
    checks = {run_check(message(number)) for number in range(1000)}
    assert len(checks) == 1000


def test_slots(tmp_path):
    for path in (data_path(tmp_path, 12), index_path(tmp_path, 12), index_path(tmp_path, 3)):
        path.touch()
    for name in ("epoch.json", "lock", "x.v2", "notes.txt"):
        (tmp_path / name).touch()
    assert slots(tmp_path) == [3, 12]
    assert data_path(tmp_path, 12).name == "0012.v2"


class TestEpoch:
    def test_round(self, tmp_path):
        assert Epoch.read(tmp_path) is None
        epoch = Epoch(EPOCH, 3, "boot", True)
        epoch.write(tmp_path)
        assert Epoch.read(tmp_path) == epoch
        assert [path.name for path in tmp_path.iterdir()] == ["epoch.json"]

    def test_what_is_in_the_way_is_replaced_and_not_written_to(self, tmp_path):
        (tmp_path / "victim").write_text("important")
        for name in ("epoch.json", "epoch.json.new"):
            (tmp_path / name).symlink_to("victim")
        epoch = Epoch(EPOCH, 3, "boot", True)
        epoch.write(tmp_path)
        assert (tmp_path / "victim").read_text() == "important"
        assert Epoch.read(tmp_path) == epoch
        assert (tmp_path / "epoch.json").stat().st_mode & 0o777 == 0o640

    def test_no_more_is_read_than_it_ever_has(self, tmp_path):
        (tmp_path / "epoch.json").write_bytes(bytes(1 << 20))
        with pytest.raises(OSError, match="More than 4096 bytes"):
            Epoch.read(tmp_path)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "epoch": 5}', "\xff"])
    def test_unreadable(self, tmp_path, text):
        (tmp_path / "epoch.json").write_text(text, "latin-1")
        with pytest.raises(FormatError, match=r"epoch\.json: cannot be read"):
            Epoch.read(tmp_path)

    def test_another_format(self, tmp_path):
        (tmp_path / "epoch.json").write_text(json.dumps({"format": 1}))
        with pytest.raises(FormatError, match="format 1, this program knows 2"):
            Epoch.read(tmp_path)
