"""What endpoint strings tell."""

import pytest

from alphapulse_relay.cli.doctor.endpoints import parts_of, side_port_url


def test_parts() -> None:
    plain, named = parts_of(r"mtls:7443:certKey=/a\:b.pem:clientCA=/c=d.pem")
    assert plain == ["mtls", "7443"]
    assert named == {"certKey": "/a:b.pem", "clientCA": "/c=d.pem"}


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("tcp:9750:interface=127.0.0.1", "127.0.0.1:9750"),
        ("tcp:port=9750", "127.0.0.1:9750"),
        ("tcp:9750:interface=10.0.0.5", "10.0.0.5:9750"),
        ("tcp6:9750", "[::1]:9750"),
        (r"tcp6:9750:interface=fe80\:\:1", "[fe80::1]:9750"),
    ],
)
def test_side_port(endpoint: str, host: str) -> None:
    assert side_port_url(endpoint) == f"http://{host}/api/status"


@pytest.mark.parametrize(
    "endpoint", ["tcp:0", "unix:/run/web.sock", "systemd:domain=INET", "ssl:1"]
)
def test_side_port_that_cannot_be_asked(endpoint: str) -> None:
    assert side_port_url(endpoint) is None
