"""HTTP requests with one time limit for all of the answer, however slowly it comes.

That of :mod:`urllib` is for each read: who sends a byte at a time would never be given up.
"""

import http.client
import io
import socket
import urllib.request
from functools import partial
from time import monotonic
from typing import Any


class _TimelyReader(io.RawIOBase):
    """Reads from a socket, and raises ``TimeoutError`` when the time is over."""

    def __init__(self, until: float, connection: socket.socket, raw: io.RawIOBase) -> None:
        self._until, self._connection, self._raw = until, connection, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(_left(self._until))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimelyResponse(http.client.HTTPResponse):
    def __init__(self, until: float, connection: socket.socket, **options: Any) -> None:
        super().__init__(connection, **options)
        self.fp = io.BufferedReader(_TimelyReader(until, connection, self.fp.detach()))


class _Timely(urllib.request.AbstractHTTPHandler):
    """What both handlers have to do differently."""

    until = 0.0

    def do_open(self, http_class: Any, req: urllib.request.Request, **options: Any) -> Any:
        def connection(host: str, **more: Any) -> Any:
            made = http_class(host, **more)
            made.response_class = partial(_TimelyResponse, self.until)
            return made

        req.timeout = _left(self.until)
        return super().do_open(connection, req, **options)


class _Plain(_Timely, urllib.request.HTTPHandler):
    """HTTP."""


class _Encrypted(_Timely, urllib.request.HTTPSHandler):
    """HTTPS."""


def opener(seconds: float) -> urllib.request.OpenerDirector:
    """Return what opens a URL, and raises ``TimeoutError`` when that time, from now, is over.

    So does reading from what it opened. No proxy is asked, whatever the environment says.
    """
    handlers = _Plain(), _Encrypted()
    for handler in handlers:
        handler.until = monotonic() + seconds
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)


def _left(until: float) -> float:
    """Return how many seconds are left; raise ``TimeoutError`` if there are none."""
    left = until - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
