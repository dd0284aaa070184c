"""What is said to a person."""

import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.main import cli
from alphapulse_relay.cli.words import Failure, examples, printable, say


def test_a_line_names_the_program(capsys):
    say("no relay")
    assert capsys.readouterr() == ("", "signal-relay: no relay\n")


@pytest.mark.parametrize("text", ["\x1b[31mred", "two\nlines", "\x07", "\x9b2J", "\u202e"])
def test_others_cannot_steer_the_terminal(text, capsys):
    say(text)
    assert capsys.readouterr().err.count("\n") == 1
    assert printable(text).isprintable()
    assert "?" in printable(text)


def test_failure_is_one_line(capsys):
    Failure("it went wrong").show()
    assert capsys.readouterr().err == "signal-relay: it went wrong\n"


def test_examples_are_not_wrapped():
    assert examples("a", "b").splitlines() == ["\b", "Examples:", "  a", "  b"]
    shown = CliRunner().invoke(cli, ["tail", "--help"]).output
    assert "signal-relay tail --raw --count 1000 > sample.v2\n" in shown
