"""Publishing into another relay."""

import os
import select
import socket

import pytest

from alphapulse_relay.cli.replay.target import BLOCK_SIZE, Target
from alphapulse_relay.cli.words import Failure
from tests.support import message


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def test_held_until_something_is_waited_for(ends):
    ours, theirs = ends
    target = Target("there", ours)
    sent = message(20, 1)
    target.send(sent)
    assert not select.select([theirs], [], [], 0)[0]
    target.wait_until(0)
    assert theirs.recv(BLOCK_SIZE) == sent


def test_waits_for_a_file(ends):
    ours, theirs = ends
    target = Target("there", ours)
    reading, writing = os.pipe()
    os.write(writing, b"x")
    sent = message(20, 1)
    target.send(sent)
    target.wait_for(reading)
    assert theirs.recv(BLOCK_SIZE) == sent
    os.close(reading)
    os.close(writing)


def test_large_blocks_are_not_held(ends):
    ours, theirs = ends
    target = Target("there", ours)
    sent = message(20, 1, BLOCK_SIZE)
    target.send(sent)
    assert theirs.recv(BLOCK_SIZE, socket.MSG_WAITALL) == sent


def test_relay_is_gone(ends):
    ours, theirs = ends
    target = Target("there", ours)
    target.send(message(20, 1))
    theirs.close()
    with pytest.raises(Failure) as caught:
        target.wait_until(0)
    assert caught.value.message.startswith("there: the relay closed the connection: ")
