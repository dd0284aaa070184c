"""Access rules of a real relay: other users, programs and browsers try what is forbidden."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from alphapulse_relay.client.blocking import Client as PackageClient
from alphapulse_relay.client.errors import ClientError
from alphapulse_relay.protocol_v2.compression import compress
from alphapulse_relay.protocol_v2.control import (
    ControlMessage,
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    Heartbeat,
    RecoveryRequest,
    SequenceSync,
    Start,
    Subscribe,
    Wish,
    build_control,
    parse_control,
    parse_error,
)
from alphapulse_relay.protocol_v2.framing import message_size, split
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Domain, build_message
from tests.authority import SERVER, Authority
from tests.cli.conftest import run
from tests.support import PATIENCE, Client, Relay, message, messages

OTHER = 65_534
"""Another user, who has nothing."""
GROUP = 4242
OWN = os.getuid()
TOKEN, READER_TOKEN = "a-token_of.sixteen~characters", "another-token_of.sixteen"
CONNECT = """
import os, socket, sys
os.setgroups([int(group) for group in sys.argv[4:]])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[3]))
connected = socket.socket(socket.AF_UNIX)
connected.connect(sys.argv[1])
socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b"!"], [connected.fileno()])
"""
"""Becomes another user, connects, and hands the connection on: to the kernel, and so to the relay,
it stays the one of the user that has made it."""
as_root = pytest.mark.skipif(OWN != 0, reason="only root may become another user")

Make = Callable[[str], Relay]


@pytest.fixture
def make_relay(tmp_path: Path) -> Iterator[Make]:
    """Starts relays by access rules, on a socket that everybody may open."""
    relays = []

    def make(rules: str, *options: str) -> Relay:
        config = tmp_path / "relay.toml"
        config.write_text(f"socket-mode = '666'\ndomains = '1,2'\n{rules}")
        relay = Relay("--config", str(config), *options)
        relay.directory.chmod(0o755)
        relays.append(relay.__enter__())
        return relay

    yield make
    for relay in relays:
        relay.__exit__()


def connect_as_other(relay: Relay, groups: tuple[int, ...] = ()) -> Client:
    """Return a connection that a process of the other user has made."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(
            [
                *(sys.executable, "-I", "-S", "-c", CONNECT, str(relay.socket)),
                *(str(theirs.fileno()), str(OTHER), *map(str, groups)),
            ],
            pass_fds=[theirs.fileno()],
            check=True,
        )
        _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
    client = Client.__new__(Client)
    client.socket = socket.socket(fileno=descriptor)
    client.socket.settimeout(PATIENCE)
    relay._clients.append(client)
    return client


def rule_for_own(what: str) -> str:
    return f"""
        [[access]]
        name = "own"
        uid = [{OWN}]
        {what}
    """


def rule_for_other(what: str) -> str:
    return f"""
        [[access]]
        name = "other"
        uid = [{OTHER}]
        {what}
        [[access]]
        name = "own"
        uid = [{OWN}]
    """


def ask(client: Client, content: ControlMessage) -> None:
    client.send(build_control(content, timestamp=1, source=30))


def answer(client: Client) -> ControlMessage:
    """Return the next message, which must be one of control."""
    header = client.receive(HEADER_SIZE)
    return parse_control(header + client.receive(message_size(header) - HEADER_SIZE))


def dropped(relay: Relay, reason: str, number: int) -> None:
    relay.wait_until(lambda status: status["counters"]["dropped"][reason] == number)


def in_domain(domain: int, source: int = 20) -> bytes:
    return build_message(b"", source=source, sequence=1, timestamp=0, domain=domain)


def packed(source: int) -> bytes:
    """Return a compressed message."""
    payload = random.Random(source).randbytes(3000) + bytes(3000)
    message = compress(build_message(payload, source=source, sequence=1, timestamp=0))
    assert message is not None
    return message


@as_root
class TestAnotherUser:
    def test_may_not_connect_without_a_rule(self, make_relay: Make) -> None:
        relay = make_relay(f'[[access]]\nname = "own"\nuid = [{OWN}]')
        client = connect_as_other(relay)
        error = parse_error(client.receive_all())
        assert (error.code, error.text) == (
            ErrorCode.FORBIDDEN,
            "refused: forbidden: no access rule lets you in",
        )
        assert "reason=forbidden" in relay.wait_for_log(f"connection refused: .* uid={OTHER} ")
        assert relay.metrics()["signal_relay_connections_refused_total", "forbidden"] == 1
        consumer, publisher = relay.connect(), relay.connect()
        publisher.send(sent := message(20, 1))
        assert consumer.receive(len(sent)) == sent

    def test_may_connect_by_any_of_its_groups(self, make_relay: Make) -> None:
        relay = make_relay(f'[[access]]\nname = "desk"\ngid = [{GROUP}]')
        assert connect_as_other(relay).receive_all()
        connect_as_other(relay, (7, GROUP))
        relay.wait_for_log("peer connected")
        (peer,) = relay.status()["peers"]
        assert (peer["rule"], peer["uid"]) == ("desk", OTHER)

    def test_may_publish_only_what_is_its_own(self, make_relay: Make) -> None:
        rule = "publish = {domains = [2], sources = [20, 21]}"
        relay = make_relay(rule_for_other(rule))
        consumer, other = relay.connect(), connect_as_other(relay)
        own = messages(20, 200) + messages(21, 200)
        sent = [*own]
        for place, foreign in enumerate(
            [message(22, 1), in_domain(1), packed(22), message(22, 2, 60_000), in_domain(1, 22)]
        ):
            sent.insert(70 * (place + 1), foreign)
        other.send(b"".join(sent))
        assert consumer.receive(len(b"".join(own))) == b"".join(own)
        dropped(relay, "forbidden", 5)
        other.send(packed(21))
        (expanded,) = consumer.messages(1)
        assert expanded[6] == 21
        pretended = bytearray(message(20, 1))
        pretended[5], pretended[28:32] = 22, bytes(4)  # a legacy writer's source is there
        other.send(bytes(pretended))
        dropped(relay, "forbidden", 6)
        assert relay.metrics()["signal_relay_messages_dropped_total", "forbidden"] == 6

    def test_may_not_publish(self, make_relay: Make) -> None:
        relay = make_relay(rule_for_other("publish = false"))
        consumer, other = relay.connect(), connect_as_other(relay)
        relay.wait_for_log("peer connected: 2")
        ask(other, Heartbeat(1, 0))
        assert isinstance(answer(other), Heartbeat)
        for forbidden in (message(20, 1), packed(20)):
            other.send(forbidden)
            error = answer(other)
            assert isinstance(error, ErrorMessage)
            assert error.code == ErrorCode.FORBIDDEN
        consumer.send(sent := message(20, 2))
        assert other.receive(len(sent)) == sent
        assert relay.status()["counters"]["messages_received"] == 1

    def test_may_not_subscribe(self, make_relay: Make) -> None:
        relay = make_relay(rule_for_other("subscribe = false"), "--backlog", "16M")
        publisher, consumer, other = relay.connect(), relay.connect(), connect_as_other(relay)
        relay.wait_for_log("peer connected: 3")
        publisher.send(sent := message(20, 1))
        assert consumer.receive(len(sent)) == sent
        for asked in (Subscribe(), Subscribe(Wish.STOP_AT_HEAD, Start.POSITION)):
            ask(other, asked)
            error = answer(other)
            assert isinstance(error, ErrorMessage)
            assert error.code == ErrorCode.FORBIDDEN
        other.send(own := message(21, 1))
        assert consumer.receive(len(own)) == own
        burst = messages(20, 700, 60_000)  # 42 MB: more than the window
        for each in burst:
            publisher.send(each)
            assert consumer.receive(len(each)) == each
        ask(other, Heartbeat(1, 0))
        assert isinstance(answer(other), Heartbeat)
        peer = relay.status()["peers"][-1]
        told = ("uid", "state", "messages_out", "bytes_behind", "messages_missed")
        assert [peer[each] for each in told] == [OTHER, "live", 0, 0, 0]

    def test_may_not_have_history(self, make_relay: Make) -> None:
        relay = make_relay(rule_for_other("replay = false"))
        publisher = relay.connect()
        publisher.send(b"".join(messages(20, 10)))
        relay.wait_until(lambda status: status["counters"]["messages_received"] == 10)
        other = connect_as_other(relay)
        for asked in (
            Subscribe(start=Start.LAST, start_value=5),
            Subscribe(start=Start.TIME, start_value=1),
            Subscribe(Wish.STOP_AT_HEAD, Start.POSITION),
            RecoveryRequest(20, 1, 1, 5),
        ):
            ask(other, asked)
            error = answer(other)
            assert isinstance(error, ErrorMessage)
            assert error.code == ErrorCode.FORBIDDEN
        publisher.send(new := message(20, 11))
        assert other.receive(len(new)) == new

    def test_may_have_so_many_connections(self, make_relay: Make) -> None:
        relay = make_relay(rule_for_other("connections = 2"))
        first, second = connect_as_other(relay), connect_as_other(relay)
        error = parse_error(connect_as_other(relay).receive_all())
        assert error.code == ErrorCode.TOO_MANY_PEERS
        assert "too_many_of_identity" in error.text
        relay.connect()
        second.close()
        relay.wait_for_log("peer disconnected: 2 ")
        connect_as_other(relay)
        relay.wait_for_log("peer connected: 5 ")
        first.close()

    @pytest.mark.parametrize("limit", ["messages-per-second = 1000", 'bytes-per-second = "216000"'])
    def test_may_send_so_much(self, make_relay: Make, limit: str) -> None:
        """More than a second's worth takes its time, and all of it arrives; others do not wait."""
        relay = make_relay(rule_for_other(limit))
        consumer, fast = relay.connect(), relay.connect()
        others = [connect_as_other(relay) for _ in range(3)]
        sent = [messages(22 + number, 900) for number in range(3)]
        began = time.monotonic()
        for client, part in zip(others, sent, strict=True):
            client.send(b"".join(part))
        relay.wait_until(lambda status: status["limited"] == 3)
        fast.send(quick := message(21, 1))
        got = consumer.messages(2701)
        assert quick in got[:2000]
        for number, part in enumerate(sent):
            assert [each for each in got if each[6] == 22 + number] == part
        # A second's worth may come at once, and then a chunk too much.
        assert time.monotonic() - began > 1
        assert relay.metrics()["signal_relay_limited_total", "other"] >= 1


def test_other_rules_while_it_runs(make_relay: Make, tmp_path: Path) -> None:
    relay = make_relay(f'[[access]]\nname = "own"\nuid = [{OWN}]')
    first, second = relay.connect(), relay.connect()
    config = tmp_path / "relay.toml"
    text = config.read_text()
    for wrong in ("[[access]]\nname = 5", "[[access]]\nuid = 5"):
        config.write_text(f"{text}\n{wrong}")
        relay.process.send_signal(signal.SIGHUP)
        relay.wait_for_log("SIGHUP: nothing was changed: .*access")
    config.write_text(f"{text}\npublish = {{sources = [20]}}")
    relay.process.send_signal(signal.SIGHUP)
    relay.wait_for_log("SIGHUP: settings .*changed: access")
    first.send(message(21, 1) + (own := message(20, 1)))
    assert second.receive(len(own)) == own
    config.write_text(text.replace(f"uid = [{OWN}]", "uid = [4242]"))
    relay.process.send_signal(signal.SIGHUP)
    for client in (first, second):
        error = parse_error(client.receive_all())
        assert error.code == ErrorCode.FORBIDDEN
    assert relay.status()["counters"]["connections"]["ended"]["forbidden"] == 2


def test_who_has_no_history_goes_on_after_a_restart(make_relay: Make, tmp_path: Path) -> None:
    relay = make_relay(f'[[access]]\nname = "own"\nuid = [{OWN}]\nreplay = false')
    before, meanwhile, after = (message(20, number) for number in range(3))
    gaps = []

    def missed(gap: Gap) -> None:
        gaps.append(gap)
        publisher.send(after)

    with PackageClient(str(relay.socket), on_gap=missed, timeout=PATIENCE) as consumer:
        while consumer.bookmark is None:
            with suppress(TimeoutError):
                consumer.receive(timeout=0.05)
        relay.connect().send(before)
        assert consumer.receive(timeout=PATIENCE).data == before
        relay.stop()
        with Relay("--config", str(tmp_path / "relay.toml"), directory=relay.directory) as again:
            publisher = again.connect()
            publisher.send(meanwhile)
            again.wait_until(lambda status: status["counters"]["messages_received"] == 1)
            assert consumer.receive(timeout=PATIENCE).data == after
    (gap,) = gaps
    assert (gap.stop, gap.reason) == (len(before + meanwhile), GapReason.RETENTION)


def test_a_listener_of_everybody_s(make_relay: Make) -> None:
    """Who comes by TCP has no user: no rule for users is for it."""
    relay = make_relay(
        f'[[access]]\nname = "own"\nuid = [{OWN}, 0]', "--listen", "tcp:0:interface=127.0.0.1"
    )
    client = Client(relay.listen_port)
    relay._clients.append(client)
    assert parse_error(client.receive_all()).code == ErrorCode.FORBIDDEN
    relay.connect()


def test_names_of_certificates(make_relay: Make, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    shown = authority.issue("relay", "relay.example", usage=SERVER)
    desk = authority.issue("desk", "a.desk.example")
    other = authority.issue("other", "a.other.example")
    listen = (
        f"mtls:0:certKey={shown.certificate}:privateKey={shown.key}:clientCA={authority.file}"
        ":interface=127.0.0.1"
    )
    relay = make_relay(
        '[[access]]\nname = "desk"\ncertificate = ["*.desk.example"]\nconnections = 1\n'
        f'[[access]]\nname = "own"\nuid = [{OWN}]',
        "--listen",
        listen,
    )
    port = re.search(r"SignalRelayFactory \(TLS\) starting on (\d+)", "".join(relay.log))
    assert port is not None

    def address(who: Any) -> str:
        return (
            f"tls:127.0.0.1:{port[1]}:name=relay.example:ca={authority.file}"
            f":cert={who.certificate}:key={who.key}"
        )

    publisher = relay.connect()
    publisher.send(sent := message(20, 1))
    last = {"start": Start.LAST, "start_value": 1, "timeout": PATIENCE}
    with PackageClient(address(desk), **last) as client:
        assert client.receive(timeout=PATIENCE).data == sent
        assert relay.status()["peers"][1]["rule"] == "desk"
    with (
        PackageClient(address(other), **last) as client,
        pytest.raises(ClientError, match="no access rule lets you in"),
    ):
        client.receive(timeout=PATIENCE)


def binary(browser: ClientConnection) -> bytes:
    frame = browser.recv(PATIENCE)
    assert isinstance(frame, bytes)
    return frame


class TestWebSockets:
    @pytest.fixture
    def relay(self, make_relay: Make, tmp_path: Path) -> Relay:
        for name, token in (("desk", TOKEN), ("reader", READER_TOKEN)):
            (tmp_path / name).write_text(token)
            (tmp_path / name).chmod(0o600)
        return make_relay(
            f"""
            web-publish = true
            [[access]]
            name = "desk"
            token-file = "{tmp_path / "desk"}"
            publish = {{sources = [20]}}
            connections = 1
            [[access]]
            name = "reader"
            token-file = "{tmp_path / "reader"}"
            publish = false
            replay = false
            [[access]]
            name = "own"
            uid = [{OWN}]
            """
        )

    def open(self, relay: Relay, token: str | None, query: str = "") -> ClientConnection:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return connect(
            f"ws://127.0.0.1:{relay.port}/signals?{query}",
            additional_headers=headers,
            compression=None,
            open_timeout=PATIENCE,
        )

    def first(self, browser: ClientConnection) -> bytes:
        """Return the next signal."""
        while True:
            for each in split(binary(browser)):
                if each[4] != Domain.SYSTEM:
                    return each

    def test_without_a_token_only_a_rule_for_everybody_is_for_it(self, relay: Relay) -> None:
        with pytest.raises(InvalidStatus) as error:
            self.open(relay, None)
        assert error.value.response.status_code == 403
        assert b"no access rule lets you in" in (error.value.response.body or b"")
        assert relay.status()["counters"]["connections"]["refused"]["forbidden"] == 1

    def test_a_token_of_no_rule(self, relay: Relay) -> None:
        with pytest.raises(InvalidStatus) as error:
            self.open(relay, "wrong-token_of.sixteen~characters")
        assert error.value.response.status_code == 401

    def test_may_publish_what_its_rule_says(self, relay: Relay) -> None:
        consumer = relay.connect()
        with self.open(relay, TOKEN) as browser:
            assert relay.wait_until(lambda status: len(status["peers"]) == 2)
            browser.send(message(21, 1) + (own := message(20, 1)))
            assert consumer.receive(len(own)) == own
            consumer.send(sent := message(30, 1))
            assert self.first(browser) == sent
            with pytest.raises(InvalidStatus) as error:
                self.open(relay, TOKEN)
            assert error.value.response.status_code == 403
            assert relay.status()["counters"]["connections"]["refused"]["too_many_of_identity"]
        dropped(relay, "forbidden", 1)

    def test_has_no_history_by_its_rule(self, relay: Relay) -> None:
        publisher = relay.connect()
        publisher.send(message(20, 1))
        with self.open(relay, READER_TOKEN, "last=1") as browser:
            assert parse_error(binary(browser)).code == ErrorCode.FORBIDDEN
            with pytest.raises(ConnectionClosed):
                browser.recv(PATIENCE)
        with self.open(relay, READER_TOKEN) as browser:
            assert isinstance(parse_control(binary(browser)), SequenceSync)
            browser.send(message(20, 2))
            publisher.send(sent := message(20, 3))
            assert self.first(browser) == sent
        dropped(relay, "forbidden", 1)

    def test_its_token_opens_nothing_else(self, relay: Relay) -> None:
        status, _ = relay.get("/api/status", Authorization=f"Bearer {READER_TOKEN}")
        assert status == 200  # on loopback, as without one


class TestCommands:
    """What the commands tell of what is forbidden."""

    def test_send_what_is_dropped(self, make_relay):
        relay = make_relay(rule_for_own("publish = {sources = [20]}"))
        options = ("--type", "22", "--socket", str(relay.socket))
        assert run("send", *options).returncode == 0
        done = run("send", *options, "--source", "21")
        assert done.returncode == 1
        assert done.stderr.endswith(b"forbidden at byte 56: source 21 is not this publisher's\n")

    def test_send_by_who_may_not_publish(self, make_relay):
        relay = make_relay(rule_for_own("publish = false"))
        done = run("send", "--type", "22", "--socket", str(relay.socket))
        assert done.returncode == 1
        assert done.stderr.endswith(b"forbidden at byte 56: this publisher may not publish\n")

    def test_tail_by_who_may_not_subscribe(self, make_relay):
        relay = make_relay(rule_for_own("subscribe = false"))
        done = run("tail", "--socket", str(relay.socket))
        assert done.returncode == 1
        told = f"{relay.socket}: the relay says: the access rules give you no messages (error 8)"
        assert done.stderr.decode() == f"signal-relay: {told}\n"
