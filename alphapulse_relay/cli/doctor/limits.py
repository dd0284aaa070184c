"""The machine's limits: open files, waiting connections, buffers, cores."""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress

from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import Finding, note, ok, wrong
from alphapulse_relay.descriptors import room_in

LISTEN_BACKLOG = 4096
"""Connections that a relay wishes to have wait: the hub's own figure."""
SOCKET_BUFFER = 212_992
"""Bytes that Linux lets wait in a socket by default (socket(7), ``wmem_default``)."""
_RAISE = "raise it: LimitNOFILE= in the unit, 'ulimit -n', or limits.conf(5); or lower --max-peers"


def check_descriptors(subject: Subject) -> Iterator[Finding]:
    """Whether the limit of open files leaves room for all peers."""
    peers = subject.settings.max_peers
    if subject.pid is None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = system.UNLIMITED if hard == resource.RLIM_INFINITY else hard
        who = f"a relay of {system.user_name(os.geteuid())} may open {_count(limit)} files"
        if os.geteuid() == 0:  # who may raise it
            yield ok(f"{who}, and root more")
            return
    else:
        limit, _ = system.open_files_limits(subject.pid)
        who = f"the relay may open {_count(limit)} files"
        with suppress(OSError):
            who += f", and has {len(os.listdir(f'/proc/{subject.pid}/fd'))}"
    fit, _ = room_in(limit, peers)
    if fit < peers:
        yield wrong(f"{who}: {fit} peers fit, --max-peers is {peers}", _RAISE)
    else:
        yield ok(f"{who}: {peers} peers fit")


def _count(limit: int) -> str:
    return "any number of" if limit >= system.UNLIMITED else str(limit)


def check_waiting(subject: Subject) -> Iterator[Finding]:
    """Whether all peers may wait to be accepted when they come back at once."""
    most = system.kernel_number("net.core.somaxconn")
    wanted = min(LISTEN_BACKLOG, subject.settings.max_peers)
    text = f"{most} connections may wait to be accepted (net.core.somaxconn)"
    if most < wanted:
        yield note(
            f"{text}, the relay wishes for {wanted}", f"sysctl -w net.core.somaxconn={wanted}"
        )
    else:
        yield ok(text)


def check_buffers(_subject: Subject) -> Iterator[Finding]:
    """Whether sockets hold as much for a peer as they do by default."""
    size = system.kernel_number("net.core.wmem_default")
    text = f"{size} bytes may wait in a socket (net.core.wmem_default)"
    if size < SOCKET_BUFFER:
        mend = f"sysctl -w net.core.wmem_default={SOCKET_BUFFER}"
        yield note(f"{text}: consumers that pause are behind sooner", mend)
    else:
        yield ok(text)


def check_cores(subject: Subject) -> Iterator[Finding]:
    """Whether the relay runs on the core that it is to be pinned to."""
    if subject.pid is None:
        return
    cores, wanted = os.sched_getaffinity(subject.pid), subject.settings.cpu
    if wanted is not None and cores != {wanted}:
        yield note(f"the relay is not pinned to core {wanted}", "restart it with --cpu")
    elif len(cores) == 1:
        yield ok(f"the relay runs on core {min(cores)} only")
    else:
        yield ok(f"the relay may run on {len(cores)} cores")
