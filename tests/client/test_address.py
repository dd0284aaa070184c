"""Where a relay is, as texts say it."""

from pathlib import Path

import pytest

from alphapulse_relay.client.address import (
    TCPAddress,
    TLSAddress,
    UnixAddress,
    parse_address,
)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("/run/s.sock", UnixAddress("/run/s.sock")),
        ("a b", UnixAddress("a b")),
        ("", UnixAddress("")),
        (Path("tcp:1"), UnixAddress("tcp:1")),
        ("unix:/run/s.sock", UnixAddress("/run/s.sock")),
        ("@relay", UnixAddress("\0relay")),
        ("unix:@relay", UnixAddress("\0relay")),
        ("./@relay", UnixAddress("./@relay")),
        (Path("@relay"), UnixAddress("@relay")),
        ("unix:tcp:h:1", UnixAddress("tcp:h:1")),
        ("unix:unix:x", UnixAddress("unix:x")),
        ("https://relay", UnixAddress("https://relay")),
        (("relay", 9751), TCPAddress("relay", 9751)),
        ("tcp:relay:9751", TCPAddress("relay", 9751)),
        ("tcp:[::1]:9751", TCPAddress("::1", 9751)),
        ("tcp:\\:\\:1:9751", TCPAddress("::1", 9751)),
        ("tls:relay.example:65535", TLSAddress("relay.example", 65535, "relay.example")),
        ("tls:10.0.0.1:1:name=relay", TLSAddress("10.0.0.1", 1, "relay")),
        ("tls:[fe80::1]:1", TLSAddress("fe80::1", 1, "fe80::1")),
        ("tls:h:1:ca=/a=b", TLSAddress("h", 1, "h", "/a=b")),
        ("tls:h:1:ca=/a\\:b\\\\c]", TLSAddress("h", 1, "h", "/a:b\\c]")),
        (
            "tls:h:1:key=k:name=n:cert=c:ca=a",
            TLSAddress("h", 1, "n", ca="a", cert="c", key="k"),
        ),
    ],
)
def test_is_understood(address, place):
    assert parse_address(address) == place


@pytest.mark.parametrize(
    "address",
    [
        "tcp:", "tcp:relay", "tcp:relay:", "tcp::1", "tcp:relay:x", "tcp:relay:0",
        "tcp:relay:65536", "tcp:relay:-1", "tcp:relay:٣", "tcp:::1:1", "tls:", "tls:relay",
        "tls:[relay:1", "tls:relay:1\\",
    ],
)  # fmt: skip
def test_is_not_understood(address):
    with pytest.raises(ValueError, match=r"is not such as tcp:HOST:PORT or tls:HOST:PORT:ca=FILE"):
        parse_address(address)


@pytest.mark.parametrize("part", ["", "x", "x=1", "ca", "ca=", "ca=1:ca=2", "Name=n", "=1"])
def test_other_parts(part):
    with pytest.raises(ValueError, match=r"cannot be in a tls: address: there may be one each of"):
        parse_address(f"tls:h:1:{part}")


@pytest.mark.parametrize("address", ["tls:h:1:cert=c", "tls:h:1:key=k:ca=a"])
def test_a_certificate_goes_with_its_key(address):
    with pytest.raises(ValueError, match="cert= and key= go together in a tls: address"):
        parse_address(address)


def test_nothing_follows_a_port_of_tcp():
    with pytest.raises(ValueError, match="nothing may follow the port of a tcp: address"):
        parse_address("tcp:h:1:ca=x")


@pytest.mark.parametrize("host", ["a..b", ".a", "x" * 64])
def test_what_is_no_name_of_a_host(host):
    for address in (f"tcp:{host}:1", f"tls:{host}:1", f"tls:h:1:name={host}"):
        with pytest.raises(ValueError, match="is not the name of a host"):
            parse_address(address)
