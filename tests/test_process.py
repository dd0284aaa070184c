"""A real ``twistd -n signal-relay`` process, as operators, publishers and consumers meet it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from alphapulse_relay.hub.peer import Ending, Miss, Refusal, State
from alphapulse_relay.protocol_v2.control import ErrorCode, parse_error
from alphapulse_relay.protocol_v2.errors import Rejection
from alphapulse_relay.protocol_v2.framing import MessageReader
from alphapulse_relay.protocol_v2.header import Header
from tests.support import (
    MANIFEST,
    PATIENCE,
    PROMETHEUS_ACCEPT,
    SAMPLES,
    TWISTD,
    Relay,
    clean_environment,
    message,
    messages,
)


def run_relay(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a relay that is expected not to start."""
    return subprocess.run(
        [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "signal-relay", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=clean_environment(**environment),
        check=False,
    )


def error_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("signal-relay: ")]


@pytest.mark.parametrize("name", ["legacy.v2", "mixed.v2", "arbitrage.v2", "empty-payload.v2"])
def test_what_one_peer_sends_all_others_get(name: str) -> None:
    data = (SAMPLES / name).read_bytes()
    with Relay() as relay:
        readers = [relay.connect(), relay.connect()]
        sender = relay.connect()
        sender.send(data)
        assert all(reader.receive(len(data)) == data for reader in readers)
        assert zlib.crc32(data) == MANIFEST[name]["crc32"]
        relay.stop()
        assert sender.receive_all() == b""
        assert [reader.receive_all() for reader in readers] == [b"", b""]


@pytest.mark.parametrize("level", ["checksum", "strict"])
@pytest.mark.parametrize("name", [name for name in MANIFEST if "rejected" in str(MANIFEST[name])])
def test_bad_input_is_dropped_and_named(name: str, level: str) -> None:
    suffix = "_strict" if level == "strict" and "rejected_strict" in MANIFEST[name] else ""
    facts = MANIFEST[name]
    rejected = facts.get(f"rejected{suffix}", {})
    forwarded = facts.get(f"forwarded{suffix}", facts["messages"])
    broken = set(rejected) & {"magic", "size"}
    with Relay("--validate", level) as relay:
        reader, other, sender = relay.connect(), relay.connect(), relay.connect()
        sender.send((SAMPLES / name).read_bytes())
        good = b"".join(reader.messages(forwarded))
        assert other.receive(len(good)) == good
        if broken:
            told = parse_error(sender.receive_all())
            assert told
            assert told.code == ErrorCode.BROKEN_STREAM
            assert told.text.startswith(f"{next(iter(broken))} at byte 2040: ")
            who = f"peer 3 .unix pid={os.getpid()} uid={os.getuid()} "
            relay.wait_for_log(f"dropped messages: 1, {who}.* reason={next(iter(broken))}")
            relay.wait_for_log(f"peer disconnected: 3 .* reason={next(iter(broken))}")
        # Nobody else is touched, and a sound stream goes on.
        (relay.connect() if broken else sender).send(message(20, 99))
        assert Header.unpack(reader.receive(216)).sequence == 99
        assert Header.unpack(other.receive(216)).sequence == 99
        metrics = relay.metrics()
        for reason in Rejection:
            dropped = metrics["signal_relay_messages_dropped_total", reason]
            assert dropped == rejected.get(reason, 0)


def test_a_message_that_never_ends_is_counted_and_not_forwarded() -> None:
    data = (SAMPLES / "truncated.v2").read_bytes()
    with Relay() as relay:
        reader, sender = relay.connect(), relay.connect()
        sender.send(data)
        assert reader.receive(2040) == data[:2040]
        sender.close()
        relay.wait_for_log("peer disconnected: 2 .* reason=closed")
        assert relay.metrics()["signal_relay_messages_dropped_total", "torn"] == 1
        assert re.search(
            "dropped messages: 1, peer 2 .*reason=torn.*at byte 2040", "".join(relay.log)
        )
        relay.stop()
        assert reader.receive_all() == b""


def test_metrics_as_prometheus_reads_them() -> None:
    sent = [*messages(20, 100), message(30, 1, 5000)]
    size = sum(map(len, sent))
    with Relay() as relay:
        readers = [relay.connect() for _ in range(3)]
        sender = relay.connect()
        sender.send(b"".join(sent))
        assert all(reader.receive(size) == b"".join(sent) for reader in readers)
        code, body = relay.get("/metrics", Accept=PROMETHEUS_ACCEPT)
        assert code == 200
        families = {family.name: family for family in text_string_to_metric_families(body)}
        figures = relay.metrics()
    own = {name: family for name, family in families.items() if name.startswith("signal_relay_")}
    assert all(family.documentation for family in own.values())
    assert figures["signal_relay_messages_received_total", ""] == 101
    assert figures["signal_relay_bytes_received_total", ""] == size
    assert figures["signal_relay_messages_delivered_total", ""] == 303
    assert figures["signal_relay_bytes_delivered_total", ""] == 3 * size
    assert figures["signal_relay_tlv_messages_total", "21"] == 101
    assert figures["signal_relay_connections_accepted_total", ""] == 4
    assert figures["signal_relay_peers", "live"] == 4
    assert figures["signal_relay_signal_age_seconds_count", ""] == 101
    assert figures["signal_relay_signal_age_seconds_bucket", "10"] == 101
    assert 1 <= figures["signal_relay_forward_seconds_count", ""] <= 101
    for name, label, values in (
        ("messages_dropped_total", "reason", Rejection),
        ("messages_missed_total", "reason", Miss),
        ("connections_refused_total", "reason", Refusal),
        ("connections_ended_total", "reason", Ending),
        ("peers", "state", State),
    ):
        shown = re.findall(rf'^signal_relay_{name}{{{label}="(\w+)"}}', body, re.MULTILINE)
        assert shown == [value.value for value in values]


def test_health_and_status() -> None:
    with Relay() as relay:
        reader, sender = relay.connect(), relay.connect()
        sender.send(message(20, 1))
        assert reader.receive(216)
        assert relay.get("/healthz") == (200, "alive\n")
        assert relay.get("/readyz") == (200, "ready\n")
        assert relay.get("/nothing")[0] == 404
        status = relay.status()
        assert status["pid"] == relay.process.pid
        first, second = status["peers"]
        comm = Path("/proc/self/comm").read_text().strip()
        for peer in (first, second):
            assert (peer["pid"], peer["uid"]) == (os.getpid(), os.getuid())
            assert (peer["name"], peer["transport"]) == (comm, "unix")
        assert (first["messages_in"], first["messages_out"]) == (0, 1)
        assert (second["messages_in"], second["messages_out"]) == (1, 0)
        assert (first["bytes_behind"], first["state"]) == (0, "live")
        reader.close()
        relay.wait_for_log("peer disconnected")
        (gone,) = relay.status()["departed"]
        assert (gone["number"], gone["reason"], gone["messages_out"]) == (1, "closed", 1)


def test_sigterm_delivers_what_was_sent_removes_the_socket_and_exits_with_0() -> None:
    burst = b"".join(messages(20, 16, 60_000))
    with Relay() as relay:
        reader, sender = relay.connect(), relay.connect()
        sender.send(burst)
        relay.process.send_signal(signal.SIGTERM)
        assert reader.receive_all() == burst
        assert relay.stop(0) == 0
        assert not relay.socket.exists()
        log = "".join(relay.log)
        assert "SIGTERM: leaving" in log
        assert "Traceback" not in log
        assert len(re.findall(r"peer disconnected: .* reason=(?:shutdown|closed)", log)) == 2


@pytest.mark.parametrize("size", [300_000, 16 << 20])
def test_sigterm_delivers_to_a_tcp_consumer_that_reads_only_then(size: int) -> None:
    """What a TCP transport and the kernel keep for it is sent before the relay is gone."""
    burst = b"".join(messages(20, size // 50_000, 50_000))
    listen = ("--listen", "tcp:0:interface=127.0.0.1")
    with Relay("--backlog", "64M", *listen) as relay:
        reader = relay.connect_tcp(receive_buffer=16 * 1024)
        sender = relay.connect()
        sender.send(burst)
        relay.wait_until(lambda now: now["counters"]["bytes_received"] == len(burst))
        relay.process.send_signal(signal.SIGTERM)
        relay.wait_for_log("SIGTERM: leaving")
        assert reader.receive_all() == burst
        assert relay.stop(0) == 0
        log = "".join(relay.log)
        assert "Traceback" not in log
        assert len(re.findall(r"peer disconnected: .* reason=shutdown", log)) == 2


def test_sigterm_with_a_broken_stream_still_delivers_what_is_good() -> None:
    """Both publishers are held: what they have sent is not read before the relay leaves."""
    burst = b"".join(messages(20, 100, 32 * 1024))
    good = messages(21, 3, 500)
    options = ("--backlog", "2M", "--max-message", "96K", "--hold", "30")
    with Relay(*options) as relay:
        reader, broken, sender = relay.connect(), relay.connect(), relay.connect()
        left = sender.fill(burst)
        while relay.status()["held"] == 0:
            left = sender.fill(left)
            assert left, "the publisher was never held"
        left = sender.fill(left)
        broken.send(good[0])
        relay.wait_until(lambda now: now["held"] == 2)
        broken.send(good[1] + b"this is no header of a message".ljust(32) + good[2])
        before = relay.status()["counters"]["bytes_received"]
        sent = burst[: len(burst) - len(left)]
        assert before < len(sent)
        relay.process.send_signal(signal.SIGTERM)
        relay.wait_for_log("SIGTERM: leaving")
        got = list(MessageReader().feed(reader.receive_all()))
        assert [each for each in got if Header.unpack(each).source == 21] == good[:2]
        assert [each for each in got if Header.unpack(each).source == 20] == list(
            MessageReader().feed(sent)
        )
        assert relay.stop(0) == 0
        log = "".join(relay.log)
        assert "Traceback" not in log
        assert re.search(r"peer disconnected: 2 .* reason=magic", log)


def wait_until_refused(family: int, address: object) -> None:
    """Connect until nobody accepts: the ports close one after the other."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with socket.socket(family) as late:
            try:
                late.connect(address)
            except (ConnectionRefusedError, FileNotFoundError):
                return
            except ConnectionResetError:
                continue  # it was in the backlog when the port closed
    raise AssertionError(f"{address} still accepts")


def test_no_new_peers_once_it_leaves() -> None:
    listen = ("--listen", "tcp:0:interface=127.0.0.1")
    with Relay(*listen) as relay:
        reader, sender = relay.connect(), relay.connect()
        sender.send(burst := b"".join(messages(20, 16, 60_000)))
        relay.wait_until(lambda now: now["peers"][0]["state"] == "behind")
        relay.process.send_signal(signal.SIGTERM)
        wait_until_refused(socket.AF_INET, ("127.0.0.1", relay.listen_port))
        wait_until_refused(socket.AF_UNIX, str(relay.socket))
        assert relay.process.poll() is None, "it still waits for the consumer"
        assert reader.receive_all() == burst
        assert relay.stop(0) == 0


def test_a_publisher_that_closes_with_unread_bytes_has_closed() -> None:
    """The kernel tells the relay of a reset then (unix(7)), but nobody has vanished."""
    with Relay() as relay:
        reader, other, publisher = relay.connect(), relay.connect(), relay.connect()
        other.send(unread := message(21, 1))
        assert reader.receive(216) == unread
        publisher.send(sent := b"".join(messages(20, 50)))
        publisher.close()
        assert reader.receive(len(sent)) == sent
        relay.wait_for_log("peer disconnected: 3 .* reason=closed, 50 messages in")
        metrics = relay.metrics()
        assert metrics["signal_relay_connections_ended_total", "closed"] == 1
        assert metrics["signal_relay_connections_ended_total", "reset"] == 0


def test_a_second_signal_does_not_wait_for_a_consumer_that_stalls() -> None:
    with Relay("--drain", str(2 * PATIENCE)) as relay:
        relay.connect()
        sender = relay.connect()
        sender.send(b"".join(messages(20, 16, 60_000)))
        relay.wait_until(lambda now: now["peers"][0]["state"] == "behind")
        relay.process.send_signal(signal.SIGTERM)
        relay.wait_for_log("SIGTERM: leaving")
        relay.process.send_signal(signal.SIGINT)
        relay.wait_for_log("SIGINT: leaving at once")
        relay.wait_for_log("peer disconnected: 1 .* reason=cut")
        assert relay.stop(0) == 0


def test_a_live_relay_is_an_error_and_a_dead_one_is_replaced() -> None:
    with Relay() as first:
        again = run_relay("--socket", str(first.socket), "--web", "none")
        assert again.returncode == 75
        assert error_lines(again) == [
            f"signal-relay: another relay (pid {first.process.pid}) lives on {first.socket}: "
            "stop it, or choose another --socket"
        ]
        assert "Traceback" not in again.stderr + again.stdout
        first.stop(signal.SIGKILL)
        assert first.socket.exists()
        with Relay(directory=first.directory) as second:
            second.connect()


@pytest.mark.parametrize(
    ("options", "environment", "status", "said"),
    [
        (["--hold", "soon"], {}, 2, "--hold: 'soon' is not a number of seconds, 0 or more"),
        (["--validate", "all"], {}, 2, "--validate"),
        (["--nonsense"], {}, 2, "nonsense"),
        ([], {"SIGNAL_RELAY_MAX_PEERS": "0"}, 2, "SIGNAL_RELAY_MAX_PEERS"),
        (["--backlog", "900000G"], {}, 2, "--backlog: 900000G is more than the memory of this"),
        (["--config", "/nonexistent.toml"], {}, 78, "--config: cannot read '/nonexistent.toml'"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: list[str], environment: dict[str, str], status: int, said: str
) -> None:
    done = run_relay(*options, **environment)
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_a_side_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Relay() as relay:
            web = f"tcp:{port}:interface=127.0.0.1"
            done = run_relay("--socket", str(relay.directory / "other.sock"), "--web", web)
    assert done.returncode == 78
    assert len(error_lines(done)) == 1
    assert f"--web tcp:{port}:interface=127.0.0.1: cannot listen: " in error_lines(done)[0]
    assert "Traceback" not in done.stderr + done.stdout


def daemon(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Start a relay in the background, as operators without a supervisor do."""
    twistd = ["--logfile", str(directory / "log"), "--pidfile", str(directory / "pid")]
    socket_option = ["--socket", str(directory / "daemon.sock")]
    return subprocess.run(
        [sys.executable, "-c", TWISTD, *twistd, "signal-relay", *socket_option, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=clean_environment(),
        check=False,
    )


def test_a_daemon_runs_until_it_is_told_to_leave() -> None:
    with Relay() as relay:  # for a short directory
        assert daemon(relay.directory, "--web", "none", "--journal", "none").returncode == 0
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE)
            peer.connect(str(relay.directory / "daemon.sock"))
            deadline = time.monotonic() + PATIENCE
            while "peer connected" not in (relay.directory / "log").read_text():
                assert time.monotonic() < deadline
            os.kill(int((relay.directory / "pid").read_text()), signal.SIGTERM)
            assert peer.recv(1) == b""


def test_a_daemon_that_cannot_start_tells_its_caller() -> None:
    with Relay() as relay:
        done = daemon(relay.directory, "--web", f"tcp:{relay.port}:interface=127.0.0.1")
        log = (relay.directory / "log").read_text()
        assert done.returncode == 1
        assert f"--web tcp:{relay.port}:interface=127.0.0.1: cannot listen" in done.stderr, log
        assert "cannot start: --web" in log
        assert daemon(relay.directory, "--socket", str(relay.socket)).returncode == 75


def test_more_peers_than_allowed_are_refused_with_an_error() -> None:
    with Relay("--max-peers", "2") as relay:
        relay.connect()
        relay.connect()
        told = parse_error(relay.connect(joined=False).receive_all())
        assert told
        assert told.code == ErrorCode.TOO_MANY_PEERS
        assert "too_many_peers" in told.text
        metrics = relay.metrics()
        assert metrics["signal_relay_connections_refused_total", "too_many_peers"] == 1
        assert metrics["signal_relay_connections_accepted_total", ""] == 2


def test_the_socket_has_the_mode_that_was_asked_for() -> None:
    with Relay("--socket-mode", "600") as relay:
        assert relay.socket.stat().st_mode & 0o777 == 0o600


def test_a_line_for_each_chunk_only_at_debug() -> None:
    with Relay("--log-level", "debug") as relay:
        reader, sender = relay.connect(), relay.connect()
        sender.send(message(20, 1))
        reader.receive(216)
        line = relay.wait_for_log("forwarded message")
        assert "sender 2 (unix" in line
        assert "216 bytes, 1 messages, 1 peers" in line
    with Relay() as relay:
        reader, sender = relay.connect(), relay.connect()
        sender.send(message(20, 1))
        reader.receive(216)
        relay.stop()
        assert "forwarded message" not in "".join(relay.log)


def test_peers_over_tcp_meet_those_on_the_socket() -> None:
    with Relay("--listen", "tcp:0:interface=127.0.0.1") as relay:
        port = int(re.findall(r"SignalRelayFactory starting on (\d+)", "".join(relay.log))[0])
        local = relay.connect()
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as remote:
            relay.wait_for_log(r"peer connected: 2 \(tcp 127.0.0.1:")
            burst = b"".join(messages(20, 300, 30_000))
            local.send(burst)
            received = b""
            while len(received) < len(burst):
                received += remote.recv(1 << 20)
            assert received == burst
            remote.sendall(message(30, 1))
            assert local.receive(216)[6] == 30


def test_the_application_file_starts_a_relay(tmp_path: Path) -> None:
    tac = Path(__file__).parent.parent / "tac" / "signal-relay.tac"
    with Relay() as relay:  # for a short directory
        path = relay.directory / "tac.sock"
        process = subprocess.Popen(
            [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "-y", str(tac)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=clean_environment(
                SIGNAL_RELAY_SOCKET=str(path), SIGNAL_RELAY_WEB="none", SIGNAL_RELAY_JOURNAL="none"
            ),
        )
        assert process.stdout is not None
        with process.stdout:
            assert any("signal relay" in line and str(path) in line for line in process.stdout)
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(path))
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
        assert process.wait(PATIENCE) == 0
        assert not path.exists()
