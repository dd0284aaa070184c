"""The endpoint ``mtls:``; who gets in by it is tested in hub/test_handshake.py."""

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import SSL4ServerEndpoint, serverFromString
from twisted.internet.protocol import ServerFactory
from twisted.internet.testing import MemoryReactor

from alphapulse_relay.pem import PEMError
from alphapulse_relay.tls import Files, MutualTLS, build_endpoint, read_all_again
from tests.authority import SERVER, Authority


@pytest.fixture
def files(tmp_path: Path) -> Files:
    authority = Authority(tmp_path)
    relay = authority.issue("relay", "relay.example", usage=SERVER)
    return Files(relay.certificate, relay.key, authority.file, authority.crl)


def test_a_string_leads_to_a_port(files: Files) -> None:
    reactor = MemoryReactor()
    text = (
        f"mtls:7443:certKey={files.certificate}:privateKey={files.key}"
        f":clientCA={files.authorities}:interface=\\:\\:1"
    )
    serverFromString(reactor, text).listen(ServerFactory())
    ((port, _, context, _, interface),) = reactor.sslServers
    assert (port, interface) == (7443, "::1")
    assert isinstance(context, MutualTLS)


def test_files_are_found_again_in_another_directory(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"certKey": files.certificate, "privateKey": files.key, "clientCA": files.authorities}
    relative = {part: file.name for part, file in names.items()}
    endpoint: Any = build_endpoint(object(), "1", crl="authority.crl", **relative)
    assert isinstance(endpoint, SSL4ServerEndpoint)
    monkeypatch.chdir("/")
    assert len(read_all_again([object(), endpoint._sslContextFactory])) == 1


@pytest.mark.parametrize(
    ("field", "part", "what"),
    [
        ("certificate", "certKey, privateKey", "certificate"),
        ("key", "certKey, privateKey", "unencrypted private key"),
        ("authorities", "clientCA", "certificate"),
        ("crl", "crl", "revocation list"),
    ],
)
def test_a_wrong_file_is_named(files: Files, field: str, part: str, what: str) -> None:
    context = MutualTLS(files)
    path = getattr(files, field)
    path.write_bytes(b"")
    line = f"{part}: {path} holds no {what} in PEM"
    with pytest.raises(PEMError) as raised:
        MutualTLS(files)
    assert str(raised.value) == line
    with pytest.raises(PEMError) as raised:
        read_all_again([object(), context])
    assert str(raised.value) == line
