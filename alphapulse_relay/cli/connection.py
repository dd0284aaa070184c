"""The way to a relay's Unix socket, and what to tell a person when there is none.

Knows sockets and the words for what goes wrong with them; what flows over them, it does not.
"""

import grp
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from alphapulse_relay.cli.words import Failure
from alphapulse_relay.protocol_v2.control import ErrorMessage
from alphapulse_relay.protocol_v2.framing import Level, Rules
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, SIZE_LIMIT

DEFAULT_SOCKET = "/tmp/alphapulse/signals.sock"  # noqa: S108 (where deployed relays listen)
RECEIVE_SIZE = 256 * 1024
"""Bytes asked of a socket at once: more than its buffer holds by default (212,992 bytes)."""
FROM_RELAY = Rules(level=Level.FRAMING, max_message=HEADER_SIZE + SIZE_LIMIT)
"""For what a relay sends: it has checked it, and it alone knows its limit."""
_START = 'start one with "twistd -n signal-relay", or name its socket with --socket'


def socket_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that names the relay's socket."""
    return click.option(
        "--socket",
        "-s",
        "path",
        type=click.Path(readable=False),  # connecting takes other rights
        default=DEFAULT_SOCKET,
        envvar="SIGNAL_RELAY_SOCKET",
        show_default=True,
        show_envvar=True,
        help="The relay's Unix socket.",
    )(command)


def connect(path: str) -> socket.socket:
    """Return a connected socket; raises :class:`Failure` with what to do if there is no relay."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise Failure(_no_relay(path, error)) from None
    return connection


def closed(error: ErrorMessage | None, otherwise: str = "") -> Failure:
    """Return how to tell that the relay closed the connection, with its Error if it sent one."""
    reason = error.text if error else otherwise
    return Failure("the relay closed the connection" + (f": {reason}" if reason else ""))


def _no_relay(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"no relay: there is no socket {path}: {_START}"
    if isinstance(error, ConnectionRefusedError):
        return f"no relay: {_refused(path)}: {_START}"
    if isinstance(error, PermissionError):
        return f"no permission to connect to {path}: {_needed(path)}"
    return f"cannot connect to {path}: {error.strerror or error}"


def _refused(path: str) -> str:
    if stat.S_ISSOCK(Path(path).stat().st_mode):
        return f"nothing listens on {path}, a relay left it behind"
    return f"{path} is not a socket"


def _needed(path: str) -> str:
    """Tell who may connect: it takes write permission on the socket, and a way to it (unix(7))."""
    try:
        status = os.stat(path)
    except OSError:
        return f"you may not search {Path(path).parent}"
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    mode = stat.S_IMODE(status.st_mode)
    return f"its mode is {mode:o}: join its group, {group}, or start the relay with --socket-mode"
