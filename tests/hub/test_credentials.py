"""Who is at the other end, as the kernel says."""

import os
import socket
import struct
from typing import Any

from alphapulse_relay.hub.credentials import Credentials, credentials_of


def test_of_this_process() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert credentials_of(one) == Credentials(os.getpid(), os.geteuid(), os.getegid())


def test_large_numbers() -> None:
    """Users and groups have no sign: ``uid_t`` and ``gid_t`` are 32 bits wide."""

    class Connected:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
            return struct.pack("=iII", 7, 1 << 31, (1 << 32) - 2)[:size]

    connected: Any = Connected()
    assert credentials_of(connected) == (7, 1 << 31, (1 << 32) - 2)
