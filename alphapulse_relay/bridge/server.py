"""The connection to NATS: servers, credentials, TLS, and what to tell of its ups and downs.

Each connection is a client of its own. One that nats-py connects again would be lost for good after
some of the errors that a server tells, or one that it does not expect, and what is under way would
wait for its timeout.
"""

import asyncio
import base64
import logging
import re
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import nats.aio.client
import nats.errors
import nkeys  # type: ignore[import-untyped]
from nats.aio.client import Client
from twisted.logger import Logger

from alphapulse_relay.bridge.options import BridgeSettings

_log = Logger()
# Each TLS connection of nats-py makes asyncio warn of how streams answer its end.
logging.getLogger("asyncio").addFilter(lambda record: "eof_received" not in str(record.msg))

RECONNECT_SECONDS = 0.5
"""Pause between attempts at servers, and how often it is looked whether a connection lasts."""
PING_SECONDS = 10
"""NATS is asked for a sign of life so often; twice without an answer, the connection is over."""
PINGS_OUT = 2
PENDING_SIZE = 16 << 20
"""Bytes that may wait to be sent: more than ever are at once."""
CLOSE_SECONDS = 1.0
"""How long an end in order may take: TLS would wait half a minute for a dead server."""
READ_SIZE = 256 << 10
"""Bytes to take at once: with the 32 KiB of nats-py, reading costs the most of all inward."""
nats.aio.client.DEFAULT_BUFFER_SIZE = READ_SIZE  # there is no option for it
_JWT = re.compile(rb"-----BEGIN NATS USER JWT-----\s+(\S+)")
_SEED = re.compile(rb"-----BEGIN USER NKEY SEED-----\s+(\S+)")


class Server:
    """NATS, connected whenever that is possible while it runs."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.client: Client = _Client()
        """That of the last connection."""
        self.reconnects = 0
        """How often a lost connection came back."""
        self.trouble: str | None = "not connected yet"
        """Why there is no connection, if there is none."""
        self.complaint: str | None = None
        """What the server has said on this connection that it does not allow."""
        self._settings = settings
        self._up = asyncio.Event()
        self._connections = 0
        self._told: set[str] = set()  # since there was a connection: servers take turns

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._up.is_set() and self.client.is_connected

    async def connected(self) -> None:
        """Wait for a connection."""
        await self._up.wait()

    async def until_lost(self) -> None:
        """Wait until this connection is over. Raises ``ConnectionError`` then."""
        client = self.client
        while client is self.client and client.is_connected:
            await asyncio.sleep(RECONNECT_SECONDS)
        raise ConnectionError("the connection to NATS was lost")

    async def run(self) -> None:
        """Connect, and again whenever that fails or ends; until cancelled.

        Raises ``OSError`` if a file for TLS cannot be used.
        """
        options = self._options()
        while True:
            client = _Client()
            try:
                # A connection that comes again is a new one, see above.
                await client.connect(allow_reconnect=False, **options)
                self._connected(client)
                await self.until_lost()
            except Exception as error:  # nats-py lets out whatever strange servers make it
                self._tell(error)
            finally:
                self._up.clear()
                await _close(client)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def close(self) -> None:
        """Disconnect."""
        await _close(self.client)

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "servers": list(settings.nats),
            "name": f"signal-relay-bridge {settings.name}",
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": RECONNECT_SECONDS,
            "ping_interval": PING_SECONDS,
            "max_outstanding_pings": PINGS_OUT,
            "pending_size": PENDING_SIZE,
            "error_cb": self._failed,
            "user": settings.user,
            "password": settings.password,
            "token": settings.token,
            "tls": tls_context(settings),
        }
        if settings.credentials is not None:
            # Not by nats-py, which reads for ever where a file has no credentials any more.
            options["user_jwt_cb"] = partial(credential, settings.credentials, _JWT)
            options["signature_cb"] = partial(sign, settings.credentials)
        return options

    def _connected(self, client: Client) -> None:
        self.client = client
        self.reconnects = self._connections
        self._connections += 1
        self.trouble = self.complaint = None
        self._told.clear()
        self._up.set()
        url = client.connected_url
        _log.info("connected to NATS at {server}", server=url.netloc if url else "?")

    async def _failed(self, error: Exception) -> None:
        """Take note of what nats-py cannot tell by raising it."""
        self._tell(error)

    def _tell(self, error: Exception) -> None:
        """Tell of an error, once while it lasts."""
        words = describe(error)
        if "permissions violation" in words.lower():
            self.complaint = words
        elif not self.is_connected:
            self.trouble = words
        if words not in self._told:
            self._told.add(words)
            _log.error("NATS: {error}", error=words)


class _Client(Client):
    """A client that shows what it has to show, but in the open only where that was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._auth_configured = True  # also where a server has a user for who shows nothing

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """See what a server says of itself, before anything is said to it.

        By itself nats-py speaks TLS only if the server asks for that, whatever the URL says: who
        is on the way could take that out, and be told the password.
        """
        if initial_connection and self.options.get("tls"):
            if not info.get("tls_required") and not info.get("tls_available"):
                raise nats.errors.Error("the server does not speak TLS, and nothing else will do")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)


async def _close(client: Client) -> None:
    with suppress(TimeoutError, OSError, nats.errors.Error):
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()


def credential(path: Path, kind: re.Pattern[bytes]) -> bytes:
    """Return a part of a file of credentials, as it is now. Raises ``OSError`` and NATS errors."""
    found = kind.search(path.read_bytes())
    if found is None:
        raise nats.errors.Error(f"{path} does not hold the credentials of a user")
    return found[1]


def sign(path: Path, nonce: str) -> bytes:
    """Return a server's nonce signed with the seed of a file of credentials. Raises as above."""
    try:
        keys = nkeys.from_seed(bytearray(credential(path, _SEED)))
    except (nkeys.NkeysError, ValueError) as error:
        raise nats.errors.Error(f"{path} does not hold the key of a user") from error
    return base64.b64encode(keys.sign(nonce.encode()))


def tls_context(settings: BridgeSettings) -> ssl.SSLContext | None:
    """Return what TLS is spoken by; None where none is. Raises ``OSError`` for a file."""
    wanted = any(url.startswith("tls:") for url in settings.nats)
    if not wanted and settings.tls_ca is None and settings.tls_cert is None:
        return None
    context = ssl.create_default_context(cafile=settings.tls_ca)
    if settings.tls_cert is not None:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def describe(error: BaseException) -> str:
    """Return what a NATS error says, in one line."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"the server's certificate is not one to trust: {error.verify_message}"
        case ssl.SSLError(reason=str(reason)):
            return f"TLS failed: {reason.lower().replace('_', ' ')}"
        case TimeoutError():
            return "no answer"
    text = str(getattr(error, "description", None) or error)
    text = " ".join(text.removeprefix("nats: ").split()).strip("'")
    return text or type(error).__name__
