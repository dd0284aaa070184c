"""What other ways to do the same are worth: the floor by io_uring, without copies, pinned.

``python -m benchmarks.variants`` measures them beside the floor and prints a table; nothing else
needs them. :class:`Variant` and those derived from it are the systems.
"""
# ruff: noqa: D102 - as in systems.py

import mmap
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compiled import CompileError, compile_program
from benchmarks.systems import Floor, Relay, StartError, System

SO_ZEROCOPY = 60
"""https://docs.kernel.org/networking/msg_zerocopy.html; Python has no name for it."""


class Variant(Floor):
    """The floor in another way: a program of this directory, with a word that says which."""

    program: str
    options: tuple[str, ...] = ()

    def version(self) -> str:
        return f"{self.program}.c"

    def command(self) -> Sequence[str | Path]:
        try:
            program = compile_program(f"variants/{self.program}")
            return program, self.directory / "socket", *self.options
        except CompileError as error:
            raise StartError(str(error)) from error


class Uring(Variant):
    """One system call for a chunk."""

    key = "uring"
    label = "io_uring"
    program = "floor_uring"


class Sendfile(Variant):
    """References to the pages of a ring in place of copies."""

    key = "sendfile"
    label = "zero-copy: sendfile from a ring"
    program = "floor_splice"
    options = ("sendfile",)


class Tee(Variant):
    """Pages handed on from socket to socket."""

    key = "tee"
    label = "zero-copy: splice and tee"
    program = "floor_splice"
    options = ("tee",)


class Log(Variant):
    """A large ring in place of one hot buffer."""

    key = "log"
    label = "64 MiB ring, 4 KiB pages"
    program = "floor_log"
    options = ("plain",)


class HugeLog(Log):
    """The same with huge pages."""

    key = "huge-log"
    label = "64 MiB ring, huge pages"
    options = ("huge",)


class FreshLog(Log):
    """Every page at its first touch."""

    key = "fresh-log"
    label = "64 MiB ring, each page touched first"
    options = ("fresh",)


class FreshHugeLog(Log):
    """Every huge page at its first touch."""

    key = "fresh-huge"
    label = "64 MiB ring, each huge page touched first"
    options = ("fresh-huge",)


class PinnedFloor(Floor):
    """The floor on one core."""

    core: int

    def command(self) -> Sequence[str | Path]:
        return "taskset", "--cpu-list", str(self.core), *super().command()


class PinnedRelay(Relay):
    """The relay on one core."""

    core: int

    def command(self) -> Sequence[str | Path]:
        return *super().command(), "--cpu", str(self.core)


def _pinned(kind: type[PinnedFloor] | type[PinnedRelay], core: int) -> type[System]:
    name = f"{kind.key}-{core}"
    return type(name, (kind,), {"key": name, "label": f"{kind.label}, core {core}", "core": core})


class Again(Floor):
    """The floor once more: how far from 1 a ratio is by chance."""

    key = "again"
    label = "the floor once more"


CORES = sorted(os.sched_getaffinity(0))
VARIANTS: tuple[type[System], ...] = (
    *(Floor, Again, Uring, Sendfile, Tee, Log, HugeLog, FreshLog, FreshHugeLog),
    *(_pinned(PinnedFloor, core) for core in CORES),
    Relay,
    *(_pinned(PinnedRelay, core) for core in CORES),
)


def kept_for_readers() -> dict[str, str]:
    """Return what a reader gets, by how it was sent, when memory was written again meanwhile."""
    file = os.memfd_create("ring")
    os.ftruncate(file, mmap.PAGESIZE)
    left, right = socket.socketpair()
    with mmap.mmap(file, mmap.PAGESIZE) as ring, left, right:
        ways = {
            "send": lambda: left.send(ring[:4]),
            "sendfile": lambda: os.sendfile(left.fileno(), file, 0, 4),
        }
        found = {}
        for name, send in ways.items():
            ring[:4] = b"sent"
            send()
            ring[:4] = b"next"
            found[name] = right.recv(4).decode()
        try:
            left.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
            found["SO_ZEROCOPY"] = "taken"
        except OSError as error:
            found["SO_ZEROCOPY"] = error.strerror or str(error)
    os.close(file)
    return found
