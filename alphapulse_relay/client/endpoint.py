"""A relay's address as a Twisted client endpoint."""

from pathlib import Path
from typing import Any

from OpenSSL.crypto import X509
from OpenSSL.SSL import Error as OpenSSLError
from service_identity import VerificationError
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import (
    Certificate,
    TLSVersion,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from alphapulse_relay.client.address import (
    Address,
    TCPAddress,
    TLSAddress,
    UnixAddress,
    parse_address,
)
from alphapulse_relay.client.errors import CertificateError
from alphapulse_relay.client.tls import failure_of
from alphapulse_relay.pem import read_certificates, read_credentials


def client_endpoint(reactor: Any, address: Address) -> IStreamClientEndpoint:
    """Return what a :class:`ReconnectingClient` connects by.

    Raises ``ValueError`` if the address is not understood, and ``OSError`` if a file that it names
    cannot be used.
    """
    match parse_address(address):
        case UnixAddress(path):
            return UNIXClientEndpoint(reactor, path)
        case TCPAddress(host, port):
            return HostnameEndpoint(reactor, host, port)
        case TLSAddress() as place:
            read_options(place)  # what is wrong with its files is an error now
            return _TLSEndpoint(reactor, place)


@implementer(IStreamClientEndpoint)
class _TLSEndpoint:
    """Reads the files anew for each connection: certificates are renewed while a program runs."""

    def __init__(self, reactor: Any, address: TLSAddress) -> None:
        self._tcp = HostnameEndpoint(reactor, address.host, address.port)
        self._address = address

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        """Connect; see ``IStreamClientEndpoint``."""
        try:
            options = read_options(self._address)
        except OSError:
            return fail(Failure())
        return wrapClientTLS(options, self._tcp).connect(protocolFactory)


def read_options(address: TLSAddress) -> IOpenSSLClientConnectionCreator:
    """Return what is asked of a relay, TLS 1.2 or newer, and proved to it; the files are read now.

    Raises ``OSError`` if one cannot be used.
    """
    more: dict[str, Any] = {"raiseMinimumTo": TLSVersion.TLSv1_2}
    if address.cert is not None and address.key is not None:
        key, certificate, chain = read_credentials(Path(address.cert), Path(address.key))
        more |= {"privateKey": key, "certificate": certificate, "extraCertChain": chain}
    trusted = None
    if address.ca is not None:
        authorities = read_certificates(Path(address.ca))
        trusted = trustRootFromCertificates(
            [Certificate(X509.from_cryptography(each)) for each in authorities]
        )
    return optionsForClientTLS(address.name, trusted, extraCertificateOptions=more)


def explained(reason: Failure) -> Failure:
    """Return why a connection is over, in the client's own words where TLS is the reason."""
    error = reason.value
    if isinstance(error, VerificationError):
        return Failure(CertificateError("the name of the relay is not in its certificate"))
    if isinstance(error, OpenSSLError) and error.args and error.args[0]:
        words = error.args[0][-1][-1]
        if words == "certificate verify failed":
            return Failure(CertificateError("the relay's certificate is not one to trust"))
        return Failure(failure_of(words))
    return reason
