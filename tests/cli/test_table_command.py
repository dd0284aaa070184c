"""Options of a table as a command's."""

import click
import pytest
from click.testing import CliRunner

from alphapulse_relay import option_values as read
from alphapulse_relay.cli.table_command import Flags, TableCommand
from alphapulse_relay.option_table import CONFIG, Option, Table

TABLE = Table(
    "program",
    (
        Option("size", "s", "1", "how large", read.path, words=("1", "10", "2")),
        Option("from-where", None, "", "repeatable", read.path, repeat=True),
        Option("dry-run", None, "false", "a switch", read.truth, (bool,), switch=True),
        Option("file", None, "none", "a file", read.path, files="*.x"),
    ),
)


class Taking(TableCommand):
    """A command that takes these."""

    def table(self) -> Table:
        """Return them."""
        return TABLE


@click.command(cls=Taking)
@click.option("--own")
def command(flags: Flags, own: str | None) -> None:
    """Print them."""
    click.echo(f"{dict(flags)} {own}")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "{} None"),
        (["--own", "x"], "{} x"),
        (["-s", "", "--file", "f"], "{'size': '', 'file': 'f'} None"),
        (["--dry-run"], "{'dry-run': 'true'} None"),
        (["--from-where", "a", "--from-where", "b"], "{'from-where': ['a', 'b']} None"),
        (["--config", "c"], "{'config': 'c'} None"),
    ],
)
def test_flags(arguments: list[str], expected: str) -> None:
    shown = CliRunner().invoke(command, arguments)
    assert (shown.exit_code, shown.output) == (0, f"{expected}\n")


def test_help_has_its_own_first() -> None:
    shown = CliRunner().invoke(command, ["--help"]).output
    names = ["own", *(option.name for option in (CONFIG, *TABLE.options))]
    places = [shown.index(f"--{name}") for name in names]
    assert places == sorted(places)


def test_words_are_offered() -> None:
    (size,) = (each for each in command.get_params(click.Context(command)) if each.name == "size")
    found = size.shell_complete(click.Context(command), "1")
    assert [each.value for each in found] == ["1", "10"]
