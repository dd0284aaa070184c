"""Replays of a real relay's journal, as users see them."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.filters import Filter
from alphapulse_relay.cli.main import cli
from alphapulse_relay.cli.replay.command import replay_items
from alphapulse_relay.cli.replay.sources import Reached
from alphapulse_relay.cli.replay.timing import Timing
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import build_message
from tests.cli.conftest import COMMAND, PATIENCE, process, read_until, run
from tests.cli.journal.looking import damage
from tests.cli.replay.conftest import SAMPLE
from tests.journal.writer import Segment, save
from tests.journal.writer import message as written_message
from tests.support import Relay, message

MESSAGES = list(split(SAMPLE))
HEAD = len(SAMPLE)


def replay(relay: Relay, *options: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    return run("replay", "--socket", str(relay.socket), *options, **more)


def replayed(relay: Relay, *options: str) -> list[bytes]:
    """The messages that are replayed; nothing is wrong, and the account is the only word."""
    done = replay(relay, "--raw", *options)
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1), done.stderr
    return list(split(done.stdout))


class TestWhich:
    def test_all_that_is_kept(self, kept):
        done = replay(kept, "--raw")
        assert (done.returncode, done.stdout) == (0, SAMPLE)
        account = done.stderr.decode()
        assert account.startswith(f"signal-relay: replayed 1000 messages, {HEAD} bytes in ")
        assert account.endswith(f" messages/s), positions 0 to {HEAD}\n")

    def test_last(self, kept):
        assert replayed(kept, "--last", "7") == MESSAGES[-7:]

    def test_last_that_match(self, kept):
        wanted = Filter(frozenset({22}), frozenset({20, 21}))
        matching = [each for each in MESSAGES if wanted.admits(each)]
        options = ["--type", "SignalIdentity", "--source", "20,21"]
        assert replayed(kept, *options, "--last", "5") == matching[-5:]
        assert replayed(kept, *options) == matching

    def test_since(self, kept):
        assert replayed(kept, "--since", "1h") == MESSAGES
        assert replayed(kept, "--since", "0s") == []
        assert replay(kept, "--since", "2100-01-01").returncode == 2

    def test_position(self, kept):
        position = sum(map(len, MESSAGES[:990]))
        assert replayed(kept, "--from-position", str(position)) == MESSAGES[990:]

    def test_position_beyond_the_head(self, kept):
        done = replay(kept, "--from-position", str(HEAD + 1))
        told = f"the relay says: position {HEAD + 1} is beyond the head, {HEAD} (error 5)\n"
        assert (done.returncode, done.stderr.decode().endswith(told)) == (1, True)


class TestForm:
    def test_lines(self, kept):
        done = replay(kept, "--last", "2")
        lines = done.stdout.splitlines()
        assert [b" SignalEconomics " in line for line in lines] == [True, False]
        assert [b" seq=197 " in line for line in lines] == [True, False]

    def test_json(self, kept):
        done = replay(kept, "--last", "1", "--json")
        assert json.loads(done.stdout)["message_size"] == len(MESSAGES[-1])


class TestFiles:
    @pytest.fixture
    def written(self, tmp_path):
        segment = Segment().fill([written_message(n, tlv_type=21 + n % 2) for n in range(6)])
        save(tmp_path, segment)
        return segment.written

    def test_journal_of_a_running_relay(self, kept):
        directory = str(kept.directory / "journal")
        done = run("replay", "--journal", directory, "--raw", "--type", "24", "--last", "3")
        wanted = Filter(frozenset({24}), frozenset())
        assert done.stdout == b"".join([each for each in MESSAGES if wanted.admits(each)][-3:])
        assert done.returncode == 0

    def test_damage_is_told(self, tmp_path, written):
        damage(tmp_path, written[2])
        done = run("replay", "--journal", str(tmp_path), "--raw")
        start, size = written[2].position, len(written[2].data)
        missing, account = done.stderr.decode().splitlines()
        assert missing == f"signal-relay: positions {start} to {start + size} are missing: damaged"
        assert account.endswith(f", {size} bytes missing")
        assert (done.returncode, done.stdout.count(b"\xef\xbe\xad\xde")) == (0, 5)

    def test_nothing_but_damage(self, tmp_path):
        segment = Segment().fill([written_message(1)])
        save(tmp_path, segment)
        damage(tmp_path, segment.written[0])
        done = run("replay", "--journal", str(tmp_path))
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.endswith(b"signal-relay: nothing could be replayed\n")

    def test_no_journal(self, tmp_path):
        done = run("replay", "--journal", str(tmp_path / "none"))
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert b"no journal: there is no directory " in done.stderr


class TestInto:
    @pytest.fixture
    def other(self):
        with Relay("--journal", "none") as relay:
            yield relay

    @pytest.mark.parametrize("options", [[], ["--speed", "1000000x"]])
    def test_another_relay(self, kept, other, options):
        consumer = other.connect()
        done = replay(kept, "--to", str(other.socket), *options)
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
        assert done.stderr.startswith(b"signal-relay: replayed 1000 messages")
        assert consumer.receive(HEAD) == SAMPLE

    def test_the_same(self, kept):
        done = replay(kept, "--to", str(kept.socket))
        assert done.returncode == 1
        assert b" is the relay of this very journal: " in done.stderr

    def test_the_relay_of_the_files(self, kept):
        done = run("replay", "--journal", str(kept.directory / "journal"), "--to", str(kept.socket))
        assert done.returncode == 1
        assert b" is the relay of this very journal: " in done.stderr

    def test_none_is_there(self, kept, tmp_path):
        done = replay(kept, "--to", str(tmp_path / "none"))
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
        assert f"no relay: there is no socket {tmp_path}/none".encode() in done.stderr

    def test_it_goes_away_while_more_is_waited_for(self, kept, other):
        arguments = ["--socket", str(kept.socket), "--follow", "--to", str(other.socket)]
        with process([*COMMAND, "replay", *arguments], stderr=subprocess.PIPE) as child:
            for _ in ("ask", "publish"):
                other.wait_for_log(f"peer connected: .* pid={child.pid} ")
            other.stop()
            told = child.communicate(timeout=PATIENCE)[1].decode()
        assert child.returncode == 1
        assert f"signal-relay: {other.socket}: the relay closed the connection: " in told


class TestEnd:
    def follow(self, relay: Relay, *options: str):
        arguments = ["replay", "--socket", str(relay.socket), "--follow", "--raw", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return process([*COMMAND, *arguments], **pipes)

    def test_goes_on_live_until_the_relay_leaves(self):
        with Relay() as relay:
            publisher = relay.connect()
            first, second = message(20, 1), message(20, 2)
            publisher.send(first)
            relay.wait_until(lambda status: status["counters"]["messages_received"] == 1)
            with self.follow(relay) as child:
                assert read_until(child.stdout.fileno(), first) == first
                publisher.send(second)
                assert read_until(child.stdout.fileno(), second) == second
                relay.stop()
                told = child.communicate(timeout=PATIENCE)[1]
        assert child.returncode == 1
        assert b"signal-relay: replayed 2 messages" in told
        assert b"signal-relay: the relay closed the connection: " in told

    def test_interrupt(self, kept):
        with self.follow(kept, "--last", "1") as child:
            read_until(child.stdout.fileno(), MESSAGES[-1])
            child.send_signal(signal.SIGINT)
            told = child.communicate(timeout=PATIENCE)[1]
        assert (child.returncode, told.count(b"\n")) == (130, 1)
        assert told.startswith(b"signal-relay: replayed 1 message, ")

    def test_interrupt_between_paced_messages(self, tmp_path):
        times = (1, 31)
        paced = [build_message(b"", source=20, sequence=at, timestamp=at * 10**9) for at in times]
        save(tmp_path, Segment().fill(paced))
        arguments = ["replay", "--journal", str(tmp_path), "--raw", "--speed", "1x"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with process([*COMMAND, *arguments], **pipes) as child:
            assert read_until(child.stdout.fileno(), paced[0]) == paced[0]
            child.send_signal(signal.SIGINT)
            assert child.communicate(timeout=PATIENCE)[0] == b""
        assert child.returncode == 130

    def test_reader_has_enough(self, kept):
        with self.follow(kept) as child, process(["head", "-c", "9"], stdin=child.stdout) as head:
            child.stdout.close()
            assert head.wait(PATIENCE) == 0
            assert child.wait(PATIENCE) == 0
            assert child.stderr.read().startswith(b"signal-relay: replayed ")

    def test_full_disk(self, kept):
        with Path("/dev/full").open("wb") as full:
            done = replay(kept, stdout=full, stderr=subprocess.PIPE, capture_output=False)
        assert done.returncode == 1
        assert done.stderr.endswith(b"signal-relay: cannot go on: No space left on device\n")

    def test_no_relay(self, tmp_path):
        done = run("replay", "--socket", str(tmp_path / "none"))
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert b"no relay: there is no socket" in done.stderr


class TestProgress:
    def test_on_a_terminal(self, kept):
        controller, terminal = os.openpty()
        options = {"capture_output": False, "stdout": subprocess.DEVNULL, "stderr": terminal}
        done = replay(kept, "--raw", **options, env=os.environ | {"TERM": "xterm"})
        os.close(terminal)
        shown = os.read(controller, 1 << 16).decode()
        os.close(controller)
        assert done.returncode == 0
        assert f"position {HEAD:,} of {HEAD:,}" in shown
        assert "replayed 1000 messages" in shown


class Recorder:
    """A destination that notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[object] = []

    def send(self, message: bytes) -> None:
        self.notes.append(message)

    def wait_for(self, descriptor: int) -> None:
        raise AssertionError(descriptor)

    def wait_until(self, moment: float) -> None:
        self.notes.append(moment)

    def finish(self) -> None:
        self.notes.append("end")


class TestPace:
    ITEMS = tuple(build_message(b"", source=20, sequence=n, timestamp=n * 10**9) for n in (1, 2, 3))

    def notes(self, *items: object, timing: Timing | None) -> list[object]:
        class Source:
            epoch, head = 1, 96

            def items(self, _wait_for: object) -> object:
                return iter(items)

        recorder = Recorder()
        replay_items(Source(), recorder, timing, shown=False)
        return recorder.notes

    def test_each_is_waited_for(self):
        one, two, three = self.ITEMS
        timing = Timing(2, clock=lambda: 50.0)
        found = self.notes(Reached(0), one, two, three, timing=timing)
        assert found == [50.0, one, 50.5, two, 51.0, three, "end"]

    def test_nothing_is_waited_for_once_live(self):
        one, two, three = self.ITEMS
        timing = Timing(1, clock=lambda: 50.0)
        found = self.notes(one, Reached(32, live=True), two, three, timing=timing)
        assert found == [50.0, one, two, three, "end"]

    def test_at_once(self):
        one, two, _ = self.ITEMS
        assert self.notes(one, two, timing=None) == [one, two, "end"]


class TestUsage:
    @pytest.mark.parametrize(
        "options",
        [
            ["--since", "1h", "--last", "3"],
            ["--last", "3", "--from-position", "0"],
            ["--to", "x.sock", "--json"],
            ["--json", "--raw"],
            ["--journal", "x", "--follow"],
            ["--journal", "x", "--socket", "y"],
            ["--speed", "fast"],
            ["--since", "soon"],
            ["--last", "0"],
        ],
    )
    def test_wrong(self, options):
        assert CliRunner().invoke(cli, ["replay", *options]).exit_code == 2
