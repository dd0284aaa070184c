"""Certificates, keys and revocation lists in files, and what may be wrong with them."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from alphapulse_relay.pem import FILE_MAX, PEMError, read_certificates, read_credentials, read_crls
from tests.authority import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def wrong(read: object, *paths: Path) -> str:
    with pytest.raises(PEMError) as raised:
        read(*paths)  # type: ignore[operator]
    return str(raised.value)


def test_certificates_in_order(tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path, "other")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"two authorities\n" + authority.file.read_bytes() + other.file.read_bytes())
    assert read_certificates(bundle) == [authority.x509, other.x509]


def test_revocation_lists(tmp_path: Path, authority: Authority) -> None:
    authority.revoke(authority.issue("lost"))
    authority.crl.write_bytes(authority.crl.read_bytes() * 2)
    one, two = read_crls(authority.crl)
    assert one == two
    assert len(one) == 1


def test_credentials_with_a_chain(authority: Authority) -> None:
    relay = authority.issue("relay")
    with relay.certificate.open("ab") as file:
        file.write(authority.file.read_bytes())
    key, certificate, (between,) = read_credentials(relay.certificate, relay.key)
    assert (certificate, between) == (relay.x509, authority.x509)
    assert key.public_key() == relay.x509.public_key()


def test_both_in_one_file(authority: Authority) -> None:
    relay = authority.issue("relay")
    relay.key.write_bytes(relay.certificate.read_bytes() + relay.key.read_bytes())
    assert read_credentials(relay.key, relay.key).chain == []


@pytest.mark.parametrize("read", [read_certificates, read_crls])
def test_what_cannot_be_read(tmp_path: Path, read: object) -> None:
    none = tmp_path / "none"
    assert wrong(read, none) == f"{none} cannot be read: No such file or directory"
    assert wrong(read, tmp_path) == f"{tmp_path} cannot be read: Is a directory"


@pytest.mark.parametrize("content", [b"", b"certificate", b"-----BEGIN CERTIFICATE-----\n", b"\0"])
def test_what_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert wrong(read_certificates, path) == f"{path} holds no certificate in PEM"
    assert wrong(read_crls, path) == f"{path} holds no revocation list in PEM"


@pytest.mark.parametrize("read", [read_certificates, read_crls])
def test_what_is_no_file(tmp_path: Path, read: object) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert wrong(read, tmp_path / "pipe") == f"{tmp_path}/pipe cannot be read: Not a regular file"
    with (tmp_path / "long").open("wb") as file:
        file.truncate(FILE_MAX + 1)
    assert wrong(read, tmp_path / "long") == (
        f"{tmp_path}/long cannot be read: More than {FILE_MAX} bytes"
    )


def test_a_broken_list(authority: Authority) -> None:
    data = authority.crl.read_bytes()
    authority.crl.write_bytes(data[:50] + data[60:])
    assert wrong(read_crls, authority.crl) == f"{authority.crl} holds no revocation list in PEM"


def test_der_is_not_pem(authority: Authority) -> None:
    authority.file.write_bytes(authority.x509.public_bytes(Encoding.DER))
    assert "holds no certificate in PEM" in wrong(read_certificates, authority.file)


class TestKey:
    def test_of_another_certificate(self, authority: Authority) -> None:
        one, two = authority.issue("one"), authority.issue("two")
        assert wrong(read_credentials, one.certificate, two.key) == (
            f"{two.key} is not the key of the first certificate in {one.certificate}"
        )

    @pytest.mark.parametrize("mode", [0o604, 0o602, 0o666])
    def test_that_others_can_read(self, authority: Authority, mode: int) -> None:
        relay = authority.issue("relay")
        relay.write_key(mode=mode)
        assert wrong(read_credentials, relay.certificate, relay.key) == (
            f"{relay.key} is open to others than its owner and group (mode {mode:o}): chmod 640"
        )

    def test_that_the_group_can_read(self, authority: Authority) -> None:
        relay = authority.issue("relay")
        relay.write_key(mode=0o640)
        read_credentials(relay.certificate, relay.key)

    def test_with_a_password(self, authority: Authority) -> None:
        relay = authority.issue("relay")
        relay.write_key(password=b"secret")
        message = wrong(read_credentials, relay.certificate, relay.key)
        assert message == f"{relay.key} holds no unencrypted private key in PEM"

    def test_that_is_a_certificate(self, authority: Authority) -> None:
        relay = authority.issue("relay")
        relay.key.write_bytes(relay.certificate.read_bytes())
        assert "no unencrypted private key" in wrong(read_credentials, relay.certificate, relay.key)
