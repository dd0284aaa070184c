"""NATS servers as tests need them: with any configuration, and with an operator of their own."""

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nkeys

from alphapulse_relay.bridge.options import BridgeSettings
from alphapulse_relay.bridge.server import Server
from alphapulse_relay.bridge.tasks import end
from tests.bridge.running import NATSServer
from tests.support import PATIENCE


class NATS(NATSServer):
    """A nats-server with JetStream, unless ``jetstream`` is false, and more configuration."""

    def __init__(
        self,
        directory: Path,
        config: str = "",
        *,
        jetstream: bool = True,
        scheme: str = "nats",
        program: str | None = None,
    ) -> None:
        super().__init__(directory, program)
        self.config = config
        self._jetstream = jetstream
        self._scheme = scheme

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._run(self.config, jetstream=self._jetstream)

    def restart(self, config: str | None = None) -> None:
        """Kill it, and start it again with what it has stored."""
        self.stop()
        self.config = self.config if config is None else config
        self.start()


async def soon(holds: Any) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(settings: BridgeSettings) -> AsyncIterator[Server]:
    """Run a connection to NATS, whether or not it comes about."""
    server = Server(settings)
    task = asyncio.ensure_future(server.run())
    try:
        yield server
    finally:
        await end([task])
        assert task.cancelled()


@asynccontextmanager
async def connected(settings: BridgeSettings) -> AsyncIterator[Server]:
    """Run a connection to NATS that has come about."""
    async with running(settings) as server:
        async with asyncio.timeout(PATIENCE):
            await server.connected()
        yield server


class Operator:
    """An operator of NATS with one account, as nsc would make them; its users are issued here."""

    def __init__(self) -> None:
        self._key, self._account = _keys(nkeys.PREFIX_BYTE_OPERATOR), _keys(0)
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn"), -1)
        self._account_jwt = _jwt(
            self._key,
            self._account,
            {"type": "account", "limits": {**limits, "leaf": -1, "wildcards": True}},
        )

    @property
    def config(self) -> str:
        """What a server is told of it."""
        jwt = _jwt(self._key, self._key, {"type": "operator"})
        public = self._account.public_key.decode()
        preload = f"resolver_preload {{ {public}: {self._account_jwt} }}"
        return f"operator: {jwt}\nresolver: MEMORY\n{preload}"

    def issue(self, file: Path, seconds: int = 3600) -> Path:
        """Write the credentials of a user, good for so long."""
        user = _keys(nkeys.PREFIX_BYTE_USER)
        claims = {"type": "user", "subs": -1, "data": -1, "payload": -1}
        jwt = _jwt(self._account, user, claims, exp=int(time.time()) + seconds)
        new = file.with_suffix(".new")
        new.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            "-----BEGIN USER NKEY SEED-----\n"
            f"{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )
        new.chmod(0o600)
        return new.replace(file)


def _keys(prefix: int) -> Any:
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def _jwt(issuer: Any, subject: Any, nats: dict[str, Any], **claims: int) -> str:
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    body = {
        "jti": os.urandom(8).hex(),
        "iat": int(time.time()),
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": "test",
        "nats": {**nats, "version": 2},
        **claims,
    }
    signed = f"{_encoded(json.dumps(head).encode())}.{_encoded(json.dumps(body).encode())}"
    return f"{signed}.{_encoded(issuer.sign(signed.encode()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
