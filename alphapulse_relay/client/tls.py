"""TLS for programs without an event loop.

A :class:`TLSSocket` is used as a plain socket: where it would have to wait it raises
``BlockingIOError``, and what goes wrong in TLS is a ``ConnectionError``.
"""

import errno
import math
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from alphapulse_relay.client.address import TLSAddress
from alphapulse_relay.client.errors import CertificateError

SEND_SIZE = 64 * 1024
"""Bytes that are encrypted at once: what then does not fit into the socket is kept."""
DROPPED_READS = 16
"""How often what has come is read at the end: more than there can be, if nothing more comes."""
SHORTEST_SECONDS = 0.001
"""To wait for no time at all would be not to wait, for a socket."""
RECORD_HEADER_SIZE = 5
"""Bytes: type, version, length (RFC 8446, section 5.1)."""
RECORD_LENGTH_SIZE = 2
"""Bytes of the length, the last of them."""
_NO_ANSWER = "no answer in TLS: does that port encrypt?"
_ALERTS = {
    "certificate required": ": give cert= and key= of one that the relay knows",
    "unsupported certificate": ": the relay does not take it for a client's (extendedKeyUsage)",
    "unknown ca": ": the relay does not know who has signed cert=",
    "certificate expired": ": that in cert= is out of date",
    "certificate revoked": ": the relay does not take that in cert= any more",
}
"""What the relay thinks of a client's certificate, and what to do about it."""


class TLSSocket(socket.socket):
    """The client's end of an encrypted connection; takes over a connected socket.

    OpenSSL gets and gives its bytes in memory: on a socket of its own it would read as soon as it
    has said that no more is sent, and take what still comes for a failure (SSL_shutdown(3)).
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, name: str) -> None:
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=name)
        timeout = connection.gettimeout()
        super().__init__(fileno=connection.detach())
        self.settimeout(timeout)
        self._header = b""  # of the record that arrives, until it is whole...
        self._missing = 0  # ...and how many bytes of the record are missing then
        self._unread = b""  # what had arrived when the end was said
        self._unsent = bytearray()  # records that do not fit into the socket...
        self._encrypted = 0  # ...and how many bytes of what is sent are in them
        self._said_end = False

    def do_handshake(self) -> None:
        """Have the other end prove who it is. Raises ``OSError``.

        All of it may take no longer than the timeout.
        """
        timeout = self.gettimeout()
        until = math.inf if timeout is None else time.monotonic() + timeout
        try:
            while not self._handshake_done():
                if timeout is not None:
                    self.settimeout(max(until - time.monotonic(), SHORTEST_SECONDS))
                self._take()
                if time.monotonic() > until:
                    raise TimeoutError
        finally:
            self.settimeout(timeout)

    def _handshake_done(self) -> bool:
        done = True
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        self._flush()  # what is wrong is said at the close: that it cannot be would hide it here
        return done

    def recv(self, buflen: int, _flags: int = 0, /) -> bytes:
        """Receive; see ``socket.socket``."""
        if self._unread:
            data, self._unread = self._unread[:buflen], self._unread[buflen:]
            return data
        while True:
            try:
                return self._tls.read(buflen)
            except ssl.SSLWantReadError:
                with suppress(OSError):  # there may be something to read all the same
                    self._flush()  # what TLS has to answer by itself
                self._take()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""  # the end, be it said or not: messages tell whether they are whole
            except ssl.SSLError as error:
                _raise_plain(error)

    def send(self, data: Any, _flags: int = 0, /) -> int:
        """Send; see ``socket.socket``. What did not fit is to be given again, before all else."""
        if not self._encrypted:
            try:
                self._encrypted = self._tls.write(memoryview(data)[:SEND_SIZE])
            except ssl.SSLError as error:
                _raise_plain(error)
        self._flush()
        sent, self._encrypted = self._encrypted, 0
        return sent

    def sendall(self, data: Any, _flags: int = 0, /) -> None:
        """Send all; see ``socket.socket``."""
        view = memoryview(data)
        while view:
            view = view[self.send(view) :]

    def shutdown(self, _how: int = socket.SHUT_WR, /) -> None:
        """Tell the other end that no more comes; receiving goes on.

        As by sending, the other end's kernel is waited for, if it has no room.
        """
        self._encrypt_end()
        while True:
            try:
                self._flush()
            except BlockingIOError:
                select.select([], [self], [])
            else:
                return

    def close(self) -> None:
        """Tell the other end that no more comes, or it would take the end for a failure."""
        with suppress(OSError):
            self.setblocking(False)
            self._encrypt_end()
            self._flush()
            self._drop_rest()
        super().close()

    def _drop_rest(self) -> None:
        """Read what has come, be it only TLS's own, or the kernel would reset the connection.

        The other end might not get what was sent last then (RFC 1122, section 4.2.2.13).
        """
        for _ in range(DROPPED_READS):
            if not super().recv(SEND_SIZE):
                return

    def _not_in_tls(self, *_: object) -> NoReturn:
        raise NotImplementedError("this would be plain")

    recv_into = recvfrom = recvfrom_into = recvmsg = _not_in_tls  # type: ignore[assignment]
    sendmsg = sendto = sendfile = _not_in_tls  # type: ignore[assignment]

    def _encrypt_end(self) -> None:
        if self._said_end:
            return
        self._said_end = True
        while pending := self._tls.pending():
            self._unread += self._tls.read(pending)
        with suppress(ssl.SSLError):  # it is said, but the other end has not said so
            self._tls.unwrap()

    def _take(self) -> None:
        """Receive what has come of a record, or first of its header (RFC 8446, section 5.1).

        And nothing behind it: who waits for more waits for the socket. Raises ``OSError``.
        """
        data = super().recv(self._missing or RECORD_HEADER_SIZE - len(self._header))
        if not data:
            self._arrived.write_eof()
            return
        self._arrived.write(data)
        if self._missing:
            self._missing -= len(data)
            return
        self._header += data
        if len(self._header) == RECORD_HEADER_SIZE:
            self._missing = int.from_bytes(self._header[-RECORD_LENGTH_SIZE:])
            self._header = b""

    def _flush(self) -> None:
        """Send what is encrypted. Raises ``OSError``; what does not fit then waits here."""
        self._unsent += self._leaving.read()
        while self._unsent:
            del self._unsent[: super().send(self._unsent)]


def encrypted(connection: socket.socket, address: TLSAddress) -> TLSSocket:
    """Return a connected socket's encrypted one, whose other end has proved who it is.

    Raises :class:`CertificateError` if that is not the relay of the address, and ``OSError`` if
    TLS fails otherwise, or a file of the address cannot be used. The socket is closed then.
    """
    with connection:
        wrapped = TLSSocket(connection, load_context(address), address.name)
    try:
        _shake_hands(wrapped, address)
    except BaseException:
        wrapped.close()
        raise
    return wrapped


def _shake_hands(connection: TLSSocket, address: TLSAddress) -> None:
    try:
        connection.do_handshake()
    except ssl.SSLCertVerificationError as error:
        where = f"{address.host}:{address.port}"
        raise CertificateError(
            f"what listens at {where} is not {address.name}: {error.verify_message.rstrip('.')}"
        ) from error
    except (ssl.SSLEOFError, ConnectionResetError) as error:
        raise ConnectionResetError(f"closed, {_NO_ANSWER}") from error
    except ssl.SSLError as error:
        _raise_plain(error)
    except TimeoutError as error:
        raise TimeoutError(_NO_ANSWER) from error


def load_context(address: TLSAddress) -> ssl.SSLContext:
    """Return what is asked of a relay, TLS 1.2 or newer, and proved to it; the files are read now.

    Raises ``OSError`` if one cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # only names of which it says what they are
    if address.ca is None:
        context.load_default_certs()
    else:
        with _named(f"ca={address.ca}"):
            context.load_verify_locations(address.ca)
    if address.cert is not None:
        with _named(f"cert={address.cert}, key={address.key}"):
            # Without a password for the key OpenSSL would ask at the terminal.
            context.load_cert_chain(address.cert, address.key, password="")
    return context


@contextmanager
def _named(files: str) -> Iterator[None]:
    """Say which files cannot be used."""
    try:
        yield
    except OSError as error:
        reason = reason_of(error) if isinstance(error, ssl.SSLError) else error.strerror
        raise OSError(f"{files} cannot be used: {reason}") from error


def reason_of(error: ssl.SSLError) -> str:
    """Return what went wrong, without the names of OpenSSL's parts and places."""
    return (error.reason or str(error)).lower().replace("_", " ")


def failure_of(words: str) -> ConnectionAbortedError:
    """Return the error for what OpenSSL says; what the relay thinks of a certificate is explained.

    The relay's alerts are those of RFC 8446, section 6.2.
    """
    _, _, alert = words.partition(" alert ")
    return ConnectionAbortedError(f"TLS failed: {words}{_ALERTS.get(alert, '')}")


def _raise_plain(error: ssl.SSLError) -> NoReturn:
    """Raise what a plain socket would."""
    if isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from None
    raise failure_of(reason_of(error)) from error
