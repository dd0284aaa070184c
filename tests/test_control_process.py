"""Words with a real relay: what peers that speak control meet, over restarts too."""

import json
import select
import signal
from pathlib import Path

import pytest

from alphapulse_relay.protocol_v2.control import (
    Ack,
    ControlMessage,
    ErrorCode,
    ErrorMessage,
    Heartbeat,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
    build_control,
    parse_control,
    parse_error,
)
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Domain, Header
from tests.support import PATIENCE, Client, Relay, messages, read_all

MORE_THAN_A_SOCKET_HOLDS = 2_000_000


def control(content: ControlMessage) -> bytes:
    return build_control(content, timestamp=1, source=30)


def word(client: Client) -> ControlMessage:
    """Return what the relay says next."""
    header = client.receive(32)
    return parse_control(header + client.receive(Header.unpack(header).payload_size))


def history(relay: Relay, asked: Subscribe) -> tuple[list[bytes], list[ControlMessage]]:
    """Return what is sent and said up to the end."""
    client = relay.connect()
    client.send(control(asked))
    got = list(split(client.receive_all()))
    of_relay = [each for each in got if Header.unpack(each).domain == Domain.SYSTEM]
    return [each for each in got if each not in of_relay], [
        parse_control(each) for each in of_relay
    ]


def test_history_and_live_have_no_seam() -> None:
    sent = messages(20, 300)
    with Relay() as relay:
        publisher, consumer = relay.connect(), relay.connect()
        publisher.send(b"".join(sent[:200]))
        consumer.receive(sum(map(len, sent[:200])))
        consumer.send(control(Subscribe(start=Start.POSITION, start_value=100 * 216)))
        answer = word(consumer)
        assert isinstance(answer, SequenceSync)
        assert answer[1:] == (100 * 216, SyncState.REPLAYING)
        publisher.send(b"".join(sent[200:]))
        assert consumer.receive(200 * 216) == b"".join(sent[100:])


@pytest.mark.parametrize("journal", ["none", "kept"])
def test_to_the_head_and_no_further(journal: str, tmp_path: Path) -> None:
    sent = messages(20, 100) + messages(21, 100)
    where = "none" if journal == "none" else str(tmp_path / "j")
    with Relay("--journal", where) as relay:
        publisher = relay.connect()
        publisher.send(control(Subscribe(Wish.ACKNOWLEDGE)) + b"".join(sent))
        assert isinstance(word(publisher), SequenceSync)
        while not (isinstance(ack := word(publisher), Ack) and ack.source == 21):
            pass
        asked = Subscribe(
            Wish.STOP_AT_HEAD | Wish.POSITIONS, Start.POSITION, sources=frozenset({21})
        )
        got, words = history(relay, asked)
        assert got == sent[100:]
        assert isinstance(words[-1], SequenceSync)
        assert words[-1][1:] == (200 * 216, SyncState.LIVE)
        relay.wait_for_log("peer disconnected: .* reason=finished")


def test_own_messages_do_not_come_back_over_a_restart(tmp_path: Path) -> None:
    mine, others = messages(20, 50), messages(21, 50)
    journal = str(tmp_path / "j")
    named = Subscribe(Wish.ACKNOWLEDGE, name="strategy")
    with Relay("--journal", journal) as relay:
        one, other = relay.connect(), relay.connect()
        one.send(control(named) + b"".join(mine))
        other.receive(50 * 216)
        other.send(b"".join(others))
        words = 0
        while words < 50 * 216:
            header = one.receive(32)
            payload = one.receive(Header.unpack(header).payload_size)
            if Header.unpack(header).domain != Domain.SYSTEM:
                words += len(header + payload)
        assert relay.stop() == 0
    with Relay("--journal", journal) as relay:
        asked = Subscribe(Wish.STOP_AT_HEAD, Start.POSITION, name="strategy")
        assert history(relay, asked)[0] == others
        asked = Subscribe(Wish.STOP_AT_HEAD, Start.POSITION, name="another")
        assert history(relay, asked)[0] == mine + others


def test_what_cannot_be_had_is_said() -> None:
    with Relay() as relay:
        holder, client, legacy = relay.connect(), relay.connect(), relay.connect()
        holder.send(control(Subscribe(name="one")))
        assert isinstance(word(holder), SequenceSync)
        for asked, code in (
            (Subscribe(name="one"), ErrorCode.NAME_TAKEN),
            (Subscribe(start=Start.POSITION, epoch=1), ErrorCode.WRONG_EPOCH),
            (Subscribe(start=Start.POSITION, start_value=1), ErrorCode.NOT_KEPT),
        ):
            client.send(control(asked))
            answer = word(client)
            assert isinstance(answer, ErrorMessage)
            assert answer.code == code
        client.send(control(Heartbeat(1, 0)))
        assert isinstance(word(client), Heartbeat)
        client.send(sent := messages(20, 1)[0])
        assert legacy.receive(216) == sent, "and was sent no word before"
        dropped = relay.metrics()["signal_relay_messages_dropped_total", "control"]
        assert dropped == 3


def test_sigterm_in_a_flood_delivers_tells_who_talks_and_cuts_who_stalls() -> None:
    burst = b"".join(messages(20, 1000, 20_000))
    with Relay("--drain", str(2 * PATIENCE)) as relay:
        reader, stalled, talker, sender = (relay.connect() for _ in range(4))
        talker.send(control(Subscribe()))
        assert isinstance(word(talker), SequenceSync)
        left = burst
        while len(burst) - len(left) < MORE_THAN_A_SOCKET_HOLDS:
            assert select.select([], [sender.socket], [], PATIENCE)[1]
            left = sender.fill(left)
        relay.process.send_signal(signal.SIGTERM)
        sent = burst[: (len(burst) - len(left)) // 20_000 * 20_000]
        read, told = read_all([reader, talker], [len(sent)] * 2)
        assert (read, told[: len(sent)]) == (sent, sent)
        relay.process.send_signal(signal.SIGTERM)  # or it would wait for the one that stalls
        farewell = parse_error(bytes(told[len(sent) :]) + talker.receive_all())
        assert farewell
        assert farewell.code == ErrorCode.LEAVING
        relay.wait_for_log("leaving without having delivered everything: 1 peers are cut")
        relay.wait_for_log(r"peer disconnected: 2 .* reason=cut")
        assert relay.stop(0) == 0
        assert len(stalled.receive_all()) < len(sent)
        epoch = json.loads((relay.directory / "journal" / "epoch.json").read_text())
        assert epoch["closed"], "the journal was synced"
