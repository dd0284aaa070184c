"""Who is at the other end of a Unix socket, as the kernel says (unix(7), SO_PEERCRED)."""

import socket
import struct
from typing import NamedTuple

_UCRED = struct.Struct("iII")
"""``struct ucred``."""


class Credentials(NamedTuple):
    """A process and its user and group. ``pid`` is 0 if it is of another pid namespace."""

    pid: int
    uid: int
    gid: int


def credentials_of(connected: socket.socket) -> Credentials:
    """Return those of who connected; at the connecting end, of who called listen(2)."""
    data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(data))
