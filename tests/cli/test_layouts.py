"""Options that speak of types and sources."""

import click
import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.layouts import (
    layouts_option,
    source_numbers,
    type_names,
    type_number,
    type_numbers,
)
from alphapulse_relay.protocol_v2.signals import SignalTable

TABLE = SignalTable.builtin()
OWN = """
[24]
name = "Own"
fields = [["level", "u8"]]
"""


@click.command()
@layouts_option
def names(table: SignalTable) -> None:
    click.echo(f"{table.name(21)} {table.name(24)}")


def test_without_a_file_the_table_is_the_built_in_one():
    assert CliRunner().invoke(names).output == "ArbitrageSignal type 24\n"


def test_file_is_added(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    assert CliRunner().invoke(names, ["--layouts", str(file)]).output == "ArbitrageSignal Own\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[", "not TOML"),
        (b"[24]\nname = 3", "type 24: name"),
        (b"\xff", "not UTF-8"),
        (OWN.encode() + b"padded_to = 0x" + b"F" * 5000, "too long"),
        (b"a = " + b"[" * 3000, "not TOML"),
    ],
)
def test_wrong_file_is_wrong_usage(content, complaint, tmp_path):
    file = tmp_path / "own.toml"
    file.write_bytes(content)
    shown = CliRunner().invoke(names, ["--layouts", str(file)])
    assert shown.exit_code == 2
    assert "own.toml" in shown.output
    assert complaint in shown.output


def test_missing_file_is_wrong_usage(tmp_path):
    shown = CliRunner().invoke(names, ["--layouts", str(tmp_path / "none.toml")])
    assert shown.exit_code == 2
    assert "No such file" in shown.output


def test_names():
    assert type_names(TABLE)["SignalIdentity"] == 22
    assert 24 not in type_names(TABLE).values()


@pytest.mark.parametrize(
    ("text", "number"),
    [("21", 21), ("0", 0), ("255", 255), ("ArbitrageSignal", 21), ("signalidentity", 22)],
)
def test_type(text, number):
    assert type_number(text, type_names(TABLE)) == number


@pytest.mark.parametrize("text", ["256", "-1", "", "Nothing", "²", "9" * 5000])
def test_not_a_type(text):
    with pytest.raises(click.BadParameter, match="neither a number"):
        type_number(text, type_names(TABLE))


def test_types_are_separated_by_commas_or_given_apart():
    assert type_numbers(["21, SignalIdentity", "23"], TABLE) == {21, 22, 23}
    assert type_numbers([], TABLE) == frozenset()


def test_sources():
    context = click.Context(names)
    assert source_numbers(context, names.params[0], ["20,21", "255"]) == {20, 21, 255}
    for text in ("256", "-1", "x", ""):
        with pytest.raises(click.BadParameter, match="not a number from 0 to 255"):
            source_numbers(context, names.params[0], [text])
