"""Whoever uses up what a relay has (descriptors, memory, turns) harms nobody else.

On real processes. A full disk is in ``test_journal_process.py``.
"""

import array
import os
import re
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from alphapulse_relay.protocol_v2.header import HEADER_SIZE, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.soak.growth import count_descriptors
from tests.soak.guests import Log
from tests.support import PATIENCE, Client, Relay, message, messages

LITTLE = 0.25
"""Seconds of CPU time in a second: who goes round in circles takes all of it."""
CONNECTIONS = 10_000
SPARE_MEMORY = 32 << 20
"""Bytes of address space that a relay gets beyond what it has."""
LARGE = 960_000
"""Bytes of a message, of the 1,048,576 that are allowed."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_at_rest(relay: Relay, seconds: float = 1.0) -> None:
    before = cpu_seconds(relay.process.pid)
    time.sleep(seconds)  # what is asked is what happens while nothing does
    assert cpu_seconds(relay.process.pid) - before < LITTLE * seconds


def assert_served(one: Client, other: Client, number: int) -> None:
    sent = message(20, number)
    one.send(sent)
    assert other.receive(len(sent)) == sent


def wait_for_descriptors(relay: Relay, number: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (there := count_descriptors(relay.process.pid)) > number:
        assert time.monotonic() < deadline, f"{there} descriptors, there were {number}"
        time.sleep(0.05)


def is_closed(client: Client) -> bool:
    """Whether the relay has closed a connection on which it sent nothing."""
    client.socket.setblocking(False)
    try:
        return client.socket.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def waiting_connection(relay: Relay) -> socket.socket:
    """Connect, and wait as long as the port's queue is full: with a timeout that is an error."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(relay.socket))
    return connection


@contextmanager
def limited(relay: Relay, kind: int, limit: int) -> Iterator[None]:
    """Have a relay under a limit (prlimit(2)) that was not there when it started."""
    before = resource.prlimit(relay.process.pid, kind)
    resource.prlimit(relay.process.pid, kind, (limit, before[1]))
    yield
    resource.prlimit(relay.process.pid, kind, before)


class TestDescriptors:
    def test_a_low_limit_of_a_start_is_so_many_peers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever is too many is told so by name."""
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nulimit -n 360\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        with Relay() as relay:
            found = re.search(r"allows (\d+) peers, not 10000", "".join(relay.log))
            assert found
            most = int(found[1])
            peers = [relay.connect() for _ in range(most)]
            late = relay.connect(joined=False)
            assert b"peers" in late.receive_all()
            assert_served(peers[0], peers[-1], 1)
            assert relay.status()["counters"]["connections"]["refused"]["too_many_peers"] == 1
            peers[1].close()
            relay.wait_for_log("peer disconnected: 2 ")
            assert_served(relay.connect(), peers[0], 2)

    def test_none_left(self) -> None:
        """Something else may use them up: the late are closed on, and nobody else notices."""
        with Relay() as relay:
            publisher, consumer = relay.connect(), relay.connect()
            there = len(os.listdir(f"/proc/{relay.process.pid}/fd"))
            with limited(relay, resource.RLIMIT_NOFILE, there + 10):
                late = [relay.connect(joined=False) for _ in range(60)]
                relay.wait_for_log("EMFILE encountered")
                assert_served(publisher, consumer, 1)
                assert_at_rest(relay)
                assert 50 <= sum(is_closed(each) for each in late) < 60
                for each in late:
                    each.close()
                for number in range(3, 13):
                    relay.wait_for_log(f"peer disconnected: {number} ")
                assert_served(publisher, relay.connect(), 2)

    def test_those_that_clients_send_do_not_stay(self) -> None:
        """SCM_RIGHTS, unix(7): the kernel gives them to who asks for them only."""
        sent = messages(20, 50)
        with Relay() as relay, ExitStack() as stack:
            consumer, publisher = relay.connect(), relay.connect()
            before = count_descriptors(relay.process.pid)
            pipes = [end for _ in range(20) for end in os.pipe()]
            stack.callback(lambda: [os.close(each) for each in pipes])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pipes))]
            for each in sent:
                for piece in (each[:100], each[100:]):
                    publisher.socket.sendmsg([piece], rights)
                assert consumer.receive(len(each)) == each
                assert count_descriptors(relay.process.pid) <= before
            assert_served(publisher, consumer, 99)


class TestConnections:
    def test_ten_thousand_at_once(self) -> None:
        """All are open before the first one is closed: as many as this process may have."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        number = min(CONNECTIONS, hard - 200)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        try:
            with Relay() as relay:
                publisher, consumer = relay.connect(), relay.connect()
                with Log(relay) as log:
                    before = count_descriptors(relay.process.pid)
                    crowd = [waiting_connection(relay) for _ in range(number)]
                    assert_served(publisher, consumer, 1)
                    for each in crowd:
                        each.close()
                    wait_for_descriptors(relay, before)
                    assert_served(publisher, consumer, 2)
                    assert_at_rest(relay)
                assert not log.faults, log.faults
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestHalfMessages:
    def test_half_a_header_and_silence_costs_nothing(self) -> None:
        number = 200
        with Relay() as relay:
            publisher, consumer = relay.connect(), relay.connect()
            silent = [relay.connect() for _ in range(number)]
            before = relay.resident_bytes()
            for each in silent:
                each.send(message(21, 1)[: HEADER_SIZE // 2])
            assert_served(publisher, consumer, 1)
            assert_at_rest(relay)
            assert relay.resident_bytes() - before < number * 16 * 1024
            for each in silent:
                each.close()
            for peer in range(3, 3 + number):
                relay.wait_for_log(f"peer disconnected: {peer} .* reason=(?:closed|reset)")
            assert relay.metrics()["signal_relay_messages_dropped_total", "torn"] == number

    def test_one_byte_at_a_time(self) -> None:
        sent = messages(20, 20)
        with Relay() as relay:
            consumer, other, publisher = relay.connect(), relay.connect(), relay.connect()
            for number, each in enumerate(sent):
                for byte in each:
                    publisher.send(bytes([byte]))
                assert_served(other, publisher, number)
            assert [each for each in consumer.messages(2 * len(sent)) if each in sent] == sent


class TestMemory:
    def test_none_left_for_what_is_announced(self) -> None:
        """Publishers that have sent most of a large message hold it all; some consumers stall.

        Who would take more than there is is ended, by name; when they are gone all is as before.
        """
        content = b"".join(build_tlv(21, bytes(60_000)) for _ in range(LARGE // 60_000))
        large = build_message(content, source=22, sequence=1, timestamp=time.time_ns())
        with Relay("--journal-size", "64M") as relay:
            publisher, consumer = relay.connect(), relay.connect()
            assert_served(publisher, consumer, 0)
            stalled = [relay.connect() for _ in range(10)]
            hoarders = [relay.connect() for _ in range(50)]
            with limited(relay, resource.RLIMIT_AS, address_space(relay) + SPARE_MEMORY):
                for each in hoarders:
                    send_what_goes(each, large[:-1])
                relay.wait_for_log("reason=fault")
                for number in range(1, 50):
                    assert_served(publisher, consumer, number)
                assert_at_rest(relay)
                for each in hoarders:
                    each.close()
                relay.wait_until(lambda now: len(now["peers"]) == 12)
                late = relay.connect()
                late.send(large)
                assert consumer.receive(len(large)) == large
            ended = relay.status()["counters"]["connections"]["ended"]
            assert 0 < ended["fault"] < 50
            assert all(len(each.receive(216)) == 216 for each in stalled)


def address_space(relay: Relay) -> int:
    text = Path(f"/proc/{relay.process.pid}/status").read_text()
    return int(re.search(r"VmSize:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]


def send_what_goes(client: Client, data: bytes) -> None:
    """Send, unless the relay ends the connection before it has all."""
    with suppress(BrokenPipeError, ConnectionResetError):
        client.send(data)
