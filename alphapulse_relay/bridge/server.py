"""The connection to NATS: servers, credentials, TLS, and what to tell of its ups and downs."""

import asyncio
import ssl
from typing import Any

import nats.errors
from nats.aio.client import Client
from twisted.logger import Logger

from alphapulse_relay.bridge.options import BridgeSettings

_log = Logger()

RECONNECT_SECONDS = 0.5
"""Pause between attempts at servers."""
PING_SECONDS = 10
"""NATS is asked for a sign of life so often; twice without an answer, the connection is over."""
PINGS_OUT = 2
PENDING_SIZE = 16 << 20
"""Bytes that may wait to be sent: more than ever are at once."""


class Server:
    """A client of NATS, connected whenever that is possible."""

    def __init__(self, settings: BridgeSettings) -> None:
        self.client = Client()
        self.reconnects = 0
        """How often a lost connection came back."""
        self.trouble: str | None = "not connected yet"
        """Why there is no connection, if there is none."""
        self._settings = settings

    async def connect(self) -> None:
        """Connect, however long that takes. Raises ``OSError`` for files that cannot be used."""
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
            "disconnected_cb": self._disconnected,
            "reconnected_cb": self._reconnected,
        }
        if settings.credentials is not None:
            options["user_credentials"] = str(settings.credentials)
        if settings.user is not None:
            options["user"], options["password"] = settings.user, settings.password
        if settings.token is not None:
            options["token"] = settings.token
        if (context := tls_context(settings)) is not None:
            options["tls"] = context
        await self.client.connect(**options)
        self.trouble = None
        url = self.client.connected_url
        _log.info("connected to NATS at {server}", server=url.netloc if url else "?")

    async def close(self) -> None:
        """Disconnect."""
        await self.client.close()

    async def _failed(self, error: Exception) -> None:
        words = describe(error)
        if self.trouble != words:
            _log.error("NATS: {error}", error=words)
        if not self.client.is_connected:
            self.trouble = words

    async def _disconnected(self) -> None:
        if self.trouble is None:
            self.trouble = "the connection was lost"
            _log.error("NATS: {error}", error=self.trouble)

    async def _reconnected(self) -> None:
        self.reconnects += 1
        self.trouble = None
        url = self.client.connected_url
        _log.info("connected to NATS again, at {server}", server=url.netloc if url else "?")


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
    if isinstance(error, asyncio.TimeoutError | nats.errors.TimeoutError):
        return "no answer"
    text = str(error).removeprefix("nats: ").strip().strip("'")
    return text or type(error).__name__
