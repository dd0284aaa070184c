"""Where messages are written, and when they are flushed."""

import io
import os
import time
from contextlib import suppress

import pytest

from alphapulse_relay.cli import output
from alphapulse_relay.cli.output import Output


class Pipe:
    """An output into a pipe, and what it told of flushes."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self.reader = io.FileIO(reading)
        self.writer = io.BufferedWriter(io.FileIO(writing, "w"))
        self.flushes = 0
        self.output = Output(self.writer, bytes.upper, self.flushed)
        os.set_blocking(reading, False)

    def flushed(self) -> None:
        self.flushes += 1

    def close(self) -> None:
        self.reader.close()
        with suppress(BrokenPipeError):
            self.writer.close()


@pytest.fixture
def pipe():
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def other():
    """A descriptor to wait for, and its other end."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_written_in_its_form_when_finished(pipe):
    pipe.output.send(b"one")
    assert (pipe.reader.read(), pipe.flushes) == (None, 0)
    pipe.output.finish()
    assert (pipe.reader.read(), pipe.flushes) == (b"ONE", 1)


def test_not_flushed_while_more_is_there(pipe, other):
    os.write(other[1], b"x")
    pipe.output.send(b"one")
    pipe.output.wait_for(other[0])
    assert (pipe.reader.read(), pipe.flushes) == (None, 0)


def test_flushed_now_and_then_all_the_same(pipe, other, monkeypatch):
    monkeypatch.setattr(output, "FLUSH_SECONDS", 0.0)
    pipe.output.finish()
    os.write(other[1], b"x")
    pipe.output.send(b"one")
    pipe.output.wait_for(other[0])
    assert (pipe.reader.read(), pipe.flushes) == (b"ONE", 2)


def test_flushed_before_a_wait(pipe):
    pipe.output.send(b"one")
    pipe.output.wait_for(pipe.reader.fileno())  # readable by that very flush
    assert (pipe.reader.read(), pipe.flushes) == (b"ONE", 1)


def test_moment_that_is_waited_for(pipe):
    pipe.output.send(b"one")
    moment = time.monotonic() + 0.01
    pipe.output.wait_until(moment)
    assert time.monotonic() >= moment
    assert (pipe.reader.read(), pipe.flushes) == (b"ONE", 1)


def test_moment_that_has_passed(pipe):
    pipe.output.send(b"one")
    pipe.output.wait_until(time.monotonic())
    assert (pipe.reader.read(), pipe.flushes) == (None, 0)


def test_reader_is_gone(pipe, other):
    pipe.reader.close()
    with pytest.raises(BrokenPipeError):
        pipe.output.wait_for(other[0])
    with pytest.raises(BrokenPipeError):
        pipe.output.wait_until(time.monotonic() + 30)
    pipe.output.send(b"one")
    with pytest.raises(BrokenPipeError):
        pipe.output.finish()
    assert pipe.flushes == 1  # before the second wait, when nothing had been written


def test_terminal_gets_each_at_once():
    controller, terminal = os.openpty()
    with open(terminal, "wb") as out:
        shown = Output(out, bytes)
        shown.send(b"one")
        assert shown.is_terminal
        assert os.read(controller, 100) == b"one"
    os.close(controller)
