"""Remote peers of a real relay: commands and clients over TLS, and what an operator is told."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphapulse_relay.client.blocking import Client
from alphapulse_relay.protocol_v2.control import Start
from tests.authority import SERVER, Authority
from tests.support import PATIENCE, TWISTD, Relay, clean_environment, messages

COMMAND = [sys.executable, "-W", "error", "-m", "alphapulse_relay.cli"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def remote(authority: Authority) -> Iterator[tuple[Relay, str]]:
    """A relay, and its address for "desk"."""
    shown = authority.issue("relay", "relay.example", usage=SERVER)
    desk = authority.issue("desk", "desk.example")
    listen = (
        f"mtls:0:certKey={shown.certificate}:privateKey={shown.key}:clientCA={authority.file}"
        ":interface=127.0.0.1"
    )
    with Relay("--listen", listen) as relay:
        port = re.search(r"SignalRelayFactory \(TLS\) starting on (\d+)", "".join(relay.log))
        assert port is not None
        yield (
            relay,
            f"tls:127.0.0.1:{port[1]}:name=relay.example:ca={authority.file}"
            f":cert={desk.certificate}:key={desk.key}",
        )


def test_certificates_are_read_again(authority: Authority) -> None:
    """A new one is shown to who comes then, a wrong one to nobody; who is connected stays."""
    shown, desk = authority.issue("first", "first.example", usage=SERVER), authority.issue("one")
    other = authority.issue("second", "second.example", usage=SERVER)
    listen = (
        f"mtls:0:certKey={shown.certificate}:privateKey={shown.key}:clientCA={authority.file}"
        ":interface=127.0.0.1"
    )
    with Relay("--listen", listen) as relay:
        port = re.search(r"SignalRelayFactory \(TLS\) starting on (\d+)", "".join(relay.log))
        assert port is not None
        address = (
            f"tls:127.0.0.1:{port[1]}:ca={authority.file}:cert={desk.certificate}:key={desk.key}"
        )
        publisher = relay.connect()
        first, second = messages(20, 2)
        publisher.send(first)
        with last_of(f"{address}:name=first.example") as stays:
            assert stays.receive(timeout=PATIENCE).data == first
            shown.certificate.write_text("no certificate")
            relay.process.send_signal(signal.SIGHUP)
            relay.wait_for_log("SIGHUP: nothing was changed: .*certKey")
            with last_of(f"{address}:name=first.example") as client:
                assert client.receive(timeout=PATIENCE).data == first
            shown.certificate.write_bytes(other.certificate.read_bytes())
            shown.key.write_bytes(other.key.read_bytes())
            relay.process.send_signal(signal.SIGHUP)
            relay.wait_for_log("SIGHUP: settings and certificates were read again")
            with last_of(f"{address}:name=second.example") as client:
                assert client.receive(timeout=PATIENCE).data == first
            publisher.send(second)
            assert stays.receive(timeout=PATIENCE).data == second


def last_of(address: str) -> Client:
    return Client(address, start=Start.LAST, start_value=1)


def run(address: str, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env=clean_environment(SIGNAL_RELAY_CONNECT=address),
    )


def test_commands(remote: tuple[Relay, str]) -> None:
    """Much is sent while much comes back, and all has arrived when it is done."""
    relay, address = remote
    sent = b"".join(messages(20, 300, 30_000))
    done = run(address, "send", "-", data=sent)
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1), done.stderr
    assert run(address, "replay", "--raw").stdout == sent
    tail = run(address, "tail", "--raw", "--last", "2", "--count", "2")
    assert (tail.returncode, tail.stdout) == (0, sent[-60_000:])
    ended = relay.status()["counters"]["connections"]["ended"]
    assert {name: number for name, number in ended.items() if number and name != "finished"} == {
        "closed": 2
    }


def test_the_client_and_the_status(remote: tuple[Relay, str]) -> None:
    relay, address = remote
    (sent,) = messages(20, 1)
    assert run(address, "send", "-", data=sent).returncode == 0
    with Client(address, start=Start.POSITION, timeout=PATIENCE) as client:
        assert client.receive(PATIENCE).data == sent
        (peer,) = relay.status()["peers"]
    assert peer["transport"] == "tls"
    assert peer["certificate"] == ["desk", "desk.example"]


def test_a_refusal_is_told(remote: tuple[Relay, str]) -> None:
    relay, address = remote
    done = run(address.partition(":cert=")[0], "tail")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    line = relay.wait_for_log("connection refused")
    assert "reason=tls: peer did not return a certificate" in line
    assert relay.status()["counters"]["connections"]["refused"]["tls"] == 1


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("tcp:0", "is neither encrypted nor bound to loopback"),
        ("mtls:0:certKey=/c:privateKey=/k:clientCA=/a", "certKey, privateKey: /c cannot be read"),
    ],
)
def test_a_listener_that_cannot_be(listen: str, why: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "signal-relay", "--listen", listen],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode == 2
    assert done.stderr.startswith("signal-relay: --listen: ")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_authority_as_the_documents_make_it(tmp_path: Path) -> None:
    """The commands of docs/operations.md, then a relay and a client that use what they made."""
    document = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
    section = document.partition("### Certificates")[2]
    script = "".join(re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.S))
    done = subprocess.run(
        ["sh", "-e"], input=script, text=True, cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ca.crl").stat().st_size > 0
    listen = (
        f"mtls:0:certKey={tmp_path}/relay.pem:privateKey={tmp_path}/relay.key"
        f":clientCA={tmp_path}/ca.pem:interface=127.0.0.1"
    )
    with Relay("--listen", listen) as relay:
        port = re.search(r"\(TLS\) starting on (\d+)", "".join(relay.log))
        assert port is not None
        address = (
            f"tls:127.0.0.1:{port[1]}:name=relay.example:ca={tmp_path}/ca.pem"
            f":cert={tmp_path}/desk.pem:key={tmp_path}/desk.key"
        )
        done = run(address, "send", "-", data=b"".join(messages(20, 1)))
        assert done.returncode == 0, done.stderr
        assert "desk.example" in relay.wait_for_log("peer connected")
