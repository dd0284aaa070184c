"""The blocking client against a relay that says what is written down, on a real socket."""

import os
import socket
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from alphapulse_relay.client import blocking
from alphapulse_relay.client.backoff import FIRST_DELAY, LONGEST_DELAY, Backoff
from alphapulse_relay.client.blocking import Client, follow
from alphapulse_relay.client.bookmark import load_bookmark
from alphapulse_relay.client.core import NAME_HELD, NOTHING, Message, Missed, Synced
from alphapulse_relay.client.errors import (
    BookmarkError,
    GapError,
    IncompleteError,
    NoRelayError,
    NotARelayError,
    RelayError,
    UnacknowledgedError,
    WrongUserError,
)
from alphapulse_relay.client.silence import ANSWER_WITHIN, ASK_AFTER
from alphapulse_relay.protocol_v2.control import (
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    Heartbeat,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
    parse_control,
)
from tests.client.journal import EPOCH, Journal, message, messages, said, sequences
from tests.client.scripted import (
    PATIENCE,
    Connection,
    Script,
    ScriptedRelay,
    acknowledge,
    serves,
    serves_on,
)

HELLO = said(SequenceSync(EPOCH, 0, SyncState.LIVE))
GAP = Gap(EPOCH, 0, 99, GapReason.RETENTION)


def client(path: Path, **options: object) -> Client:
    """A client that listens from the first message on and does not wait between attempts."""
    options = {"start": Start.POSITION, "backoff": Backoff(lambda: 0.0)} | options
    return Client(path, **options)


def publisher(path: Path, **options: object) -> Client:
    return client(path, **{"start": Start.LIVE, "types": NOTHING, "acknowledge": True} | options)


def take(consumer: Client, count: int) -> list[int]:
    return sequences(consumer.receive(PATIENCE).data for _ in range(count))


def says(*data: bytes) -> Script:
    """Answers a Subscribe with these bytes and stays until the client leaves."""

    def script(connection: Connection) -> None:
        connection.subscribe()
        connection.send(b"".join(data))
        connection.until_closed()

    return script


def refuses(connection: Connection) -> None:
    """Says that the name is taken; nothing but the Subscribe may have come."""
    connection.subscribe()
    connection.send(said(ErrorMessage(ErrorCode.NAME_TAKEN, "pid 1 has it")))
    assert connection.until_closed() == []


def closes(connection: Connection) -> None:
    connection.subscribe()


class TestReceive:
    def test_messages_as_they_were_published(self, path):
        journal = Journal(messages(5))
        with ScriptedRelay(path, serves_on(journal)), client(path) as consumer:
            assert [consumer.receive(PATIENCE).data for _ in range(5)] == journal.content

    def test_iterates(self, path):
        with ScriptedRelay(path, serves_on(Journal(messages(3)))), client(path) as consumer:
            assert [m for _, m in zip(range(3), consumer, strict=False)][2].data == message(3)

    def test_asks_for_what_it_was_told(self, path):
        def script(connection: Connection) -> None:
            wishes = Wish.POSITIONS | Wish.ACKNOWLEDGE | Wish.ZSTD
            assert connection.subscribe() == Subscribe(
                wishes, Start.LAST, 3, 0, frozenset({21, 22}), frozenset({20}), "risk"
            )
            connection.send(HELLO + message(1))

        options = {"start": Start.LAST, "start_value": 3, "types": [21, 22], "sources": [20]}
        options |= {"name": "risk", "acknowledge": True, "zstd": True, "heartbeats": False}
        with ScriptedRelay(path, script), client(path, **options) as consumer:
            assert take(consumer, 1) == [1]

    def test_a_wrong_subscription_is_an_error_at_once(self, path):
        with pytest.raises(ValueError, match="name"):
            client(path, name="x" * 256)

    def test_waits_no_longer_than_told(self, path):
        with ScriptedRelay(path, says(HELLO, message(1))), client(path) as consumer:
            assert take(consumer, 1) == [1]
            for timeout in (0, 0.01):
                with pytest.raises(TimeoutError):
                    consumer.receive(timeout)

    def test_no_time_is_enough_for_what_is_there(self, path):
        with ScriptedRelay(path, serves_on(Journal(messages(2)))), client(path) as consumer:
            assert take(consumer, 1) == [1]
            assert sequences([consumer.receive(0).data]) == [2]


class TestBreaks:
    def test_after_a_break_at_every_byte_each_message_comes_once(self, path):
        journal, later = Journal(messages(4), batch=2), Journal(messages(5))
        whole = journal.answer(Subscribe(Wish.POSITIONS, Start.POSITION))
        for cut in range(len(whole) + 1):
            path.unlink(missing_ok=True)
            relay = ScriptedRelay(path, serves(journal, cut), serves_on(later))
            with relay, client(path) as consumer:
                assert take(consumer, 5) == [1, 2, 3, 4, 5], cut

    def test_a_relay_that_comes_later(self, path, clock):
        relay = ScriptedRelay(path, serves_on(Journal(messages(1))))
        with ExitStack() as stack:
            clock.on_sleep = partial(stack.enter_context, relay)
            with client(path, clock=clock, backoff=Backoff(lambda: 0.5)) as consumer:
                assert take(consumer, 1) == [1]
        assert clock.slept == pytest.approx([FIRST_DELAY / 2])

    def test_waits_longer_each_time(self, path, clock):
        consumer = Client(path, timeout=30.0, clock=clock, backoff=Backoff(lambda: 1.0))
        with pytest.raises(NoRelayError, match=f"no relay at {path}: .*No such file"):
            consumer.receive()
        expected = [FIRST_DELAY * 2**n for n in range(7)] + [LONGEST_DELAY] * 2
        assert clock.slept == pytest.approx(expected)

    def test_a_deadline_cuts_the_wait(self, path, clock):
        consumer = Client(path, clock=clock, backoff=Backoff(lambda: 1.0))
        with pytest.raises(TimeoutError):
            consumer.receive(1.0)
        assert sum(clock.slept) == pytest.approx(1.0)

    def test_an_answer_makes_it_short_again(self, path, clock):
        scripts = closes, closes, serves(Journal(messages(1))), serves_on(Journal(messages(2)))
        relay = ScriptedRelay(path, *scripts)
        with relay, client(path, clock=clock, backoff=Backoff(lambda: 1.0)) as consumer:
            assert take(consumer, 2) == [1, 2]
        assert clock.slept == pytest.approx([FIRST_DELAY, 2 * FIRST_DELAY, FIRST_DELAY])

    def test_timeout_0_tries_once(self, path):
        with pytest.raises(NoRelayError):
            client(path, timeout=0).receive()

    def test_timeout_0_tries_again_where_the_relay_has_left_in_order(self, path, clock):
        leaves = said(ErrorMessage(ErrorCode.LEAVING, "connect again"))
        scripts = says(HELLO, message(1), leaves), serves_on(Journal(messages(2)))
        with ScriptedRelay(path, *scripts), client(path, timeout=0, clock=clock) as consumer:
            assert take(consumer, 2) == [1, 2]
        assert sum(clock.slept) <= FIRST_DELAY

    @pytest.mark.parametrize("code", [ErrorCode.TOO_MANY_PEERS, ErrorCode.NAME_TAKEN])
    def test_an_error_that_passes(self, path, code):
        journal = Journal(messages(2))
        refuses = says(said(ErrorMessage(code, "later")))
        first = journal.answer(Subscribe(Wish.POSITIONS, Start.POSITION)).index(message(2))
        scripts = serves(journal, first), refuses, serves_on(journal)
        with ScriptedRelay(path, *scripts), client(path) as consumer:
            assert take(consumer, 2) == [1, 2]


class TestErrors:
    def test_garbage(self, path):
        relay = ScriptedRelay(path, says(HELLO, message(1), b"SSH-2.0-OpenSSH_9.9\r\n" * 9))
        with relay, client(path) as consumer:
            assert take(consumer, 1) == [1]
            with pytest.raises(NotARelayError, match="magic"):
                consumer.receive(PATIENCE)

    def test_a_name_that_another_has(self, path, clock):
        delays = [FIRST_DELAY * 2**n for n in range(7)]
        assert sum(delays[:-1]) < NAME_HELD < sum(delays)
        consumer = client(path, clock=clock, backoff=Backoff(lambda: 1.0))
        expected = pytest.raises(RelayError, match="pid 1 has it")
        with ScriptedRelay(path, *[refuses] * 8), expected:
            consumer.receive()
        assert clock.slept == pytest.approx(delays)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be sure of another user")
    def test_another_user(self, path):
        expected = pytest.raises(WrongUserError, match="is of user 0, not of 12345")
        with ScriptedRelay(path, lambda connection: None), expected:
            client(path, uid=12345).receive(PATIENCE)

    def test_the_right_user(self, path):
        relay = ScriptedRelay(path, serves_on(Journal(messages(1))))
        with relay, client(path, uid=os.geteuid()) as consumer:
            assert take(consumer, 1) == [1]

    def test_over_tcp_there_is_no_user_to_check(self):
        listener = socket.create_server(("127.0.0.1", 0))
        with listener, pytest.raises(WrongUserError):
            client(listener.getsockname(), uid=os.geteuid()).receive(PATIENCE)

    def test_over_tcp(self):
        listener = socket.create_server(("127.0.0.1", 0))
        with listener, client(listener.getsockname()) as consumer:
            with pytest.raises(TimeoutError):
                consumer.receive(0)
            connection, _ = listener.accept()
            with connection:
                connection.sendall(HELLO + message(1))
                assert take(consumer, 1) == [1]

    def test_starts_over_behind_a_refused_bookmark(self, path, tmp_path):
        file = tmp_path / "bookmark"
        lost, new = Journal(messages(2)), Journal(messages(5)[2:], epoch=EPOCH + 1)
        scripts = serves(lost), serves(new), serves_on(new)
        with ScriptedRelay(path, *scripts), client(path, bookmark=file) as consumer:
            assert take(consumer, 2) == [1, 2]
            with pytest.raises(BookmarkError, match="another journal"):
                consumer.receive(PATIENCE)
            assert load_bookmark(file).epoch == EPOCH
            consumer.start_over(Start.POSITION)
            assert take(consumer, 3) == [3, 4, 5]
        assert load_bookmark(file).epoch == EPOCH + 1

    def test_a_silent_relay_is_asked_and_given_up(self, path, clock):
        asked = []

        def silent(connection: Connection) -> None:
            connection.subscribe()
            connection.send(HELLO + message(1))
            asked.extend(map(parse_control, connection.until_closed()))

        relay = ScriptedRelay(path, silent, serves_on(Journal(messages(2))))
        with relay, client(path, clock=clock) as consumer:
            assert take(consumer, 1) == [1]
            for seconds in (ASK_AFTER, 0, ANSWER_WITHIN):
                clock.now += seconds
                with pytest.raises(TimeoutError):
                    consumer.receive(0)
            assert take(consumer, 1) == [2]
        assert [type(content) for content in asked] == [Heartbeat]


class TestGaps:
    def test_are_raised_once_and_then_it_goes_on(self, path, tmp_path):
        file = tmp_path / "bookmark"
        relay = ScriptedRelay(path, says(HELLO, said(GAP), message(1)))
        with relay, client(path, bookmark=file) as consumer:
            with pytest.raises(GapError, match="99 bytes of the journal from position 0"):
                consumer.receive(PATIENCE)
            assert load_bookmark(file).position == 99
            assert take(consumer, 1) == [1]

    def test_are_told(self, path, caplog):
        gaps = []
        relay = ScriptedRelay(path, says(HELLO, said(GAP), message(1)))
        with relay, client(path, on_gap=gaps.append) as consumer:
            assert take(consumer, 1) == [1]
        assert gaps == [GAP]
        assert "missed positions 0 to 99" in caplog.text


class TestBookmark:
    def test_a_program_that_starts_again_goes_on(self, path, tmp_path):
        file, journal = tmp_path / "bookmark", Journal(messages(7))
        for number in range(1, 8):
            path.unlink(missing_ok=True)
            relay = ScriptedRelay(path, serves_on(journal))
            with relay, client(path, bookmark=file) as consumer:
                assert take(consumer, 1) == [number]

    def test_a_message_that_was_not_dealt_with_comes_again(self, path, tmp_path):
        file, journal = tmp_path / "bookmark", Journal(messages(3))
        scripts = serves_on(journal), serves_on(journal)
        with ScriptedRelay(path, *scripts):
            with suppress(ZeroDivisionError), client(path, bookmark=file) as consumer:
                take(consumer, 2)
                consumer.save()
                raise ZeroDivisionError
            with client(path, bookmark=file) as consumer:
                assert take(consumer, 2) == [2, 3]

    def test_is_saved_before_each_wait(self, path, tmp_path):
        file = tmp_path / "bookmark"
        with ScriptedRelay(path, says(HELLO, *messages(2))):
            consumer = client(path, bookmark=file)
            take(consumer, 2)
            with pytest.raises(TimeoutError):
                consumer.receive(0)
            assert load_bookmark(file).taken == 2
            consumer.close()

    def test_a_file_that_is_none(self, path, tmp_path):
        file = tmp_path / "bookmark"
        file.write_text("torn")
        with pytest.raises(ValueError, match="is not a bookmark"):
            client(path, bookmark=file)


class TestPublish:
    def test_waits_for_the_ack(self, path):
        def script(connection: Connection) -> None:
            connection.subscribe()
            connection.send(HELLO)
            for number in (1, 2):
                assert connection.message() == message(number)
            connection.send(acknowledge(message(2)))
            connection.until_closed()

        with ScriptedRelay(path, script), publisher(path) as strategy:
            strategy.publish(message(1))
            strategy.publish(message(2), wait=True, timeout=PATIENCE)
            strategy.flush(0)

    def test_leaving_waits_for_the_acks(self, path):
        acknowledged = []

        def script(connection: Connection) -> None:
            connection.subscribe()
            connection.send(HELLO)
            data = connection.message()
            acknowledged.append(data)
            connection.send(acknowledge(data))
            connection.until_closed()

        with ScriptedRelay(path, script), publisher(path) as strategy:
            strategy.publish(message(1))
        assert acknowledged == [message(1)]

    def test_what_was_not_acknowledged_is_sent_again(self, path):
        def first(connection: Connection) -> None:
            connection.subscribe()
            connection.send(HELLO)
            for _ in range(3):
                connection.message()
            connection.send(acknowledge(message(1)))

        def second(connection: Connection) -> None:
            connection.subscribe()
            connection.send(HELLO)
            again = [connection.message(), connection.message()]
            assert again == [message(2), message(3)]
            connection.send(acknowledge(message(3)))
            assert connection.until_closed() == []

        scripts = first, refuses, refuses, second
        with ScriptedRelay(path, *scripts), publisher(path) as strategy:
            for number in range(1, 4):
                strategy.publish(message(number))
            strategy.flush(PATIENCE)

    @pytest.mark.parametrize("acknowledged", [True, False])
    def test_nothing_is_published_before_the_answer(self, path, acknowledged):
        came = []

        def accepts(connection: Connection) -> None:
            connection.subscribe()
            connection.send(HELLO)
            came.extend([connection.message(), connection.message()])
            if acknowledged:
                connection.send(acknowledge(message(2)))
            came.extend(connection.until_closed())

        relay = ScriptedRelay(path, refuses, refuses, accepts)
        with relay, publisher(path, acknowledge=acknowledged) as strategy:
            strategy.publish(message(1), timeout=PATIENCE)
            strategy.publish(message(2), timeout=PATIENCE)
        assert came == messages(2)

    @pytest.mark.parametrize("acknowledged", [True, False])
    def test_a_break_inside_a_message(self, path, acknowledged):
        large = message(1, size=60_000)
        came = []

        def second(connection: Connection) -> None:
            connection.subscribe()
            connection.send(HELLO)
            came.append(connection.message())
            if acknowledged:
                connection.send(acknowledge(large))
            came.extend(connection.until_closed())

        def first(connection: Connection) -> None:
            connection.subscribe()
            connection.send(HELLO)
            connection.socket.recv(100)

        relay = ScriptedRelay(path, first, second)
        with relay, publisher(path, acknowledge=acknowledged) as strategy:
            with pytest.raises(TimeoutError):
                strategy.receive(0)
            strategy._session.link._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            strategy.publish(large, wait=True, timeout=PATIENCE)
        assert came == [large]

    def test_gives_up_waiting(self, path):
        with ScriptedRelay(path, says(HELLO)):
            strategy = publisher(path)
            with pytest.raises(TimeoutError):
                strategy.publish(message(1), wait=True, timeout=0.01)
            strategy.close()

    def test_takes_what_comes_meanwhile(self, path):
        def script(connection: Connection) -> None:
            connection.subscribe()
            connection.send(HELLO)
            data = connection.message()
            connection.send(b"".join(messages(3)) + acknowledge(data))
            connection.until_closed()

        with ScriptedRelay(path, script), publisher(path, types=(), name="risk") as both:
            both.publish(message(9), wait=True, timeout=PATIENCE)
            assert sequences(both.receive(0).data for _ in range(3)) == [1, 2, 3]

    def test_does_not_keep_more_than_it_may(self, path, monkeypatch):
        monkeypatch.setattr(blocking, "INBOX_MAX", 100)
        with ScriptedRelay(path, says(HELLO, *messages(3))):
            both = publisher(path, types=(), name="risk")
            with pytest.raises(UnacknowledgedError, match="too many messages to be taken"):
                both.publish(message(9), wait=True, timeout=PATIENCE)
            assert take(both, 3) == [1, 2, 3]
            both.close()

    def test_what_is_no_message(self, path):
        with pytest.raises(ValueError, match="not a message"):
            publisher(path).publish(b"x")


class TestFollow:
    WANTED = Subscribe(Wish.POSITIONS | Wish.STOP_AT_HEAD, Start.POSITION)

    def test_to_the_head(self, path):
        journal = Journal(messages(4))
        with ScriptedRelay(path, serves(journal)):
            events = list(follow(path, self.WANTED))
        assert [e.data for e in events if isinstance(e, Message)] == journal.content
        assert events[-1] == Synced(
            events[-2].bookmark._replace(position=journal.head, taken=0), SyncState.LIVE
        )

    def test_over_a_gap(self, path):
        journal = Journal(messages(4), tail=2 * len(message(1)))
        with ScriptedRelay(path, serves(journal)):
            events = list(follow(path, self.WANTED))
        assert [type(event) for event in events] == [Synced, Missed, Message, Message, Synced]

    def test_tells_where_it_did_not_come_so_far(self, path):
        relay = ScriptedRelay(path, serves(Journal(messages(4)), cut=-1))
        with relay, pytest.raises(IncompleteError):
            list(follow(path, self.WANTED))

    def test_live_ends_when_the_relay_does(self, path):
        with ScriptedRelay(path, serves(Journal(messages(4)), cut=-1)):
            assert len(list(follow(path, Subscribe(Wish.POSITIONS, Start.LAST, 2)))) == 3

    def test_no_relay(self, path):
        with pytest.raises(NoRelayError, match="no relay at"):
            next(follow(path, self.WANTED))

    def test_a_refused_bookmark(self, path):
        relay = ScriptedRelay(path, serves(Journal(messages(1))))
        with relay, pytest.raises(BookmarkError):
            list(follow(path, Subscribe(Wish.POSITIONS, Start.POSITION, 10**6)))
