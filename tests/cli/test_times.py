"""Points in time, as they are written."""

import click
import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.times import since_ns, since_option

NS = 1_000_000_000
NOW = 1_777_900_000 * NS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", NOW - 600 * NS),
        ("0s", NOW),
        ("90s", NOW - 90 * NS),
        ("2h", NOW - 7200 * NS),
        ("3d", NOW - 3 * 86_400 * NS),
        ("1w", NOW - 7 * 86_400 * NS),
        ("1.5h", NOW - 5400 * NS),
        ("1h30m", NOW - 5400 * NS),
        ("1w2d3h4m5.000000001s", NOW - 788_645 * NS - 1),
        ("999999999w", 0),
        ("1777900000", NOW),
        ("1777900000.25", NOW + NS // 4),
        ("10", 10 * NS),
        ("2026-05-04T12:30", 1_777_897_800 * NS),
        ("2026-05-04T12:30:00.000001Z", 1_777_897_800 * NS + 1000),
        ("2026-05-04T14:30+02:00", 1_777_897_800 * NS),
        ("2026-05-04", 1_777_852_800 * NS),
        ("1969-12-31", 0),
    ],
)
def test_since(text, expected):
    assert since_ns(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "m", "-5m", "5y", "1.h", "30m1h", "1h1h", "yesterday", "1" * 12]
)
def test_what_is_not_a_time(text):
    with pytest.raises(ValueError, match="is not an age"):
        since_ns(text, NOW)


def test_clocks_may_differ_but_not_by_days():
    assert since_ns(str(NOW // NS + 5), NOW) == NOW + 5 * NS
    for text in (str(NOW // NS + 6), "2999-01-01"):
        with pytest.raises(ValueError, match=f"'{text}' is in the future: "):
            since_ns(text, NOW)


def test_option():
    @click.command()
    @since_option
    def command(since: int | None) -> None:
        click.echo(since)

    assert CliRunner().invoke(command, ["--since", "5"]).output == f"{5 * NS}\n"
    assert CliRunner().invoke(command, []).output == "\n"
    shown = CliRunner().invoke(command, ["--since", "soon"])
    assert (shown.exit_code, "'soon' is not an age" in shown.output) == (2, True)
