"""What is found in damaged bytes."""

import time

import pytest

from alphapulse_relay.journal.salvage import Verdict, count_whole, judge, salvage
from alphapulse_relay.protocol_v2.header import MAGIC_BYTES
from tests.journal.writer import message

A, B, C = (message(number) for number in range(3))
PLAIN = message(3, checked=False)
SIZE = len(A)


def changed(data: bytes, offset: int, by: int = 1) -> bytes:
    return data[:offset] + bytes([data[offset] ^ by]) + data[offset + 1 :]


class TestJudge:
    def test_verdicts(self):
        assert judge(A, 0, SIZE) == (Verdict.GOOD, SIZE)
        assert judge(PLAIN, 0, SIZE) == (Verdict.UNCHECKED, SIZE)
        assert judge(changed(A, 33), 0, SIZE) == (Verdict.FALSE, SIZE)
        assert judge(changed(A, 0), 0, SIZE) == (Verdict.UNFRAMED, 0)

    @pytest.mark.parametrize("limit", [0, 1, 31, 32, SIZE - 1])
    def test_message_that_does_not_end_in_time(self, limit):
        assert judge(A, 0, limit) == (Verdict.UNFRAMED, 0)


class TestCountWhole:
    def test_whole(self):
        assert count_whole(A + PLAIN + B, 0, 3 * SIZE) == 3
        assert count_whole(A + PLAIN + B, SIZE, 2 * SIZE) == 1
        assert count_whole(b"", 0, 0) == 0

    @pytest.mark.parametrize("run", [A + changed(B, 40), A + changed(B, 1), A + B[:-1], A + b"x"])
    def test_not_whole(self, run):
        assert count_whole(run, 0, len(run)) is None


class TestSalvage:
    @pytest.mark.parametrize("offset", range(SIZE))
    def test_one_byte_costs_one_message(self, offset):
        run = A + changed(B, offset, 0x10) + C
        assert salvage(run) == (2, [(SIZE, 2 * SIZE)])

    def test_unchecked_messages_are_lost(self):
        assert salvage(A + PLAIN + PLAIN + B) == (2, [(SIZE, 3 * SIZE)])

    def test_all_zero(self):
        assert salvage(bytes(100)) == (0, [(0, 100)])

    def test_cut_off(self):
        assert salvage(A + B[:-1]) == (1, [(SIZE, 2 * SIZE - 1)])

    def test_foreign_bytes_between(self):
        assert salvage(A + b"x" * 77 + B) == (2, [(SIZE, SIZE + 77)])

    def test_run_that_is_damaged_where_no_message_is(self):
        """They are whole messages, but not those that were there."""
        assert salvage(A + B) == (0, [(0, 2 * SIZE)])
        assert salvage(b"") == (0, [])

    def test_beginnings_without_end_do_not_take_for_ever(self):
        """Each of them claims to be a message that goes nearly to the end."""
        beginning = MAGIC_BYTES + bytes(20) + (1 << 19).to_bytes(4, "little") + b"1234"
        run = b"x" + beginning * (1 << 15)
        start = time.process_time()
        assert salvage(run).good == 0
        assert time.process_time() - start < 5
