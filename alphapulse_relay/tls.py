"""Listeners that let nobody in without a certificate: the endpoint ``mtls:``.

``ssl:`` cannot ask for one. Knows which files prove what, and reads them again when told; what
flows over a connection, and who may do what, it does not know.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from OpenSSL.crypto import X509, X509StoreFlags
from OpenSSL.SSL import Connection, Context
from OpenSSL.SSL import Error as OpenSSLError
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IStreamServerEndpointStringParser,
)
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    trustRootFromCertificates,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

from alphapulse_relay.pem import PEMError, read_certificates, read_credentials, read_crls

Content = TypeVar("Content")


class Files(NamedTuple):
    """What a listener proves who it is with, and which clients it lets in; all are PEM.

    ``certificate`` begins with its own, ``key`` has that one's key, ``authorities`` are those that
    clients' certificates must be of. Those that ``crl`` lists are refused: there must be a list of
    each authority, and none out of date, or all the clients of that one are refused.
    """

    certificate: Path
    key: Path
    authorities: Path
    crl: Path | None


@implementer(IOpenSSLServerConnectionCreator)
class MutualTLS:
    """TLS 1.2 or newer, with certificates on both sides. Raises :class:`PEMError`."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._options = _read_options(files)

    def read_again(self) -> Callable[[], None]:
        """Read the files again, and return what puts them in force for connections from then on.

        Raises :class:`PEMError`. Until that is called, all is as before.
        """
        options = _read_options(self._files)
        return partial(setattr, self, "_options", options)

    def serverConnectionForTLS(self, protocol: Any) -> Connection:
        """Return the TLS of a new connection; see ``IOpenSSLServerConnectionCreator``."""
        return self._options.serverConnectionForTLS(protocol)


def read_all_again(contexts: Iterable[object]) -> list[Callable[[], None]]:
    """Do as :meth:`MutualTLS.read_again` for those that are such; raises :class:`PEMError`."""
    return [context.read_again() for context in contexts if isinstance(context, MutualTLS)]


@implementer(IPlugin, IStreamServerEndpointStringParser)
class MutualTLSParser:
    """``mtls:PORT:certKey=FILE:privateKey=FILE:clientCA=FILE``, ``:crl=FILE``, ``:interface=IP``.

    See :class:`Files`.
    """

    prefix = "mtls"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> SSL4ServerEndpoint:
        """Return the endpoint. Raises ``ValueError`` or :class:`PEMError`."""
        return build_endpoint(reactor, *args, **kwargs)


def build_endpoint(
    reactor: Any,
    port: str,
    *,
    certKey: str,
    privateKey: str,
    clientCA: str,
    crl: str | None = None,
    interface: str = "",
) -> SSL4ServerEndpoint:
    """Return the endpoint for the parts of its string; the names are as those of ``ssl:``."""
    # Absolute: twistd changes its directory before they are read again.
    own, key, authorities = (Path(name).absolute() for name in (certKey, privateKey, clientCA))
    revoked = None if crl is None else Path(crl).absolute()
    context = MutualTLS(Files(own, key, authorities, revoked))
    return SSL4ServerEndpoint(reactor, int(port), context, interface=interface)


def _read_options(files: Files) -> CertificateOptions:
    key, certificate, chain = _named(
        "certKey, privateKey", lambda: read_credentials(files.certificate, files.key)
    )
    authorities = _named("clientCA", lambda: read_certificates(files.authorities))
    # pyOpenSSL takes these by now, and warns of those that Twisted's types still name.
    own: dict[str, Any] = {"privateKey": key, "certificate": certificate, "extraCertChain": chain}
    options = CertificateOptions(
        **own,
        trustRoot=trustRootFromCertificates(
            [Certificate(X509.from_cryptography(each)) for each in authorities]
        ),
        raiseMinimumTo=TLSVersion.TLSv1_2,
    )
    try:
        context = options.getContext()
    except OpenSSLError as error:  # such as a key that is too short
        reason = error.args[0][-1][-1]
        raise PEMError(f"certKey: {files.certificate} cannot be used: {reason}") from error
    if files.crl is not None:
        _refuse_revoked(context, files.crl)
    return options


def _refuse_revoked(context: Context, crl: Path) -> None:
    store = context.get_cert_store()
    assert store is not None
    for each in _named("crl", lambda: read_crls(crl)):
        store.add_crl(each)
    store.set_flags(X509StoreFlags.CRL_CHECK)


def _named(option: str, read: Callable[[], Content]) -> Content:
    """Read, and say which part of the endpoint was wrong."""
    try:
        return read()
    except PEMError as error:
        raise PEMError(f"{option}: {error}") from error
