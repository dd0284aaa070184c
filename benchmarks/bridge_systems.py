"""Two relays that are joined by bridges and a nats-server, as one system that can be measured.

What is published goes to the one relay, and consumers are at the other: so all that lies between
is measured. What is measured, and how, this does not know.
"""
# ruff: noqa: D102 - System tells what the methods are for

import importlib.util
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.systems import TWISTD, JournalRelay, Nats, System

BRIDGE_MISSING = "the Python package nats-py is not installed"
TICKS = os.sysconf("SC_CLK_TCK")
"""Ticks of the kernel's accounting in a second."""


class Hub(Nats):
    """nats-server with JetStream in files, all else as it is by default."""

    key = "hub"
    label = "nats-server with JetStream"

    def command(self) -> Sequence[str | Path]:
        command = super().command()
        store = self.directory / "store"
        (self.directory / "nats.conf").write_text(f'jetstream {{ store_dir: "{store}" }}\n')
        return command

    @property
    def url(self) -> str:
        """Where its clients connect to."""
        found = re.search(r"Listening for client connections on (127\.0\.0\.1:\d+)", self.log)
        assert found is not None, "it listens"
        return f"nats://{found[1]}"


class Bridge(System):
    """The bridge of a relay, under a name of its own in the stream, which it makes.

    It takes what the ``other`` relay sends, as two hosts would have it: what is its own need not
    come back. ``options`` are others than the defaults.
    """

    label = "bridge"

    def __init__(
        self,
        directory: Path,
        relay: System,
        hub: Hub,
        name: str,
        other: str,
        options: Sequence[str] = (),
    ) -> None:
        self.key = f"bridge-{name}"
        super().__init__(directory)
        self._relay = relay
        self._hub = hub
        self._name = name
        self._other = other
        self._options = options

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("nats") else BRIDGE_MISSING

    def command(self) -> Sequence[str | Path]:
        ends = ("--relay", self._relay.directory / "socket", "--nats", self._hub.url)
        state = ("--state", self.directory / "state", "--web", "none")
        name = ("--name", self._name, "--take-from", self._other, "--create-stream")
        bridge = ("-n", "--pidfile=", "signal-relay-bridge", *ends, *state, *name, *self._options)
        return sys.executable, "-c", TWISTD, *bridge

    def listens(self) -> bool:
        return "goes outward" in self.log and "goes inward" in self.log


@dataclass(frozen=True)
class CPUTime:
    """What a process has used so far, in seconds."""

    user: float
    system: float

    def __sub__(self, other: "CPUTime") -> "CPUTime":
        return CPUTime(self.user - other.user, self.system - other.system)


def cpu_time(pid: int) -> CPUTime:
    """Return what all threads of a process have used (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return CPUTime(int(fields[11]) / TICKS, int(fields[12]) / TICKS)


class Joined(System):
    """A relay, its bridge, nats-server, another bridge, and another relay: all with journals.

    ``options`` are those of the bridges.
    """

    key = "joined"
    label = "two relays with bridges"

    def __init__(self, directory: Path, scale: float = 1, options: Sequence[str] = ()) -> None:
        super().__init__(directory, scale)
        self.hub = Hub(self.directory)
        self.near = JournalRelay(self.directory / "a", scale)
        self.far = JournalRelay(self.directory / "b", scale)
        self.near_bridge = Bridge(self.directory, self.near, self.hub, "a", "b", options)
        self.far_bridge = Bridge(self.directory, self.far, self.hub, "b", "a", options)

    def missing(self) -> str | None:
        return self.hub.missing() or self.near_bridge.missing()

    @property
    def processes(self) -> Mapping[str, int]:
        """What a message goes through, in order, and who that is."""
        return {
            "relay A": self.near.pid,
            "bridge A": self.near_bridge.pid,
            "nats-server": self.hub.pid,
            "bridge B": self.far_bridge.pid,
            "relay B": self.far.pid,
        }

    def start(self) -> None:
        """Start all of it, the relays with journals that are full."""
        for relay in (self.near, self.far):
            relay.directory.parent.mkdir(parents=True)
            relay.start()
            relay.prepare()
        for part in (self.hub, self.near_bridge, self.far_bridge):
            part.start()

    def stop(self) -> None:
        for part in (self.near_bridge, self.far_bridge, self.hub, self.near, self.far):
            part.stop()

    def connect(self, *, consumer: bool) -> socket.socket:
        return (self.far if consumer else self.near).connect(consumer=consumer)
