"""TLS for programs without an event loop.

A :class:`TLSSocket` is used as a plain socket: where it would have to wait it raises
``BlockingIOError``, and what goes wrong in TLS is a ``ConnectionError``.
"""

import errno
import os
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from alphapulse_relay.client.address import TLSAddress
from alphapulse_relay.client.errors import CertificateError

_NO_ANSWER = "no answer in TLS: does that port encrypt?"


class TLSSocket(ssl.SSLSocket):
    """The client's end of an encrypted connection."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive; see ``socket.socket``."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLZeroReturnError:
            return b""  # the end, after this end's own
        except ssl.SSLError as error:
            _raise_plain(error)

    def send(self, data: Any, flags: int = 0) -> int:
        """Send; see ``socket.socket``."""
        try:
            return super().send(data, flags)
        except ssl.SSLError as error:
            _raise_plain(error)

    def shutdown(self, _how: int = socket.SHUT_WR) -> None:
        """Tell the other end that no more comes; receiving goes on.

        As by sending, the other end's kernel is waited for, if it has no room.
        """
        while not self._said_end():
            select.select([], [self], [])

    def close(self) -> None:
        """Tell the other end that no more comes, or it would take the end for a failure."""
        with suppress(OSError, ValueError):
            self._said_end()
        super().close()

    def _said_end(self) -> bool:
        """Say that no more comes, without waiting; False if there is no room for that yet."""
        timeout = self.gettimeout()
        self.setblocking(False)
        try:
            self.unwrap()
        except ssl.SSLWantWriteError:
            return False
        except ssl.SSLError:
            pass  # it is said, but the other end has not said so, or something else before
        finally:
            self.settimeout(timeout)
        return True


def encrypted(connection: socket.socket, address: TLSAddress) -> TLSSocket:
    """Return a connected socket's encrypted one, whose other end has proved who it is.

    Raises :class:`CertificateError` if that is not the relay of the address, and ``OSError`` if
    TLS fails otherwise, or a file of the address cannot be used. The socket is closed then.
    """
    with connection:
        try:
            wrapped = load_context(address).wrap_socket(connection, server_hostname=address.name)
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
    assert isinstance(wrapped, TLSSocket)
    return wrapped


def load_context(address: TLSAddress) -> ssl.SSLContext:
    """Return what is asked of a relay, TLS 1.2 or newer, and proved to it; the files are read now.

    Raises ``OSError`` if one cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = TLSSocket
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


def _raise_plain(error: ssl.SSLError) -> NoReturn:
    """Raise what a plain socket would."""
    if isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from None
    raise ConnectionAbortedError(f"TLS failed: {reason_of(error)}") from error
