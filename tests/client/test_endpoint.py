"""A relay's address as an endpoint: what connects where, and which relay is not trusted."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from alphapulse_relay.client.backoff import Backoff
from alphapulse_relay.client.endpoint import client_endpoint, explained
from alphapulse_relay.client.errors import CertificateError
from alphapulse_relay.client.reconnecting import ReconnectingClient
from tests.authority import SERVER, Authority
from tests.client.journal import Journal, messages, sequences
from tests.client.scripted import Connection, serves, serves_on
from tests.client.test_reconnecting import ALL, Recorder
from tests.client.tls_relay import TLSRelay


def nothing(connection: Connection) -> None:
    """Says nothing and closes."""


class Failing(Recorder):
    """Waits for the end of all attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.gave_up: Deferred[None] = Deferred()

    def failed(self, error):
        super().failed(error)
        self.gave_up.callback(None)


def service(address: str, consumer: Recorder) -> ReconnectingClient:
    endpoint = client_endpoint(reactor, address)
    return ReconnectingClient(reactor, endpoint, consumer, ALL, backoff=Backoff(lambda: 0.0))


@pytest.mark.parametrize(
    ("address", "kind"),
    [("/s", UNIXClientEndpoint), ("unix:/s", UNIXClientEndpoint), ("tcp:h:1", HostnameEndpoint)],
)
def test_without_tls(address, kind):
    assert type(client_endpoint(reactor, address)) is kind


@pytest.mark.parametrize("part", ["ca", "cert"])
def test_files_that_are_none(tmp_path, part):
    desk = Authority(tmp_path).issue("desk")
    files = {"cert": desk.certificate, "key": desk.key, part: "/none"}
    parts = "".join(f":{name}={file}" for name, file in files.items())
    with pytest.raises(OSError, match="/none cannot be read: No such file"):
        client_endpoint(reactor, f"tls:h:1{parts}")


async def test_receives_and_comes_back_with_what_its_files_have_now(tmp_path):
    journal, consumer = Journal(messages(9)), Recorder()
    consumer.wanted = 9
    with TLSRelay(tmp_path, serves(journal, cut=300), serves_on(journal)) as relay:
        running = service(relay.address(), consumer)
        before = relay.desk.x509
        running.startService()
        await consumer.all_came
        await running.stopService()
    assert sequences(consumer.data) == list(range(1, 10))
    assert relay.met == [before.public_bytes(Encoding.DER)] * 2


class TestTrust:
    async def refused(self, relay: TLSRelay, address: str) -> str:
        consumer = Failing()
        with relay:
            running = service(address, consumer)
            running.startService()
            await consumer.gave_up
        assert consumer.told == ["failed"]
        assert isinstance(consumer.error, CertificateError)
        return str(consumer.error)

    async def test_is_not_in_another_authority(self, tmp_path):
        relay, other = TLSRelay(tmp_path, nothing), Authority(tmp_path, "other")
        why = await self.refused(relay, relay.address(ca=other.file))
        assert why == "the relay's certificate is not one to trust"

    async def test_is_not_in_an_old_certificate(self, tmp_path):
        relay = TLSRelay(tmp_path, nothing)
        relay.shown = relay.authority.issue("old", "relay.example", usage=SERVER, days=(-9, -1))
        why = await self.refused(relay, relay.address())
        assert why == "the relay's certificate is not one to trust"

    async def test_is_not_in_another_name(self, tmp_path):
        relay = TLSRelay(tmp_path, nothing)
        why = await self.refused(relay, relay.address(name="other.example"))
        assert why == "the name of the relay is not in its certificate"


def test_what_is_not_of_tls_is_left_as_it_is():
    reason = Failure(ConnectionDone())
    assert explained(reason) is reason
