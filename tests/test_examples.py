"""The examples, as programs of their own against a relay that says what is written down."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphapulse_relay.protocol_v2.control import SequenceSync, SyncState
from tests.client.journal import EPOCH, Journal, messages, said
from tests.client.scripted import Connection, ScriptedRelay, acknowledge, serves, serves_on
from tests.support import PATIENCE, Relay, clean_environment

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.fixture
def path() -> Iterator[Path]:
    """A place for a Unix socket: its path has room for 107 bytes, and pytest's are long."""
    with tempfile.TemporaryDirectory(prefix="example-") as directory:
        yield Path(directory) / "s.sock"


def run(name: str, *options: object) -> list[str]:
    """The lines that an example printed."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, options)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=EXAMPLES.parent,
        env=clean_environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def lines(first: int, last: int) -> list[str]:
    return [f"source 20 sequence {number}" for number in range(first, last + 1)]


def test_strategy(path):
    def script(connection: Connection) -> None:
        connection.subscribe()
        connection.send(said(SequenceSync(EPOCH, 0, SyncState.LIVE)))
        for _ in range(3):
            last = connection.message()
        connection.send(acknowledge(last))
        assert connection.until_closed() == []

    with ScriptedRelay(path, script):
        told = run("strategy.py", "--socket", path, "--count", 3)
    assert told == ["3 signals are in the relay"]


def test_consumer_goes_on_where_it_stopped(path, tmp_path):
    journal = Journal(messages(5))
    options = "--socket", path, "--bookmark", tmp_path / "bookmark"
    scripts = serves_on(journal), serves(journal, 100), serves_on(journal)
    with ScriptedRelay(path, *scripts):
        assert run("consumer.py", *options, "--count", 2) == lines(1, 2)
        assert run("consumer.py", *options, "--count", 3) == lines(3, 5)


def test_consumer_starts_over_in_another_journal(path, tmp_path):
    old, new = Journal(messages(2)), Journal(messages(3), epoch=EPOCH + 1)
    options = "--socket", path, "--bookmark", tmp_path / "bookmark"
    with ScriptedRelay(path, serves_on(old), serves(new), serves_on(new)):
        assert run("consumer.py", *options, "--count", 2) == lines(1, 2)
        told = run("consumer.py", *options, "--count", 3)
    assert told[0].startswith("starting over: ")
    assert told[1:] == lines(1, 3)


def test_consumer_asyncio(path):
    journal = Journal(messages(5))
    with ScriptedRelay(path, serves(journal, 200), serves_on(journal)):
        told = run("consumer_asyncio.py", "--socket", path, "--count", 5)
    assert told == lines(1, 5)


def test_program_of_the_document(tmp_path):
    text = (EXAMPLES.parent / "docs" / "client.md").read_text()
    program = tmp_path / "program.py"
    program.write_text(text.partition("```python\n")[2].partition("```")[0])
    with Relay() as relay:
        told = run(str(program), relay.socket)
    assert told[0].startswith("source 20 sequence ")
    assert told[1:] == ["  type 22 0700010000000000000000000000" + "5f0100000000", "that is all"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_a_relay_says_so_and_ends_quietly(path, name):
    command = [sys.executable, str(EXAMPLES / name), "--socket", str(path)]
    pipe, environment = subprocess.PIPE, clean_environment()
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment) as program:
        assert program.stdout is not None
        assert program.stdout.readline().startswith(b"no relay")
        program.send_signal(signal.SIGINT)
        error = program.communicate(timeout=PATIENCE)[1]
    assert (program.returncode, error) == (0, b"")


@pytest.mark.parametrize("name", PROGRAMS)
def test_is_short_and_told_of(name):
    text = (EXAMPLES / name).read_text()
    assert text.count("\n") <= 60
    assert f"]({name})" in (EXAMPLES / "README.md").read_text()
