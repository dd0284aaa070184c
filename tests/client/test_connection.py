"""One connection's deadlines, and how it sends and receives, on a pair of sockets."""

import math
import socket
from collections.abc import Iterator

import pytest

from alphapulse_relay.client.address import UnixAddress
from alphapulse_relay.client.connection import Deadline, Link, check_user, open_connection
from tests.client.scripted import PATIENCE


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket]]:
    """A link with something to send, and its other end."""
    ours, theirs = socket.socketpair()
    link = Link(ours, b"hello")
    with theirs:
        yield link, theirs
    link.close()


class TestDeadline:
    def test_leaves_one_look_after_it_has_passed(self, clock):
        deadline = Deadline(clock, 5)
        assert deadline.left() == 5
        clock.now += 6
        assert deadline.left() == 0
        with pytest.raises(TimeoutError):
            deadline.left()

    def test_none_is_for_ever(self, clock):
        assert Deadline(clock, None).left() == math.inf


class TestLink:
    def test_sends_and_receives(self, ends):
        link, theirs = ends
        theirs.sendall(b"welcome")
        assert link.turn(PATIENCE) == b"welcome"
        assert (theirs.recv(10), link.out) == (b"hello", b"")

    def test_waits_no_longer_than_told(self, ends):
        link, _ = ends
        assert [link.turn(0), link.turn(0), link.turn(0.001)] == [b""] * 3

    def test_leaves_what_comes_while_it_only_sends(self, ends):
        link, theirs = ends
        theirs.sendall(b"welcome")
        assert link.turn(PATIENCE, reading=False) == b""
        assert link.turn(PATIENCE) == b"welcome"

    def test_goes_on_where_the_socket_had_no_more_room(self, ends):
        link, theirs = ends
        theirs.settimeout(PATIENCE)
        link.out += bytes(1_000_000)
        received = 0
        while received < 1_000_005:
            link.turn(0)
            received += len(theirs.recv(1 << 20))
        assert not link.out

    @pytest.mark.parametrize("reading", [True, False])
    def test_tells_what_was_said_before_the_end(self, ends, reading):
        link, theirs = ends
        theirs.sendall(b"too many peers")
        theirs.close()
        came = b""
        with pytest.raises(ConnectionResetError):  # noqa: PT012 (it may take a turn or two)
            while True:
                came += link.turn(PATIENCE, reading=reading)
        assert came == b"too many peers"
        assert link.out, "it was never sent"


def test_an_attempt_has_its_time(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        place = UnixAddress(str(path))
        with open_connection(place, None, PATIENCE), pytest.raises(OSError, match=r"timed out|ava"):
            open_connection(place, None, 0.01)


def test_any_user_will_do(path):
    with socket.socket(socket.AF_UNIX) as connection:
        check_user(connection, None)
