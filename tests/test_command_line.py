"""A command line that is made from a table; the programs' own are tested with their options."""

import pytest
from twisted.python import usage

from alphapulse_relay.command_line import CommandLine, exit_for, precedence
from alphapulse_relay.option_sources import OptionError
from alphapulse_relay.option_table import Option, Table

TABLE = Table(
    "small-program",
    (
        Option("size", "s", "1", "how large", int),
        Option("part", "p", "a b", "one more", str, repeat=True),
        Option("is-new", None, "false", "whether", bool, (bool,), switch=True),
    ),
)


class Small(CommandLine, table=TABLE):
    """A command line that reads nothing."""


class Wrong(CommandLine, table=TABLE):
    """One that finds something wrong."""

    def postOptions(self) -> None:
        raise OptionError("all is wrong", 78)


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ([], {}),
        (["-s", "2", "--is-new"], {"size": "2", "is-new": "true"}),
        (["-p", "x", "--part=y", "--config=c"], {"part": ["x", "y"], "config": "c"}),
    ],
)
def test_flags(arguments: list[str], flags: dict[str, object]) -> None:
    line = Small()
    line.parseOptions(arguments)
    assert line.flags == flags


def test_two_lines_have_nothing_of_each_other() -> None:
    one, other = Small(), Small()
    one.parseOptions(["--part", "x"])
    other.parseOptions([])
    assert other.flags == {}


def test_what_is_wrong_ends_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        Wrong().parseOptions([])
    assert stop.value.code == 78
    assert capsys.readouterr() == ("", "small-program: all is wrong\n")


def test_an_error_of_twisted_is_one_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        exit_for(TABLE, usage.UsageError("what?"))
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", "small-program: what?\n")


def test_precedence_names_a_variable() -> None:
    assert "(SMALL_PROGRAM_ and the name in capitals, such as SMALL_PROGRAM_IS_NEW)" in precedence(
        TABLE, "is-new"
    )
