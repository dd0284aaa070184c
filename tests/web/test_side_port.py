"""The side port on real sockets, with callers that mean it ill."""

import datetime
import socket
import ssl
import time
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource

from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.peer import Refusal
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.protocol_v2.framing import Rules
from alphapulse_relay.web import channel as channels
from alphapulse_relay.web.access import Access
from alphapulse_relay.web.pages import PLAIN, Page
from alphapulse_relay.web.rates import Rates
from alphapulse_relay.web.site import build_site
from alphapulse_relay.web.status import SettingsRead
from tests.hub.sockets import PATIENCE, reactor, until
from tests.web.asking import request

WHOLE = request("/metrics", connection="close")
HALF = WHOLE[:-2]
LARGE = bytes(16 << 20)


class SidePort:
    """A side port in this process, and plain sockets that are connected to it."""

    def __init__(self) -> None:
        storage = MemoryStorage(8 << 20)
        self.hub = SignalRelayFactory(reactor, Rules(), storage, hold=1.0, max_peers=10)
        self.hub.open()
        access = Access((), None, publish=False)
        self.site = build_site(
            self.hub, lambda: None, access, Rates(self.hub, reactor), SettingsRead()
        )
        self.root: Resource = self.site.wrappedFactory.resource
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.callers: list[socket.socket] = []

    async def listen_with_tls(self) -> None:
        await self.port.stopListening()
        options = self_signed().options()
        self.port = reactor.listenSSL(0, self.site, options, interface="127.0.0.1")

    def connect(self) -> socket.socket:
        caller = socket.socket()
        caller.settimeout(PATIENCE)
        caller.connect(("127.0.0.1", self.port.getHost().port))
        self.callers.append(caller)
        return caller

    async def connected(self) -> socket.socket:
        """Return a caller that the relay has accepted."""
        before = set(self.site.protocols)
        caller = self.connect()
        await until(lambda: set(self.site.protocols) - before)
        return caller

    def refused(self, reason: Refusal) -> int:
        return self.hub.counters.refused[reason]

    async def stop(self) -> None:
        await self.port.stopListening()
        for caller in self.callers:
            caller.close()
        await until(lambda: not self.site.protocols)


@pytest_twisted.async_yield_fixture
async def side_port() -> AsyncIterator[SidePort]:
    made = SidePort()
    yield made
    await made.stop()


def read_to_end(caller: socket.socket) -> bytes:
    """Return what comes until the relay closes, or cuts."""
    found = bytearray()
    try:
        while piece := caller.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return bytes(found)


async def ask(caller: socket.socket, data: bytes = WHOLE) -> bytes:
    caller.sendall(data)
    return await deferToThread(read_to_end, caller)


@pytest_twisted.ensureDeferred
async def test_prometheus_is_answered_while_others_hold_all_connections(
    side_port: SidePort,
) -> None:
    side_port.site.most = 200
    for _ in range(side_port.site.most):
        (await side_port.connected()).sendall(HALF)
    for _ in range(3):
        answer = await ask(side_port.connect())
        assert answer.startswith(b"HTTP/1.1 200 OK")
    assert len(side_port.site.protocols) <= side_port.site.most
    assert 1 <= side_port.refused(Refusal.TOO_MANY_WEB_CONNECTIONS) <= 3


@pytest_twisted.ensureDeferred
async def test_half_a_request_is_cut(side_port: SidePort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "REQUEST_SECONDS", 0.05)
    assert await ask(side_port.connect(), HALF) == b""
    assert side_port.refused(Refusal.TIMEOUT) == 1


@pytest_twisted.ensureDeferred
async def test_who_asks_for_much_and_reads_nothing_is_cut(
    side_port: SidePort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "STALLED_SECONDS", 0.1)
    monkeypatch.setattr(channels, "LOOK_SECONDS", 0.01)
    side_port.root.putChild(b"large", Page(lambda _: LARGE, PLAIN))
    caller = side_port.connect()
    caller.sendall(request("/large"))
    await until(lambda: side_port.refused(Refusal.STALLED))
    assert len(await deferToThread(read_to_end, caller)) < len(LARGE)


@pytest_twisted.ensureDeferred
async def test_who_reads_slowly_gets_all(
    side_port: SidePort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slower than the time that a stalled one has, but something is always on the way."""
    monkeypatch.setattr(channels, "STALLED_SECONDS", 0.4)
    monkeypatch.setattr(channels, "LOOK_SECONDS", 0.01)
    side_port.root.putChild(b"large", Page(lambda _: LARGE, PLAIN))

    def read(caller: socket.socket) -> int:
        found, begun = 0, time.monotonic()
        while found < len(LARGE) and (piece := caller.recv(1 << 18)):
            found += len(piece)
            # Never ahead of what takes longer than a stalled one has.
            time.sleep(max(0, begun + 1.0 * found / len(LARGE) - time.monotonic()))
        return found

    caller = side_port.connect()
    caller.sendall(request("/large"))
    assert await deferToThread(read, caller) >= len(LARGE)
    assert side_port.refused(Refusal.STALLED) == 0


@pytest_twisted.ensureDeferred
async def test_a_body_is_refused_unread(side_port: SidePort) -> None:
    data = request("/metrics", "POST", content_length="1000000") + bytes(1000)
    assert (await ask(side_port.connect(), data)).startswith(b"HTTP/1.1 413 ")


@pytest_twisted.ensureDeferred
async def test_who_finds_no_room_is_told(side_port: SidePort) -> None:
    side_port.site.most = 0
    answer = await deferToThread(read_to_end, side_port.connect())
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert side_port.refused(Refusal.TOO_MANY_WEB_CONNECTIONS) == 1


class Echo(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803
        self.sendMessage(payload, isBinary)


UPGRADE = request(
    "/echo",
    connection="Upgrade",
    upgrade="websocket",
    sec_websocket_version="13",
    sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
)
HELLO = b"\x82\x82\0\0\0\0hi"
ECHOED = b"\x82\x02hi"


def serve_echo(side_port: SidePort) -> None:
    echo = WebSocketServerFactory(reactor=reactor)
    echo.protocol = Echo
    side_port.root.putChild(b"echo", WebSocketResource(echo))


@pytest_twisted.ensureDeferred
async def test_a_websocket_counts_and_no_time_is_up_for_it(
    side_port: SidePort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "REQUEST_SECONDS", 0.02)
    serve_echo(side_port)
    caller = side_port.connect()
    caller.sendall(UPGRADE)
    assert (await deferToThread(caller.recv, 1000)).startswith(b"HTTP/1.1 101 ")
    await ask(side_port.connect(), b"")  # until the time of one that came later is up
    caller.sendall(HELLO)
    assert await deferToThread(caller.recv, 10) == ECHOED
    assert len(side_port.site.protocols) == 1
    caller.close()
    await until(lambda: not side_port.site.protocols)
    assert side_port.refused(Refusal.TIMEOUT) == 1


def self_signed() -> PrivateCertificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today).not_valid_after(today + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return PrivateCertificate.loadPEM(certificate + secret)


# Which Twisted itself does.
with_tls = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


@with_tls
@pytest_twisted.ensureDeferred
async def test_over_tls_pages_and_websockets_are_served(side_port: SidePort) -> None:
    """To clients that would rather speak HTTP/2, too."""
    serve_echo(side_port)
    await side_port.listen_with_tls()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])

    def talk(plain: socket.socket) -> list[object]:
        with context.wrap_socket(plain) as caller:
            caller.sendall(request())
            found: list[object] = [caller.selected_alpn_protocol(), caller.recv(1000)[:15]]
            caller.sendall(UPGRADE)
            found.append(caller.recv(1000)[:13])
            caller.sendall(HELLO)
            return [*found, caller.recv(10)]

    assert await deferToThread(talk, side_port.connect()) == [
        "http/1.1",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 101 ",
        ECHOED,
    ]


@with_tls
@pytest_twisted.ensureDeferred
async def test_a_tls_handshake_must_come_in_time_too(
    side_port: SidePort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "REQUEST_SECONDS", 0.02)
    await side_port.listen_with_tls()
    assert await ask(side_port.connect(), b"\x16\x03\x01") == b""
    assert side_port.refused(Refusal.TIMEOUT) == 1
