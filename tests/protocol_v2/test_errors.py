"""What is wrong with bytes: one name, one place, one line."""

import pytest

from alphapulse_relay.protocol_v2.errors import Rejection, WireError


@pytest.mark.parametrize("reason", list(Rejection))
def test_is_one_line_with_its_name_and_place(reason: Rejection) -> None:
    error = WireError(reason, 40, "found this")
    assert str(error) == f"{reason.value} at byte 40: found this"
    assert (error.reason, error.offset, error.detail) == (reason, 40, "found this")


@pytest.mark.parametrize("by", [0, 1, 1 << 40])
def test_can_be_told_from_further_ahead(by: int) -> None:
    error = WireError(Rejection.SIZE, 7, "too large")
    moved = error.moved(by)
    assert str(moved) == f"size at byte {7 + by}: too large"
    assert (moved.reason, moved.offset, moved.detail) == (Rejection.SIZE, 7 + by, "too large")
    assert (error.offset, str(error)) == (7, "size at byte 7: too large")


def test_moves_add_up_and_keep_the_kind() -> None:
    class OtherError(WireError):
        pass

    moved = OtherError(Rejection.TLV, 1, "odd").moved(10).moved(100)
    assert type(moved) is OtherError
    assert moved.offset == 111
