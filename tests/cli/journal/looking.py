"""How the commands are run, and journals damaged for them."""

from pathlib import Path

from click.testing import CliRunner, Result

from alphapulse_relay.cli.main import cli
from alphapulse_relay.journal.format import data_path
from tests.journal.writer import Message


def journal(*arguments: str, directory: Path, **options: object) -> Result:
    command, *rest = arguments
    return CliRunner().invoke(
        cli, ["journal", command, "--journal", str(directory), *rest], **options
    )


def damage(directory: Path, one: Message) -> None:
    with data_path(directory, 0).open("r+b") as file:
        file.seek(one.position - 1000 + 33)
        file.write(b"x")
