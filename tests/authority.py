"""A certificate authority of a test's own: good certificates, and each kind of bad one."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Issued:
    """A certificate and its key, in two files."""

    def __init__(
        self, stem: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self.x509, self.private_key = certificate, key
        self.certificate, self.key = stem.with_suffix(".pem"), stem.with_suffix(".key")
        self.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        self.write_key()

    def write_key(self, password: bytes | None = None, mode: int = 0o600) -> None:
        hidden = BestAvailableEncryption(password) if password else NoEncryption()
        data = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)
        self.key.write_bytes(data)
        self.key.chmod(mode)


class Authority:
    """Issues certificates; its own is in ``file``, and those it has revoked in ``crl``."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._name = name
        self._revoked: list[x509.Certificate] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.x509 = self._sign(name, self._key, ())
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self.x509.public_bytes(Encoding.PEM))
        self.crl = directory / f"{name}.crl"
        self.revoke()

    def issue_itself(self) -> Issued:
        """Return its own as if it was anybody's: one that is signed by itself."""
        return Issued(self._directory / f"{self._name}-itself", self.x509, self._key)

    def issue(
        self,
        common_name: str,
        *names: str,
        usage: x509.ObjectIdentifier = CLIENT,
        days: tuple[int, int] = (-1, 30),
        stem: str | None = None,
    ) -> Issued:
        """Issue one that is good from and to so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(common_name, key, names, usage, days)
        return Issued(self._directory / (stem or common_name), certificate, key)

    def revoke(self, *issued: Issued, days: tuple[int, int] = (-1, 30)) -> None:
        """Write the list anew, which is good from and to so many days from now."""
        self._revoked += [each.x509 for each in issued]
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(named(self._name))
            .last_update(now + days[0] * DAY)
            .next_update(now + days[1] * DAY)
        )
        for each in self._revoked:
            entry = x509.RevokedCertificateBuilder(each.serial_number, now - DAY)
            builder = builder.add_revoked_certificate(entry.build())
        self.crl.write_bytes(builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM))

    def _sign(
        self,
        common_name: str,
        key: ec.EllipticCurvePrivateKey,
        names: tuple[str, ...],
        usage: x509.ObjectIdentifier | None = None,
        days: tuple[int, int] = (-1, 30),
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(common_name))
            .issuer_name(named(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
            .add_extension(x509.BasicConstraints(usage is None, None), critical=True)
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            found = x509.SubjectAlternativeName([general_name(name) for name in names])
            builder = builder.add_extension(found, critical=False)
        return builder.sign(self._key, SHA256())


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
