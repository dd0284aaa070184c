"""Certificates, private keys and revocation lists, as files in PEM have them.

Knows files and what is in them; of connections, and who is to be trusted, it knows nothing.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import (
    Certificate,
    CertificateRevocationList,
    load_pem_x509_certificates,
    load_pem_x509_crl,
)

from alphapulse_relay.small_files import read_small

FILE_MAX = 16 * 1024 * 1024
"""Bytes of a file that are read: revocation lists of large authorities have some."""
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)

Content = TypeVar("Content")


class PEMError(OSError):
    """A file cannot be used. ``str()`` is one line that says which, and why."""


class Credentials(NamedTuple):
    """A key, its certificate, and those between that and the authority's."""

    key: PrivateKeyTypes
    certificate: Certificate
    chain: list[Certificate]


def read_certificates(path: Path) -> list[Certificate]:
    """Return the certificates of a file, at least one, in order. Raises :class:`PEMError`."""
    return _parsed(path, _read(path), load_pem_x509_certificates, "certificate")


def read_crls(path: Path) -> list[CertificateRevocationList]:
    """Return the revocation lists of a file, at least one. Raises :class:`PEMError`."""

    def load(data: bytes) -> list[CertificateRevocationList]:
        return [load_pem_x509_crl(each) for each in _CRL.findall(data)]

    crls = _parsed(path, _read(path), load, "revocation list")
    if not crls:
        raise PEMError(f"{path} holds no revocation list in PEM")
    return crls


def read_credentials(certificates: Path, key: Path) -> Credentials:
    """Return what one end of a connection proves with who it is. Raises :class:`PEMError`.

    The first file begins with the certificate of the second one's key, which must be kept from
    others than its owner and group, and not be encrypted: nobody is there to be asked.
    """
    found = read_certificates(certificates)
    private = _parsed(key, _read(key, secret=True), _load_key, "unencrypted private key")
    if private.public_key() != found[0].public_key():
        raise PEMError(f"{key} is not the key of the first certificate in {certificates}")
    return Credentials(private, found[0], found[1:])


def _load_key(data: bytes) -> PrivateKeyTypes:
    return load_pem_private_key(data, password=None)


def _read(path: Path, *, secret: bool = False) -> bytes:
    try:
        file = read_small(path, FILE_MAX)
    except OSError as error:
        raise PEMError(f"{path} cannot be read: {error.strerror}") from error
    if secret and file.is_open_to_others:
        raise PEMError(
            f"{path} is open to others than its owner and group (mode {file.mode:o}): chmod 640"
        )
    return file.content


def _parsed(path: Path, data: bytes, parse: Callable[[bytes], Content], what: str) -> Content:
    try:
        return parse(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PEMError(f"{path} holds no {what} in PEM") from error
