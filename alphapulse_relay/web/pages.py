"""The kinds of pages that there are on the side port. Knows HTTP, and nothing of what they tell."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from twisted.internet.interfaces import IPushProducer
from twisted.web.http import CACHED, NOT_ALLOWED, NOT_FOUND
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

PIECE_SIZE = 64 * 1024
"""Bytes that are written at once: a transport asks for a pause when it holds as much."""
PLAIN = "text/plain; charset=utf-8"
HEADERS = {
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""What every answer has: nothing of it is to be guessed at, told to others, or shown in a frame."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser lets the live page do: only what came from the relay (CSP Level 3)."""
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
"""The files that the live page has."""


class Notice(Resource):
    """Answers any request with a status and one line, which says what to do."""

    isLeaf = True

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__()
        self._status = status
        self._line = f"{text}\n".encode()
        self._headers = headers

    def render(self, request: Request) -> int:
        """Answer."""
        request.setResponseCode(self._status)
        for name, value in self._headers.items():
            request.setHeader(name.replace("_", "-"), value)
        return answer(request, self._line, PLAIN)


class Directory(Resource):
    """Has children, and is nothing else."""

    def render(self, request: Request) -> int:
        """Answer that nothing is here."""
        return NOWHERE.render(request)

    def getChild(self, path: bytes, request: Request) -> Resource:  # noqa: ARG002
        """Return what answers so for any other name."""
        return NOWHERE


NOWHERE = Notice(NOT_FOUND, "there is no such page: see /")


class _Readable(Resource):
    """A leaf that answers GET and HEAD."""

    isLeaf = True

    def render(self, request: Request) -> int:
        """Refuse all but GET and HEAD."""
        if request.method in {b"GET", b"HEAD"}:
            return self.render_GET(request)
        return Notice(NOT_ALLOWED, "a page can only be read", allow="GET, HEAD").render(request)

    def render_GET(self, request: Request) -> int:
        raise NotImplementedError


class Page(_Readable):
    """Answers with what ``render`` returns, as it is now."""

    def __init__(self, render: Callable[[Request], bytes], content_type: str) -> None:
        super().__init__()
        self._render = render
        self._content_type = content_type

    def render_GET(self, request: Request) -> int:
        """Answer with the page as it is now."""
        request.setHeader("cache-control", "no-store")
        request.setHeader("content-type", self._content_type)
        return answer(request, self._render(request))


class StaticFile(_Readable):
    """Answers with a file, which is sent again only where it has changed since."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def render_GET(self, request: Request) -> int:
        """Answer with the file."""
        try:
            file = self._path.open("rb")
        except OSError:
            return NOWHERE.render(request)
        status = os.fstat(file.fileno())
        request.setHeader("cache-control", "no-cache")
        request.setHeader("content-type", CONTENT_TYPES[self._path.suffix])
        if self._path.suffix == ".html":
            request.setHeader("content-security-policy", PAGE_POLICY)
        if request.setETag(f'"{status.st_mtime_ns:x}-{status.st_size:x}"'.encode()) is CACHED:
            file.close()
            request.finish()
            return NOT_DONE_YET
        return send(request, file, status.st_size)


def answer(request: Request, body: bytes, content_type: str | None = None) -> int:
    """Answer with some bytes."""
    if content_type is not None:
        request.setHeader("content-type", content_type)
    return send(request, io.BytesIO(body), len(body))


def send(request: Request, file: BinaryIO, size: int) -> int:
    """Answer with what a file holds, so many bytes; it is closed in the end."""
    request.setHeader("content-length", str(size))
    if request.method == b"HEAD":
        file.close()
        request.finish()
    else:
        _Feed(request, file, size).start()
    return NOT_DONE_YET


@implementer(IPushProducer)
class _Feed:
    """Writes a file to who has asked, a piece at a time and no faster than it is taken."""

    def __init__(self, request: Request, file: BinaryIO, size: int) -> None:
        self._request = request
        self._file = file
        self._left = size
        self._flowing = False

    def start(self) -> None:
        """Begin."""
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """Write until nothing is left, or it is too much."""
        self._flowing = True
        while self._flowing:
            piece = self._file.read(min(PIECE_SIZE, self._left))
            self._left -= len(piece)
            if piece:
                self._request.write(piece)
            elif self._left:  # the file has become shorter
                self.stopProducing()
                self._request.loseConnection()
            if self._flowing and not self._left:
                self.stopProducing()
                self._request.unregisterProducer()
                self._request.finish()

    def pauseProducing(self) -> None:
        """Wait until it is taken."""
        self._flowing = False

    def stopProducing(self) -> None:
        """Give up: nobody takes it any more."""
        self._flowing = False
        self._file.close()
