"""A publisher's connection, with a relay that is the test itself."""

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from alphapulse_relay.cli.publisher import Publisher
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.client.core import NOTHING
from alphapulse_relay.protocol_v2.control import (
    ErrorCode,
    Heartbeat,
    SequenceSync,
    Subscribe,
    SyncState,
    build_control,
    build_error,
    parse_control,
)
from alphapulse_relay.protocol_v2.header import build_message
from tests.cli.conftest import PATIENCE

MESSAGE = build_message(bytes(1000), source=1, sequence=1, timestamp=1)
ERROR = build_error(ErrorCode.BROKEN_STREAM, "magic at byte 7", timestamp=1)
SYNC = build_control(SequenceSync(1, 0, SyncState.LIVE), timestamp=1)
ALIVE = build_control(Heartbeat(1, 0), timestamp=1)
TOLD = "the relay closed the connection: magic at byte 7"
NOT_TOLD = "the relay closed the connection: it may not have read everything"


@pytest.fixture
def ends() -> Iterator[tuple[Publisher, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    with ours, theirs:
        yield Publisher(ours), theirs


@pytest.fixture
def publisher(ends) -> Publisher:
    return ends[0]


@pytest.fixture
def relay(ends) -> socket.socket:
    return ends[1]


def failure(call, *arguments) -> str:
    with pytest.raises(Failure) as raised:
        call(*arguments)
    return raised.value.message


def test_sends(publisher, relay):
    publisher.send(MESSAGE)
    assert relay.recv(5000) == MESSAGE


def test_goes_on_reading_while_the_relay_does_not(publisher, relay):
    """Neither end's buffers hold 20 MB: this ends only if the publisher reads what comes."""
    others = MESSAGE * 20_000

    def serve() -> None:
        relay.sendall(others)
        left = len(others)
        while left:
            left -= len(relay.recv(1 << 20))

    serving = threading.Thread(target=serve)
    serving.start()
    publisher.send(others)
    serving.join(PATIENCE)
    assert not serving.is_alive()


def test_waits_until_a_moment(publisher, relay):
    relay.sendall(MESSAGE)
    moment = time.monotonic() + 0.02
    publisher.wait_until(moment)
    assert time.monotonic() >= moment
    publisher.wait_until(moment)  # is over


def test_reads_while_it_waits_for_a_file(publisher, relay):
    reading, writing = os.pipe()
    sending = threading.Thread(target=lambda: (relay.sendall(MESSAGE * 2000), os.close(writing)))
    sending.start()
    publisher.wait_for(reading)
    sending.join(PATIENCE)
    os.close(reading)


class TestError:
    """The relay says why, and closes."""

    @pytest.fixture(autouse=True)
    def said(self, relay):
        relay.sendall(MESSAGE + ERROR)
        relay.close()

    def test_while_sending(self, publisher):
        assert failure(publisher.send, MESSAGE) == TOLD

    def test_while_waiting_for_a_moment(self, publisher):
        assert failure(publisher.wait_until, time.monotonic() + PATIENCE) == TOLD

    def test_while_waiting_for_a_file(self, publisher):
        reading, writing = os.pipe()
        assert failure(publisher.wait_for, reading) == TOLD
        os.close(reading)
        os.close(writing)

    def test_at_the_end(self, publisher):
        assert failure(publisher.finish) == TOLD


class TestDropped:
    """The relay goes on, and tells what it has not taken."""

    @pytest.fixture(autouse=True)
    def asked(self, publisher, relay):
        publisher.ask_for_errors()
        assert parse_control(relay.recv(5000)) == Subscribe(types=NOTHING)

    @pytest.mark.parametrize("code", [ErrorCode.FORBIDDEN, ErrorCode.MALFORMED])
    def test_first_is_told_at_the_end(self, publisher, relay, code):
        errors = [build_error(code, text, timestamp=1) for text in ("the first", "the second")]
        relay.sendall(b"".join([SYNC, *errors, ALIVE]))

        def serve() -> None:
            while relay.recv(5000):
                pass
            relay.close()

        serving = threading.Thread(target=serve)
        serving.start()
        assert failure(publisher.finish) == "the relay has dropped messages, first: the first"
        serving.join(PATIENCE)

    def test_refused_at_once(self, publisher, relay):
        relay.sendall(build_error(ErrorCode.FORBIDDEN, "refused: forbidden", timestamp=1))
        relay.close()
        told = "the relay closed the connection: refused: forbidden"
        assert failure(publisher.finish) == told

    def test_relay_leaves(self, publisher, relay):
        relay.sendall(SYNC + build_error(ErrorCode.LEAVING, "connect again", timestamp=1))
        relay.close()
        told = "the relay closed the connection: it leaves, and is as a rule back at once"
        assert failure(publisher.wait_until, time.monotonic() + PATIENCE) == told

    def test_nothing_is_dropped(self, publisher, relay):
        def serve() -> None:
            relay.sendall(SYNC)
            assert isinstance(parse_control(relay.recv(5000)), Heartbeat)
            relay.sendall(ALIVE)
            assert relay.recv(5000) == b""
            relay.close()

        serving = threading.Thread(target=serve)
        serving.start()
        publisher.finish()
        serving.join(PATIENCE)

    def test_ends_before_it_has_read_everything(self, publisher, relay):
        relay.sendall(SYNC)
        relay.shutdown(socket.SHUT_WR)
        assert failure(publisher.finish) == NOT_TOLD

    def test_nothing_is_put_into_a_torn_message(self, publisher, relay):
        relay.sendall(SYNC)
        relay.shutdown(socket.SHUT_WR)
        publisher.send(MESSAGE[:100])
        publisher.finish(whole=False)
        assert relay.recv(5000) == MESSAGE[:100]

    @pytest.mark.parametrize("answer", [b"", MESSAGE], ids=["nothing", "what others publish"])
    def test_what_is_no_relay_of_this_kind(self, publisher, relay, answer, monkeypatch):
        monkeypatch.setattr("alphapulse_relay.cli.publisher.ANSWER_SECONDS", 0.01)
        publisher.ask_for_errors()
        relay.sendall(answer)
        relay.recv(5000)

        def serve() -> None:
            assert relay.recv(5000) == b""
            relay.close()

        serving = threading.Thread(target=serve)
        serving.start()
        publisher.finish()
        serving.join(PATIENCE)


def test_what_encrypts(publisher, relay):
    relay.sendall(bytes.fromhex("15030100020246"))
    assert failure(publisher.wait_until, time.monotonic()) == (
        "what listens there encrypts: name it with tls:HOST:PORT, not tcp:HOST:PORT"
    )


def test_error_and_unread_bytes(publisher, relay):
    """What the relay leaves unread makes its close a reset."""
    publisher.send(MESSAGE)
    relay.sendall(ERROR)
    relay.close()
    assert failure(publisher.finish) == TOLD


def test_reset_without_an_error(publisher, relay):
    publisher.send(MESSAGE)
    relay.close()
    assert failure(publisher.send, MESSAGE) == NOT_TOLD


def test_close_while_there_is_more_to_send(publisher, relay):
    relay.close()
    assert failure(publisher.wait_until, time.monotonic()) == NOT_TOLD


def test_something_else_answers(publisher, relay):
    relay.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert failure(publisher.wait_until, time.monotonic()).startswith(
        "what comes back is not Protocol V2: magic at byte 0"
    )


def test_end_is_when_the_relay_closes(publisher, relay):
    order = []

    def serve() -> None:
        while relay.recv(1 << 20):
            order.append("read")
        relay.sendall(MESSAGE)
        order.append("closed")
        relay.close()

    publisher.send(MESSAGE)
    serving = threading.Thread(target=serve)
    serving.start()
    publisher.finish()
    assert order[-1] == "closed"
    serving.join(PATIENCE)
