"""Hosts in a network of their own, and what befalls it: Linux network namespaces behind a router.

None of it is in the machine's own network, or has a name there. A namespace lasts as long as a
process is in it; what keeps it ends with its standard input, so with this process, however that is.
"""

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Self

import pytest

from tests.programs import run, tool
from tests.support import PATIENCE

FORWARD = "echo 1 > /proc/sys/net/ipv4/ip_forward"
ANY_WAY_BACK = "for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done"
"""Has a router take packets from a link that is not the one to their source, as those held back."""
DELAYED = "100"
"""Number of the router's table of routes for what is held back."""
BURST, QUEUE_SECONDS = 16 << 10, 0.05
"""Of a slow link: bytes that it takes at once, and how long a packet may wait; later ones go."""
_PACKET_SIZE = 1 << 16
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
"""Linux's if_tun.h: bare IP packets, one at each read and write."""


def check() -> None:
    """Skip the test, with the reason, where it cannot have a network."""
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces")
    ip, tc, enter = tool("ip"), tool("tc"), tool("unshare")
    tool("nsenter")
    needed = (
        f"{ip} link add type veth",
        f"{ip} tuntap add dev test mode tun",
        f"{ip} rule add iif lo blackhole",
        f"{tc} qdisc add dev test root tbf rate 1mbit burst 16kb latency 50ms",
        FORWARD,
    )
    tried = subprocess.run(
        [enter, "--net", "sh", "-ec", "\n".join(needed)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        pytest.skip(f"this machine cannot have networks: {tried.stderr.strip()}")


class Namespace:
    """A network namespace."""

    def __enter__(self) -> Self:
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        self._keeper.stdout.readline()  # it is in there now
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.communicate(timeout=PATIENCE)

    @property
    def enter(self) -> tuple[str, ...]:
        """Put before a command, has its process be in here."""
        return ("nsenter", f"--net=/proc/{self._keeper.pid}/ns/net")

    @property
    def pid(self) -> str:
        """Names the namespace to ``ip``."""
        return str(self._keeper.pid)

    def run(self, *command: str) -> None:
        """Run a command that must succeed."""
        name, *arguments = command
        run(*self.enter, tool(name), *arguments)


class Host(Namespace):
    """A host with one link; ``number`` (1 to 254) is that of its network."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.address = f"10.9.{number}.2"
        self.gateway = f"10.9.{number}.1"
        self.link = f"to-{name}"
        """The router's end of its link; the host's is eth0."""


class Network:
    """A router, and hosts that reach each other over it.

    >>> with Network("a", "b") as network, network.silence(network.hosts["a"]):
    ...     network.hosts["b"].run("ping", network.hosts["a"].address)
    """

    def __init__(self, *names: str) -> None:
        self.hosts = {name: Host(name, number) for number, name in enumerate(names, 1)}
        self._router = Namespace()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._router)
            self._router.run("sh", "-ec", f"{ANY_WAY_BACK}; {FORWARD}")
            for host in self.hosts.values():
                stack.enter_context(host)
                self._connect(host)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _connect(self, host: Host) -> None:
        ours = ("dev", host.link)
        other_end = ("type", "veth", "peer", "name", "eth0", "netns", host.pid)
        self._router.run("ip", "link", "add", host.link, *other_end)
        self._router.run("ip", "address", "add", f"{host.gateway}/30", *ours)
        self._router.run("ip", "link", "set", *ours, "up")
        host.run("ip", "link", "set", "dev", "lo", "up")
        host.run("ip", "address", "add", f"{host.address}/30", "dev", "eth0")
        host.run("ip", "link", "set", "dev", "eth0", "up")
        host.run("ip", "route", "add", "default", "via", host.gateway)

    def silence(self, host: Host) -> AbstractContextManager[None]:
        """Lose all packets from and to a host, of which nobody is told."""
        return self._lose(("iif", host.link), ("to", host.address))

    def deafen(self, host: Host) -> AbstractContextManager[None]:
        """Lose all packets to a host; its own arrive."""
        return self._lose(("to", host.address))

    @contextmanager
    def _lose(self, *kinds: tuple[str, str]) -> Iterator[None]:
        for kind in kinds:
            self._router.run("ip", "rule", "add", *kind, "blackhole")
        try:
            yield
        finally:
            for kind in kinds:
                self._router.run("ip", "rule", "del", *kind, "blackhole")

    @contextmanager
    def unplugged(self, host: Host) -> Iterator[None]:
        """Have the host's link be down, as both its ends know."""
        self._router.run("ip", "link", "set", "dev", host.link, "down")
        try:
            yield
        finally:
            self._router.run("ip", "link", "set", "dev", host.link, "up")

    def reset(self, host: Host) -> None:
        """Start a host again: of its connections it knows nothing, and nobody is told of that."""
        # First: its last packets would tell.
        self._router.run("ip", "link", "del", "dev", host.link)
        host.__exit__()
        host.__enter__()
        self._connect(host)

    def slow_down(self, host: Host, rate: int, seconds: float) -> None:
        """Give a host's link so many bytes a second each way, and round trips so much longer."""
        self._hold_back(host, seconds)
        limit = ("rate", f"{rate}bps", "burst", f"{BURST}b", "latency", f"{QUEUE_SECONDS}s")
        self._router.run("tc", "qdisc", "add", "dev", host.link, "root", "tbf", *limit)
        host.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *limit)

    def _hold_back(self, host: Host, seconds: float) -> None:
        """Delay what a host sends. Not by netem, which not every kernel has."""
        device = f"slow-{host.name}"
        self._router.run("ip", "tuntap", "add", "dev", device, "mode", "tun")
        self._router.run("ip", "link", "set", "dev", device, "up")
        self._router.run("sh", "-ec", ANY_WAY_BACK)
        self._router.run("ip", "route", "add", "default", "dev", device, "table", DELAYED)
        self._router.run("ip", "rule", "add", "iif", host.link, "lookup", DELAYED)
        program = [sys.executable, "-m", __name__, device, str(seconds)]
        holder = subprocess.Popen([*self._router.enter, *program], stdin=subprocess.PIPE)
        self._stack.callback(holder.communicate, timeout=PATIENCE)


def hold_back(device: str, seconds: float) -> None:
    """Give back what is routed to a TUN device, so much later; until standard input ends."""
    held: deque[tuple[float, bytes]] = deque()
    with open("/dev/net/tun", "r+b", buffering=0) as tun:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI))
        while True:
            wait = max(held[0][0] - time.monotonic(), 0.0) if held else None
            ready = select.select([tun, sys.stdin], [], [], wait)[0]
            if sys.stdin in ready:
                return
            if tun in ready:
                held.append((time.monotonic() + seconds, tun.read(_PACKET_SIZE)))
            while held and held[0][0] <= time.monotonic():
                tun.write(held.popleft()[1])


if __name__ == "__main__":
    hold_back(sys.argv[1], float(sys.argv[2]))
