"""TLS connections on their way in, on real sockets: who becomes a peer, and who is refused."""

import socket
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.threads import deferToThread

from alphapulse_relay.client.blocking import Client
from alphapulse_relay.client.core import NOTHING
from alphapulse_relay.hub import handshake
from alphapulse_relay.hub.peer import Ending
from alphapulse_relay.pem import PEMError
from alphapulse_relay.protocol_v2.control import Start
from alphapulse_relay.tls import read_all_again
from tests.authority import SERVER, Authority
from tests.hub.door import Door, talk
from tests.hub.fakes import Events, message, messages
from tests.hub.sockets import PATIENCE, turns, until


class TestComesIn:
    async def test_with_the_names_of_its_certificate(self, door: Door, logged: Events) -> None:
        desk = door.authority.issue("desk", "one.desk.example", "10.0.0.7", "two.desk.example")
        connection = await door.enter(desk)
        (peer,) = door.peers
        host, port = connection.getsockname()
        assert peer.identity.certificate == ("desk", "one.desk.example", "two.desk.example")
        assert str(peer.identity) == f"{peer.identity.number} (tls {host}:{port} desk)"
        assert peer.identity.fields["certificate"] == "desk, one.desk.example, two.desk.example"
        assert logged.lines(f"peer connected: {peer.identity}")

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_with_either_version(self, door: Door, version: ssl.TLSVersion) -> None:
        desk = door.authority.issue("desk")
        one = await door.enter(desk, maximum_version=version, minimum_version=version)
        two = await door.enter(desk)
        assert one.version() == version.name.replace("_", ".")
        sent = message(50_000)
        await deferToThread(one.sendall, sent)
        assert await deferToThread(two.recv, 16) == sent[:16]

    async def test_what_comes_with_the_handshake_is_not_lost(self, door: Door) -> None:
        desk = door.authority.issue("desk")

        def at_once() -> None:
            door.open(desk).sendall(b"".join(messages(50)))

        await deferToThread(at_once)
        await until(lambda: door.hub.counters.messages_received == 50)

    async def test_what_comes_with_the_handshake_and_the_end_is_not_lost(self, door: Door) -> None:
        desk = door.authority.issue("desk")

        def at_once() -> None:
            with door.open(desk) as connection:
                connection.sendall(b"".join(messages(50)))

        for round_number in range(1, 11):
            await deferToThread(at_once)
            await until(lambda: len(door.hub.departed) == round_number)  # noqa: B023
        assert door.hub.counters.messages_received == 500

    async def test_its_messages_do_not_wait_for_an_acknowledgement(self, door: Door) -> None:
        await door.enter(door.authority.issue("desk"))
        assert door.peers[0].transport.getTcpNoDelay()

    @pytest.mark.filterwarnings("ignore:Passing pyOpenSSL")  # which ssl: does
    async def test_without_a_certificate_where_none_is_asked_for(self, path: Path) -> None:
        door = Door(path.parent)
        await door.listen(
            f"ssl:0:certKey={door.relay.certificate}:privateKey={door.relay.key}"
            ":interface=127.0.0.1"
        )
        await deferToThread(door.open, None)
        await until(lambda: door.peers)
        identity = door.peers[0].identity
        assert (identity.transport, identity.certificate) == ("tls", None)
        await door.close()


class TestIsRefused:
    async def test_without_a_certificate(self, door: Door, logged: Events) -> None:
        def act() -> None:
            door.open(None).recv(1)

        assert await door.refused(act, logged) == "peer did not return a certificate"

    async def test_with_one_of_another_authority(self, door: Door, logged: Events) -> None:
        stranger = Authority(door.directory, "other").issue("desk")
        why = await door.refused(lambda: door.open(stranger).recv(1), logged)
        assert why == "unable to get issuer cert locally"

    async def test_with_one_of_an_authority_that_only_says_so(
        self, door: Door, logged: Events
    ) -> None:
        elsewhere = door.directory / "elsewhere"
        elsewhere.mkdir()
        stranger = Authority(elsewhere).issue("desk")
        why = await door.refused(lambda: door.open(stranger).recv(1), logged)
        assert why == "cert signature failure"

    async def test_with_one_that_it_has_signed_itself(self, door: Door, logged: Events) -> None:
        issued = Authority(door.directory, "desk").issue_itself()
        why = await door.refused(lambda: door.open(issued).recv(1), logged)
        assert why == "depth zero self signed cert"

    @pytest.mark.parametrize(
        ("days", "why"),
        [((-9, -1), "cert has expired"), ((1, 9), "cert not yet valid")],
    )
    async def test_at_another_time(
        self, door: Door, logged: Events, days: tuple[int, int], why: str
    ) -> None:
        issued = door.authority.issue("desk", days=days)
        assert await door.refused(lambda: door.open(issued).recv(1), logged) == why

    async def test_with_one_for_servers(self, door: Door, logged: Events) -> None:
        issued = door.authority.issue("desk", usage=SERVER)
        why = await door.refused(lambda: door.open(issued).recv(1), logged)
        assert why == "invalid purpose"

    async def test_with_an_old_version(self, door: Door, logged: Events) -> None:
        """Clients of OpenSSL do not offer TLS 1.1 by now: this is the hello of one that does."""
        hello = b"\3\2" + bytes(32) + b"\0" + b"\0\4\xc0\x13\0\x2f" + b"\1\0"
        record = b"\1" + len(hello).to_bytes(3, "big") + hello
        sent = b"\x16\3\1" + len(record).to_bytes(2, "big") + record
        assert await door.refused(lambda: talk(door, sent), logged) == "unsupported protocol"

    async def test_without_tls(self, door: Door, logged: Events) -> None:
        why = await door.refused(lambda: talk(door, message()), logged)
        assert why in {"wrong version number", "record layer failure", "http request"}

    async def test_that_says_nothing(
        self, door: Door, logged: Events, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(handshake, "HELLO_SECONDS", 0.05)
        why = await door.refused(lambda: door.plain().recv(1), logged)
        assert why == "nothing was said in 0.05 s"

    async def test_that_stops_half_way(
        self, door: Door, logged: Events, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 0.05)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        half = context.wrap_bio(incoming, outgoing, server_hostname="relay.example")
        with pytest.raises(ssl.SSLWantReadError):
            half.do_handshake()
        why = await door.refused(lambda: talk(door, outgoing.read()), logged)
        assert why == "not done in 0.05 s"

    async def test_that_closes_before_it_is_done(self, door: Door, logged: Events) -> None:
        why = await door.refused(lambda: door.plain().close(), logged)
        assert why == "the connection ended"

    async def test_that_is_under_way_when_the_port_closes(self, door: Door, logged: Events) -> None:
        connection = door.plain()
        await turns()
        await door.port.stopListening()
        assert await deferToThread(closed, connection)
        assert logged.lines("reason=tls: the relay is leaving")


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def reload_certificates(door: Door) -> None:
    for put_in_force in read_all_again(door.ports.contexts):
        put_in_force()


class TestRevocation:
    async def test_is_refused(self, door: Door, logged: Events) -> None:
        lost = door.authority.issue("lost")
        door.authority.revoke(lost)
        reload_certificates(door)
        why = await door.refused(lambda: door.open(lost).recv(1), logged)
        assert why == "cert revoked"

    async def test_that_is_out_of_date_lets_nobody_in(self, door: Door, logged: Events) -> None:
        door.authority.revoke(days=(-9, -1))
        reload_certificates(door)
        desk = door.authority.issue("desk")
        why = await door.refused(lambda: door.open(desk).recv(1), logged)
        assert why == "crl has expired"


class TestLives:
    async def test_a_reload(self, door: Door) -> None:
        """Whoever is connected stays; whoever comes is met with what the files have now."""
        sender, desk = await door.enter(door.authority.issue("one")), door.authority.issue("two")
        before = await door.enter(desk)
        renewed = door.authority.issue("relay", "relay.example", usage=SERVER)
        door.authority.revoke(desk)
        reload_certificates(door)
        after = await door.enter(door.authority.issue("three"))
        assert after.getpeercert(True) == renewed.x509.public_bytes(Encoding.DER)
        assert before.getpeercert(True) != after.getpeercert(True)
        sent = message(5000)
        await deferToThread(sender.sendall, sent)
        assert await deferToThread(receive, before, len(sent)) == sent
        assert await deferToThread(receive, after, len(sent)) == sent

    async def test_a_reload_of_wrong_files(self, door: Door) -> None:
        door.relay.key.write_bytes(b"")
        with pytest.raises(PEMError, match="holds no unencrypted private key in PEM"):
            reload_certificates(door)
        await door.enter(door.authority.issue("desk"))

    async def test_what_is_no_tls_is_its_end_and_no_fault(self, door: Door) -> None:
        connection = await door.enter(door.authority.issue("desk"))
        raw = socket.socket(fileno=connection.detach())
        raw.sendall(bytes(100))
        await until(lambda: door.hub.departed)
        assert door.hub.departed[0].reason is Ending.RESET
        raw.close()

    async def test_an_end_without_a_word_is_a_reset(self, door: Door) -> None:
        connection = await door.enter(door.authority.issue("desk"))
        socket.socket(fileno=connection.detach()).close()
        await until(lambda: door.hub.departed)
        assert door.hub.departed[0].reason is Ending.RESET

    @pytest.mark.parametrize("zstd", [False, True])
    async def test_large_messages_arrive_as_they_were_sent(self, door: Door, zstd: bool) -> None:
        desk = door.authority.issue("desk")
        sent = [message(size, n) for n, size in enumerate([100, 65_000, 1_000_000, 40], 1)]
        address = door.text(desk)

        def exchange() -> list[bytes]:
            with (
                Client(address, types=NOTHING, acknowledge=True) as publisher,
                Client(address, zstd=zstd, start=Start.POSITION) as consumer,
            ):
                for each in sent:
                    publisher.publish(each, wait=True, timeout=PATIENCE)
                return [consumer.receive(PATIENCE).data for _ in sent]

        assert await deferToThread(exchange) == sent
        await until(lambda: len(door.hub.departed) == 2)
        assert {each.reason for each in door.hub.departed} == {Ending.CLOSED}


def receive(connection: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length and (piece := connection.recv(length - len(received))):
        received += piece
    return received
