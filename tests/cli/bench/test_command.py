"""Benchmarks of real relays."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.bench.load import TEXT
from alphapulse_relay.cli.bench.publisher import BATCH
from alphapulse_relay.cli.main import cli
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Header, checksum
from alphapulse_relay.protocol_v2.tlv import parse_tlvs
from tests.cli.conftest import COMMAND, PATIENCE, process, read_until, run
from tests.support import Client, Relay

SHORT = ["--seconds", "0.1", "--rate", "500", "--consumers", "1"]
LONG = ["--seconds", "3", "--rate", "500", "--consumers", "2"]
PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
TERMINAL = os.environ | {"TERM": "xterm", "COLUMNS": "100"}


@pytest.fixture(scope="module")
def strict() -> Iterator[Relay]:
    """A relay with a side port that tests share: they leave it without peers."""
    with Relay("--validate", "strict", "--backlog", "256M") as relay:
        yield relay


def where(relay: Relay) -> list[str]:
    return ["--socket", str(relay.socket), "--url", f"http://127.0.0.1:{relay.port}"]


def bench(relay: Relay, *options: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    return run("bench", *where(relay), *options, stdin=subprocess.DEVNULL, **more)


class Bystander(threading.Thread):
    """Another peer, which reads all that it gets."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._socket = client.socket
        self._data = bytearray()
        self.start()

    def run(self) -> None:
        while data := self._socket.recv(1 << 20):
            self._data += data

    def messages(self, relay: Relay, number: int) -> list[bytes]:
        """Wait until the relay has sent so many messages; return them."""
        relay.wait_until(lambda status: status["peers"][0]["messages_out"] == number)
        self._socket.shutdown(socket.SHUT_RD)
        self.join(PATIENCE)
        return list(split(bytes(self._data)))


def test_results(strict):
    done = bench(strict, *SHORT)
    shown = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown.startswith("Latency at 500 messages/s")
    assert "50 receipts through the relay" in shown
    assert "\nThroughput\n" in shown
    assert "every consumer got all " in shown
    assert f" bytes, to {strict.socket} (domain 2, source 255, TLV type 39)\n" in shown
    assert "\nnobody else was connected\n" in shown
    assert shown.endswith("\nthe benchmark's own connections are gone from the relay\n")
    assert "\x1b" not in shown


@pytest.mark.parametrize("size", ["60", "216", "65572"])
def test_json_tells_what_the_relay_counted(strict, size):
    before = strict.status()["counters"]
    done = bench(strict, *SHORT, "--size", size, "--json", "--consumers", "2")
    assert (done.returncode, done.stderr) == (0, b"")
    told = json.loads(done.stdout)
    after = strict.status()
    counted = {
        key: after["counters"][key] - before[key]
        for key in before
        if "mess" in key and key != "tlv_messages"
    }
    assert told["published"]["messages"] == counted["messages_received"]
    assert told["published"]["bytes"] == int(size) * counted["messages_received"]
    assert counted["messages_delivered"] == 2 * counted["messages_received"]
    assert after["counters"]["dropped"] == before["dropped"]
    assert told["published"]["gone"] is True
    assert after["peers"] == []
    assert told["latency"]["count"] == 100
    assert told["throughput"]["messages"] > 0
    assert told["message_bytes"] == int(size)


class TestOthers:
    @pytest.fixture
    def other(self, strict) -> Iterator[Client]:
        client = strict.connect()
        yield client
        client.close()
        strict.wait_until(lambda status: not status["peers"])

    def test_get_all_and_are_counted(self, strict, other):
        bystander = Bystander(other)
        done = bench(strict, *SHORT, "--yes", "--json")
        published = json.loads(done.stdout)["published"]
        assert published["other_peers"] == 1
        got = bystander.messages(strict, published["messages"])
        assert len(got) == published["messages"]
        for message in got[:100]:
            header, (tlv,) = Header.unpack(message), parse_tlvs(message)
            assert (header.domain, header.source, tlv.type) == (2, 255, 39)
            assert tlv.value.startswith(TEXT)
            assert header.checksum == checksum(message)

    def test_are_not_disturbed_without_a_word(self, strict, other):
        done = bench(strict, *SHORT)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr == (
            b"signal-relay: 1 other peer is connected, and would get all that is published here: "
            b"to do it, give --yes\n"
        )
        other.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.socket.recv(1)

    @pytest.mark.parametrize(
        ("answer", "status", "told"),
        [
            (b"y\n", 0, b"got them, too"),
            (b"\n", 1, b"nothing was published"),
            (b"\x04", 1, b"nothing was published"),
            (b"\x03", 130, b""),
        ],
        ids=["yes", "no", "end", "interrupt"],
    )
    def test_are_asked_about_on_a_terminal(self, strict, other, answer, status, told):
        controller, terminal = os.openpty()
        streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
        command = ["setsid", "--ctty", *COMMAND, "bench", *where(strict), *SHORT]
        with process(command, **streams, env=TERMINAL) as child:
            os.close(terminal)
            read_until(controller, b"Go on? [y/N] ")
            os.write(controller, answer)
            if told:
                read_until(controller, told)
            assert child.wait(PATIENCE) == status
        os.close(controller)


def test_what_the_journal_keeps_is_not_pushed_out_without_a_word():
    with Relay("--journal-size", "16M") as journaled:
        assert bench(journaled, *SHORT).returncode == 0  # there is nothing in it yet
        head = journaled.status()["log"]["head"]
        done = bench(journaled, *SHORT)
        assert (done.returncode, done.stdout) == (1, b"")
        assert re.fullmatch(
            rb"signal-relay: the relay's journal keeps [0-9,]+ bytes of messages, and what is "
            rb"published here, gigabytes in seconds, takes the place of the oldest: to do it, give "
            rb"--yes\n",
            done.stderr,
        )
        assert journaled.status()["log"]["head"] == head
        assert bench(journaled, *SHORT, "--yes").returncode == 0


def test_side_port_that_does_not_answer(relay):
    """The relay has none; then nobody knows who else is connected."""
    done = relay.run("bench", *SHORT, "--url", "http://127.0.0.1:1", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(
        b"signal-relay: it cannot be told whether other peers are connected ("
    )
    assert done.stderr.count(b"\n") == 1
    done = relay.run("bench", *SHORT, "--url", "http://127.0.0.1:1", "--yes")
    assert done.returncode == 0
    assert b"who else was connected is not known" in done.stdout


def test_side_port_of_another_relay(relay, strict):
    url = f"http://127.0.0.1:{strict.port}"
    done = relay.run("bench", *SHORT, "--url", url, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert b"is the side port of another relay: see --url" in done.stderr


def test_no_relay(short_path):
    done = run("bench", "--socket", str(short_path / "none.sock"))
    tail = run("tail", "--socket", str(short_path / "none.sock"))
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", tail.stderr)


def test_consumers_that_are_refused(start_relay):
    done = start_relay(max_peers=1).run("bench", "--yes", *SHORT, "--consumers", "2")
    account, error = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert "published " in account
    assert error.endswith("the relay closed the connection: refused: too_many_peers")


def test_relay_leaves(strict):
    with Relay() as relay, process([*COMMAND, "bench", *where(relay), *LONG], **PIPES) as child:
        relay.wait_until(lambda status: status["counters"]["messages_received"] > 2)
        relay.stop()
        account, error = child.communicate(timeout=PATIENCE)[1].decode().splitlines()
    assert child.returncode == 1
    assert "published " in account
    assert "the relay closed the connection" in error


def test_consumer_that_is_overtaken():
    with Relay("--backlog", "10M") as relay:
        command = [*COMMAND, "bench", *where(relay), "--seconds", "1", "--consumers", "2"]
        with process(command, **PIPES) as child:
            at_full_load = relay.wait_until(
                lambda status: status["counters"]["messages_received"] > 10_000
            )
            consumer = at_full_load["peers"][0]["pid"]
            os.kill(consumer, signal.SIGSTOP)
            relay.wait_until(lambda status: status["counters"]["missed"]["overtaken"] > 0)
            os.kill(consumer, signal.SIGCONT)
            account, error = child.communicate(timeout=PATIENCE)[1].decode().splitlines()
    assert child.returncode == 1
    assert "that were dropped or missed: overtaken " in account
    assert re.match(r"signal-relay: consumer [12]: the relay closed the connection ", error)
    assert error.endswith("(the relay's reason: overtaken)")


def test_interrupt(strict):
    """As a terminal does it: to all processes of the group."""
    before = strict.status()["counters"]["messages_received"]
    command = [*COMMAND, "bench", *where(strict), *LONG]
    with process(command, **PIPES, start_new_session=True) as child:
        wait_until_it_runs(strict, before)
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out) == (130, b"")
    assert err.startswith(b"signal-relay: published ")
    assert err.count(b"\n") == 1
    received = strict.status()["counters"]["messages_received"] - before
    told = int(re.search(rb"published ([0-9,]+) messages, ", err)[1].replace(b",", b""))
    assert 0 <= received - told <= BATCH  # the last ones were written, but not yet counted


def test_killed_it_leaves_nobody_behind(strict):
    before = strict.status()["counters"]["messages_received"]
    with process([*COMMAND, "bench", *where(strict), *LONG], **PIPES) as child:
        wait_until_it_runs(strict, before)
        child.kill()
        strict.wait_until(lambda status: not status["peers"])


def wait_until_it_runs(relay: Relay, before: int) -> None:
    """Wait for more than the hello."""
    relay.wait_until(lambda status: status["counters"]["messages_received"] > before + 2)


def test_progress_is_for_a_terminal(strict):
    controller, terminal = os.openpty()
    command = [*COMMAND, "bench", *where(strict), *SHORT]
    with process(command, stderr=terminal, stdout=subprocess.PIPE, env=TERMINAL) as child:
        os.close(terminal)
        read_until(controller, b"measuring latency")
        read_until(controller, b"measuring throughput")
        assert b"measuring" not in child.communicate(timeout=PATIENCE)[0]
        assert child.returncode == 0
    os.close(controller)


@pytest.mark.parametrize(
    "options",
    [
        *[["--consumers", text] for text in ("0", "65", "x")],
        *[["--rate", text] for text in ("0", "100001", "1.5")],
        *[["--seconds", text] for text in ("0", "3601", "nan", "inf")],
        *[["--size", text] for text in ("59", "65573", "1K")],
        ["--rate", "10", "--seconds", "0.9"],
        ["--url", "ftp://x"],
    ],
)
def test_wrong_usage(options):
    shown = CliRunner().invoke(cli, ["bench", *options])
    assert shown.exit_code == 2
    error = shown.stderr.splitlines()[-1]
    assert error.startswith(f"Error: Invalid value for '{options[0]}'")
