"""The command, once and live."""

import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.main import cli
from tests.cli.conftest import COMMAND, PATIENCE, process, read_until, run
from tests.cli.side_port import document, ok, side_port
from tests.support import Relay


def status(*arguments: str, **options: object):
    return CliRunner().invoke(cli, ["status", *arguments], **options)


def test_piped_is_one_board():
    with side_port(lambda: ok(document(1.0))) as port:
        shown = status("--url", port.url)
    assert (shown.exit_code, shown.stderr, len(port.paths)) == (0, "", 1)
    assert "received 200 messages\n" in shown.stdout
    assert shown.stdout.count("publisher") == 2
    assert "\x1b" not in shown.stdout


def test_width_of_a_narrow_terminal():
    with side_port(lambda: ok(document(1.0))) as port:
        shown = status("--once", env={"COLUMNS": "40", "SIGNAL_RELAY_URL": port.url})
    assert max(map(len, shown.stdout.splitlines())) <= 40


def test_json_is_exact():
    content = document(1.0)
    content["counters"]["bytes_received"] = (1 << 64) + 1
    with side_port(lambda: ok(content)) as port:
        shown = status("--json", "--url", port.url)
    assert json.loads(shown.stdout) == content


def test_a_relay_that_wants_a_token(tmp_path: Path):
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("a-token.of_sixteen~or-more\n")
    wrong.write_text("another-token.of_sixteen\n")
    right.chmod(0o600)
    with Relay("--web-token-file", str(right)) as relay:
        url = f"http://127.0.0.1:{relay.port}"
        given = status("--once", "--url", url, env={"SIGNAL_RELAY_TOKEN_FILE": str(right)})
        refused = status("--once", "--url", url, "--token-file", str(wrong))
    assert (given.exit_code, given.stderr) == (0, "")
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"signal-relay: {url}/api/status answers 401 Unauthorized: see --token-file\n"
    )


@pytest.mark.parametrize("content", ["", "two\nlines", "ünicode"])
def test_a_file_that_holds_no_token(tmp_path: Path, content: str):
    file = tmp_path / "token"
    file.write_text(content)
    shown = status("--token-file", str(file))
    assert shown.exit_code == 2
    assert "does not hold one token" in shown.stderr


@pytest.mark.parametrize("options", [["--once"], ["--json"], []])
def test_missing_relay_is_one_line_and_status_1(options):
    with side_port(lambda: ok({})) as port:
        pass
    shown = status(*options, "--url", port.url)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr.startswith(
        f"signal-relay: no answer from {port.url}/api/status: Connection"
    )
    assert shown.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--url", "ftp://x"],
        ["--url", "http://.:1"],
        *[["--interval", text] for text in ("0", "nan", "inf", "1e300")],
    ],
)
def test_wrong_usage(options):
    assert status(*options).exit_code == 2


def test_json_that_is_nested_too_deeply():
    """From Python 3.12 on, json reads deeper ones than it writes with an indent."""
    depth, told = 900, set()
    with side_port(lambda: (200, b'{"a": ' + b"[" * depth + b"]" * depth + b"}")) as port:
        for depth in range(900, 1000):  # noqa: B007 (the side port reads it)
            shown = status("--json", "--url", port.url)
            told.add((shown.exit_code, shown.stderr))
    reason = f"{port.url}/api/status answers, but not with a relay's status: see --url"
    assert told == {(0, ""), (1, f"signal-relay: {reason}\n")}


@pytest.mark.parametrize("options", [["--once"], ["--json"]])
class TestOutput:
    def run(self, options: list[str], **more: object) -> subprocess.CompletedProcess[bytes]:
        with side_port(lambda: ok(document())) as port:
            return run("status", *options, "--url", port.url, **more)

    def test_full_disk(self, options):
        with Path("/dev/full").open("wb") as full:
            pipes = {"stdout": full, "stderr": subprocess.PIPE, "capture_output": False}
            done = self.run(options, **pipes)
        assert done.stderr == b"signal-relay: cannot go on: No space left on device\n"
        assert done.returncode == 1

    def test_closed(self, options):
        done = self.run(options, preexec_fn=lambda: os.close(1))
        assert (done.returncode, done.stderr) == (1, b"signal-relay: standard output is closed\n")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    controller, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 30, 90, 0, 0))
    yield controller, end
    os.close(controller)
    os.close(end)


def test_live(terminal):
    """Rates appear; the relay goes and is waited for; it comes back; Ctrl-C."""
    controller, end = terminal
    seconds = iter(range(10_000))
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    options = {"stdin": end, "stdout": end, "stderr": end, "env": environment}
    with ExitStack() as stack:
        with side_port(lambda: ok(document(next(seconds)))) as port:
            command = [*COMMAND, "status", "--interval", "0.1", "--url", port.url]
            child = stack.enter_context(process(command, **options))
            read_until(controller, b"messages, 200/s")
        read_until(controller, b"trying again")
        with side_port(lambda: ok(document(next(seconds))), port.port):
            read_until(controller, b"Signal Relay")
            read_until(controller, b"messages, 200/s")
            child.send_signal(signal.SIGINT)
            seen = read_until(controller, b"\x1b[?25h")  # the cursor is back
            assert child.wait(PATIENCE) == 130
        assert b"Traceback" not in seen
