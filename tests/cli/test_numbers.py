"""Numbers, as they are written and told."""

import click
import pytest

from alphapulse_relay.cli.numbers import MOST, FiniteRange, WholeNumber, counted


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), (str(MOST), MOST), (5, 5)])
def test_whole_number(text, number):
    assert WholeNumber(1).convert(text, None, None) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", "\u0663", str(MOST + 1), "1" * 5000])
def test_what_is_no_whole_number(text):
    with pytest.raises(click.BadParameter, match="is not a whole number from 1 on"):
        WholeNumber(1).convert(text, None, None)


def test_least_may_be_nothing():
    assert WholeNumber(0).convert("0", None, None) == 0


@pytest.mark.parametrize("text", ["nan", "inf"])
def test_what_is_not_finite(text):
    with pytest.raises(click.BadParameter):
        FiniteRange(min=0).convert(text, None, None)


def test_counted():
    assert (counted(1, "byte"), counted(2000, "byte", ",")) == ("1 byte", "2,000 bytes")
