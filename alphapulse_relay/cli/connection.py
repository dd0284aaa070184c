"""The way to a relay, and what to tell a person when there is none.

Knows sockets and the words for what goes wrong with them; what flows over them, it does not.
"""

import grp
import math
import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from alphapulse_relay.cli.words import Failure
from alphapulse_relay.client.address import SCHEMES, Place, UnixAddress, parse_address
from alphapulse_relay.client.connection import open_connection
from alphapulse_relay.client.errors import CertificateError
from alphapulse_relay.client.tls import TLSSocket
from alphapulse_relay.protocol_v2.control import ErrorCode, ErrorMessage
from alphapulse_relay.protocol_v2.framing import Level, Rules
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, SIZE_LIMIT

DEFAULT_SOCKET = "/tmp/alphapulse/signals.sock"  # noqa: S108 (where deployed relays listen)
RECEIVE_SIZE = 256 * 1024
"""Bytes asked of a socket at once: more than its buffer holds by default (212,992 bytes)."""
FROM_RELAY = Rules(level=Level.FRAMING, max_message=HEADER_SIZE + SIZE_LIMIT)
"""For what a relay sends: it has checked it, and it alone knows its limit."""
Wait = Callable[[int], None]
"""Returns when a file descriptor is readable."""
_START = 'start one with "twistd -n signal-relay", or name its socket with --socket'
_ADDRESS = f"{__name__}.address"
_ELSEWHERE = "see whether it runs, and has such a --listen"
_PORT = re.compile(r"[^/:]+:[0-9]{1,5}")
_TLS_ALERT = b"\x15\x03"
"""How TLS begins what it says to who does not speak it (RFC 8446, section 5.1)."""
_MAY_ENCRYPT = "it may encrypt: name it with tls:HOST:PORT then"
_LEAVING = "it leaves, and is as a rule back at once"


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
        callback=_chosen,
        help="The relay's Unix socket.",
    )(command)


def relay_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name the relay, as ``path``: an address for ``connect``."""
    return click.option(
        "--connect",
        metavar="ADDRESS",
        envvar="SIGNAL_RELAY_CONNECT",
        show_envvar=True,
        is_eager=True,  # before the socket, which it replaces
        expose_value=False,
        callback=_keep,
        help="Where the relay is, if not on --socket: unix:PATH, tcp:HOST:PORT or"
        " tls:HOST:PORT[:ca=FILE][:cert=FILE:key=FILE][:name=NAME].",
    )(socket_option(command))


def address_of(text: str) -> str:
    """Return an address if it is understood; raises ``click.BadParameter``."""
    try:
        parse_address(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None
    return text


def _keep(context: click.Context, _: click.Parameter, text: str | None) -> None:
    if text is not None:
        context.meta[_ADDRESS] = address_of(text)


def _chosen(context: click.Context, _: click.Parameter, path: str) -> str:
    """Return the address that was given, or that of the socket: a flag goes before a variable."""
    address: str | None = context.meta.get(_ADDRESS)
    flags = [
        name
        for name in ("connect", "path")
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if len(flags) > 1:
        raise click.UsageError("--connect and --socket exclude each other.")
    if address is None or flags == ["path"]:
        return f"unix:{path}" if path.startswith(SCHEMES) else path
    return address


def connect(address: str) -> socket.socket:
    """Return a connected socket; raises :class:`Failure` with what to do if there is no relay."""
    place = parse_address(address)
    try:
        connection = _open(place)
    except OSError as error:
        raise Failure(_no_relay(place, error)) from None
    except CertificateError as error:
        raise Failure(f"{error}: see ca= and name= of --connect") from None
    return connection


def _open(place: Place) -> socket.socket:
    if not isinstance(place, UnixAddress):
        connection = open_connection(place, None, math.inf)
        connection.settimeout(None)
        return connection
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(place.path)  # waits where a listener's queue is full
    except OSError:
        connection.close()
        raise
    return connection


def receive(connection: socket.socket, wait_for: Wait) -> bytes:
    """Return the next bytes that come, none at the end; ``wait_for`` is what waits for them."""
    connection.setblocking(False)  # TLS may have nothing for us yet although something has come
    while True:
        wait_for(connection.fileno())
        try:
            return connection.recv(RECEIVE_SIZE)
        except BlockingIOError:
            pass
        except ConnectionResetError:
            return b""


def closed(error: ErrorMessage | None, otherwise: str = "") -> Failure:
    """Return how to tell that the relay closed the connection, with its Error if it sent one."""
    reason = error.text if error else otherwise
    if error and error.code == ErrorCode.LEAVING:
        reason = _LEAVING
    return Failure("the relay closed the connection" + (f": {reason}" if reason else ""))


def not_a_relay(data: bytes, otherwise: str) -> Failure:
    """Return how to tell that what came last, ``data``, is not from a relay."""
    if data.startswith(_TLS_ALERT):
        return Failure("what listens there encrypts: name it with tls:HOST:PORT, not tcp:HOST:PORT")
    return Failure(otherwise)


def why_silent(connection: socket.socket, otherwise: str) -> str:
    """Return why what listens may have closed the connection without a word."""
    plain = connection.family != socket.AF_UNIX and not isinstance(connection, TLSSocket)
    return _MAY_ENCRYPT if plain else otherwise


def _no_relay(place: Place, error: OSError) -> str:
    if isinstance(place, UnixAddress):
        return _no_socket(place.path, error)
    where = f"{place.host}:{place.port}"
    if isinstance(error, ConnectionRefusedError):
        return f"no relay: nothing listens at {where}: {_ELSEWHERE}"
    return f"cannot connect to {where}: {error.strerror or error}"


def _no_socket(path: str, error: OSError) -> str:
    if path.startswith("\0"):
        return f"no relay: nobody has the abstract name @{path[1:]}: {_START}"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        start = f"a port is --connect tls:{path} or tcp:{path}" if _PORT.fullmatch(path) else _START
        return f"no relay: there is no socket {path}: {start}"
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
