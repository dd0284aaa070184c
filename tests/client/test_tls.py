"""The blocking client's TLS, against a real server: whom it trusts, and how it is used."""

import select
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event, Timer

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from alphapulse_relay.client.address import TLSAddress, parse_address
from alphapulse_relay.client.backoff import Backoff
from alphapulse_relay.client.blocking import Client, follow
from alphapulse_relay.client.connection import open_connection
from alphapulse_relay.client.core import NOTHING, Message
from alphapulse_relay.client.errors import CertificateError, NoRelayError
from alphapulse_relay.client.tls import TLSSocket, encrypted, load_context
from alphapulse_relay.protocol_v2.control import Start, Subscribe, Wish
from tests.authority import CLIENT, SERVER, Authority
from tests.client.journal import Journal, messages, sequences
from tests.client.scripted import PATIENCE, Connection, serves, serves_on
from tests.client.tls_relay import TLSRelay


def nothing(connection: Connection) -> None:
    """Says nothing and closes."""


def echoes_to_the_end(connection: Connection) -> None:
    """Sends all back, and one more byte when no more comes."""
    while data := connection.socket.recv(65536):
        connection.send(data)
    connection.send(b"!")


DRIPS = 1000


def drip(listening: socket.socket) -> int:
    """Answer a byte of a record each 50 ms while there is somebody; return how many there were."""
    with listening.accept()[0] as connection, suppress(OSError):
        poll = select.poll()
        poll.register(connection, select.POLLRDHUP)
        connection.sendall(b"\x16\3\3\x3f\xff")
        for number in range(DRIPS):
            connection.sendall(b"\2")
            if poll.poll(50):
                return number
    return 0


def reads_when(told: Event, got: list[int]) -> Callable[[Connection], None]:
    """Reads nothing before it is told, then all; ``got`` is how much. The end must be said."""

    def read(connection: Connection) -> None:
        told.wait(PATIENCE)
        connection.socket.suppress_ragged_eofs = False
        got.append(sum(iter(lambda: len(connection.socket.recv(65536)), 0)))

    return read


def looks_for_a_reset(got: list[bool]) -> Callable[[Connection], None]:
    """Tells, when the client has gone, whether the connection was reset."""

    def look(connection: Connection) -> None:
        poll = select.poll()
        poll.register(connection.socket, select.POLLRDHUP)
        ((_, events),) = poll.poll(PATIENCE * 1000)
        got.append(bool(events & select.POLLERR))

    return look


def reads_nothing_until(gone: Event) -> Callable[[Connection], None]:
    """Says nothing, and waits until it is told that the client has gone."""

    def wait(_: Connection) -> None:
        assert gone.wait(PATIENCE)

    return wait


def filled(link: TLSSocket) -> int:
    """Send as much as fits, without waiting; return how many bytes."""
    sent = 0
    link.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sent += link.send(bytes(65536))
    return sent


def rest(link: TLSSocket) -> bytes:
    """Return all that comes."""
    return b"".join(iter(lambda: link.recv(1 << 18), b""))


def opened(address: str) -> TLSSocket:
    connection = open_connection(parse_address(address), None, PATIENCE)
    assert isinstance(connection, TLSSocket)
    return connection


def client(address: str, **options: object) -> Client:
    return Client(address, start=Start.POSITION, backoff=Backoff(lambda: 0.0), **options)


class TestClient:
    def test_receives_and_comes_back(self, tmp_path):
        journal = Journal(messages(9))
        with (
            TLSRelay(tmp_path, serves(journal, cut=300), serves_on(journal)) as relay,
            client(relay.address()) as consumer,
        ):
            got = sequences(consumer.receive(PATIENCE).data for _ in range(9))
        assert got == list(range(1, 10))

    def test_follows_to_the_head(self, tmp_path):
        journal = Journal(messages(5))
        with TLSRelay(tmp_path, serves(journal)) as relay:
            asked = Subscribe(Wish.STOP_AT_HEAD, Start.POSITION)
            events = list(follow(relay.address(), asked))
        assert sequences(e.data for e in events if isinstance(e, Message)) == [1, 2, 3, 4, 5]

    def test_is_not_let_in_and_says_why(self, tmp_path):
        with TLSRelay(tmp_path, nothing) as relay:
            address = f"tls:127.0.0.1:{relay.port}:ca={relay.authority.file}"
            with (
                client(address, timeout=0, heartbeats=False) as consumer,
                pytest.raises(NoRelayError, match=r"certificate required|reset|closed"),
            ):
                consumer.receive(PATIENCE)

    def test_gives_up_on_another(self, tmp_path):
        with TLSRelay(tmp_path, nothing) as relay:
            consumer = client(relay.address(name="other.example"))
            with (
                consumer,
                pytest.raises(CertificateError, match=r"is not other\.example: H"),
            ):
                consumer.receive(PATIENCE)

    def test_reads_its_files_again_for_each_connection(self, tmp_path):
        journal = Journal(messages(9))
        with (
            TLSRelay(tmp_path, serves(journal, cut=300), serves_on(journal)) as relay,
            client(relay.address()) as consumer,
        ):
            consumer.receive(PATIENCE)
            before, renewed = relay.desk.x509, relay.authority.issue("desk").x509
            assert sequences(consumer.receive(PATIENCE).data for _ in range(8))[-1] == 9
        assert relay.met == [each.public_bytes(Encoding.DER) for each in (before, renewed)]

    @pytest.mark.parametrize("part", ["ca", "cert", "key"])
    def test_cannot_begin_with_files_that_are_none(self, tmp_path, part):
        authority = Authority(tmp_path)
        desk = authority.issue("desk")
        files = {"ca": authority.file, "cert": desk.certificate, "key": desk.key}
        path = files[part] = tmp_path / "wrong"
        address = "tls:h:1" + "".join(f":{name}={file}" for name, file in files.items())
        for why in ("No such file or directory", "(?!No such)"):
            with pytest.raises(OSError, match=rf"{part}={path}.* cannot be used: {why}"):
                Client(address, types=NOTHING)
            path.touch()

    def test_asks_nobody_for_the_password_of_a_key(self, tmp_path):
        desk = Authority(tmp_path).issue("desk")
        desk.write_key(password=b"secret")
        place = TLSAddress("h", 1, "h", None, str(desk.certificate), str(desk.key))
        with pytest.raises(OSError, match="cannot be used"):
            load_context(place)


class TestTrust:
    @pytest.mark.parametrize(
        ("usage", "days", "why"),
        [
            (SERVER, (-9, -1), "certificate has expired"),
            (SERVER, (1, 9), "certificate is not yet valid"),
            (CLIENT, (-1, 9), "(unsupported|unsuitable) certificate purpose"),
        ],
    )
    def test_is_not_in_a_bad_certificate(self, tmp_path, usage, days, why):
        relay = TLSRelay(tmp_path, nothing)
        relay.shown = relay.authority.issue("bad", "relay.example", usage=usage, days=days)
        with relay, pytest.raises(CertificateError, match=f"is not relay.example: {why}"):
            opened(relay.address())

    def test_full_stop_of_openssl_s_is_left_out(self, tmp_path):
        with TLSRelay(tmp_path, nothing) as relay, pytest.raises(CertificateError) as wrong:
            opened(relay.address(name="other.example"))
        assert str(wrong.value).endswith("not valid for 'other.example'")

    def test_is_not_where_nothing_answers(self):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = parse_address(f"tls:127.0.0.1:{listening.getsockname()[1]}")
            with pytest.raises(TimeoutError, match="no answer in TLS: does that port encrypt"):
                open_connection(address, None, 0.05)

    def test_is_not_where_answers_drip(self):
        with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor() as thread:
            dripping = thread.submit(drip, listening)
            address = parse_address(f"tls:127.0.0.1:{listening.getsockname()[1]}")
            began = time.monotonic()
            with pytest.raises(TimeoutError, match="no answer in TLS"):
                open_connection(address, None, 0.3)
            assert time.monotonic() - began < PATIENCE / 2
            assert dripping.result(PATIENCE) < DRIPS

    def test_is_not_in_another_authority(self, tmp_path):
        other = Authority(tmp_path, "other")
        with (
            TLSRelay(tmp_path, nothing) as relay,
            pytest.raises(CertificateError, match=r"in certificate chain|get local issuer"),
        ):
            opened(relay.address(ca=other.file))

    def test_is_not_in_what_the_system_does_not_know(self, tmp_path):
        with TLSRelay(tmp_path, nothing) as relay, pytest.raises(CertificateError):
            opened(f"tls:127.0.0.1:{relay.port}")

    def test_is_not_in_a_common_name(self, tmp_path):
        relay = TLSRelay(tmp_path, nothing)
        relay.shown = relay.authority.issue("relay.example", usage=SERVER)
        with relay, pytest.raises(CertificateError, match=r"is not relay\.example"):
            opened(relay.address())

    def test_may_be_in_an_address(self, tmp_path):
        with TLSRelay(tmp_path, nothing) as relay, opened(relay.address(name="127.0.0.1")) as link:
            assert link.recv(1) == b""

    def test_what_is_no_tls(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(PATIENCE)
            address = f"tls:127.0.0.1:{listener.getsockname()[1]}"
            client_end = socket.create_connection(listener.getsockname(), PATIENCE)
            with client_end, listener.accept()[0] as accepted:
                accepted.sendall(b"SSH-2.0-none of your business, and a little longer\r\n")
                place = parse_address(address)
                with pytest.raises(ConnectionAbortedError, match="TLS failed: wrong version"):
                    encrypted(client_end, place)
            assert client_end.fileno() == -1

    def test_that_the_relay_asks_for_a_certificate_is_explained(self, tmp_path):
        with TLSRelay(tmp_path, nothing) as relay:
            bare = f"tls:127.0.0.1:{relay.port}:name=relay.example:ca={relay.authority.file}"
            told = "certificate required: give cert= and key= of one that the relay knows"
            with opened(bare) as link, pytest.raises(ConnectionAbortedError, match=told):
                link.recv(1)

    def test_old_versions_are_not_offered(self, tmp_path):
        context = load_context(TLSAddress("h", 1, "h"))
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


class TestSocket:
    def test_does_not_wait_where_a_plain_one_would_not(self, tmp_path):
        gone = Event()
        with TLSRelay(tmp_path, reads_nothing_until(gone)) as relay:
            with opened(relay.address()) as link:
                link.setblocking(False)
                with pytest.raises(BlockingIOError):
                    link.recv(100)
                with pytest.raises(BlockingIOError):  # noqa: PT012 (some of it fits)
                    while True:
                        link.send(bytes(65536))
            gone.set()

    def test_waits_for_room_to_say_the_end(self, tmp_path):
        told, got = Event(), []
        with TLSRelay(tmp_path, reads_when(told, got)) as relay, opened(relay.address()) as link:
            sent = filled(link)
            Timer(0.1, told.set).start()
            link.shutdown()
            assert link.gettimeout() == 0
            link.settimeout(PATIENCE)
            assert rest(link) == b""
        (received,) = got
        assert sent <= received

    def test_that_is_closed_waits_for_nobody(self, tmp_path):
        gone = Event()
        with TLSRelay(tmp_path, reads_nothing_until(gone)) as relay:
            link = opened(relay.address())
            filled(link)
            link.settimeout(PATIENCE)
            link.close()
            link.close()
            gone.set()

    def test_that_is_closed_says_the_end(self, tmp_path):
        told, got = Event(), []
        with TLSRelay(tmp_path, reads_when(told, got)) as relay:
            with opened(relay.address()) as link:
                link.sendall(b"something")
            told.set()
        assert got == [9]

    @pytest.mark.parametrize("name", ["recv_into", "sendmsg", "sendto"])
    def test_has_nothing_that_would_be_plain(self, tmp_path, name):
        with TLSRelay(tmp_path, nothing) as relay, opened(relay.address()) as link:
            with pytest.raises(NotImplementedError):
                getattr(link, name)(bytearray(9))
            assert link.recv(1) == b""

    def test_that_is_closed_takes_nothing_back(self, tmp_path):
        """A reset would, as TCP has it for whoever closes with something unread."""
        got = []
        with TLSRelay(tmp_path, looks_for_a_reset(got)) as relay:
            link = opened(relay.address())
            link.sendall(b"something")
            assert select.select([link], [], [], PATIENCE)[0], "TLS 1.3 sends a ticket"
            link.close()
        assert got == [False]

    def test_goes_on_receiving_when_no_more_is_sent(self, tmp_path):
        with TLSRelay(tmp_path, echoes_to_the_end) as relay, opened(relay.address()) as link:
            link.sendall(b"x" * 50_000)
            link.shutdown(socket.SHUT_WR)
            assert rest(link) == b"x" * 50_000 + b"!"

    @pytest.mark.parametrize("taken", [0, 10])
    def test_loses_nothing_of_what_comes_while_it_says_the_end(self, tmp_path, taken):
        with TLSRelay(tmp_path, echoes_to_the_end) as relay, opened(relay.address()) as link:
            link.sendall(b"x" * 50_000)
            select.select([link], [], [], PATIENCE)
            got = link.recv(taken) if taken else b""
            link.shutdown(socket.SHUT_WR)
            assert got + rest(link) == b"x" * 50_000 + b"!"

    def test_leaves_to_the_socket_what_nobody_has_asked_for(self, tmp_path):
        with TLSRelay(tmp_path, echoes_to_the_end) as relay, opened(relay.address()) as link:
            link.sendall(b"x" * 50_000)
            link.setblocking(False)
            got = b""
            while len(got) < 50_000:
                assert select.select([link], [], [], PATIENCE)[0], "it is readable for all there is"
                with suppress(BlockingIOError):
                    got += link.recv(1 << 18)
            link.shutdown(socket.SHUT_WR)
            link.settimeout(PATIENCE)
            assert rest(link) == b"!"
