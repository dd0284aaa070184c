"""A WebSocket as a peer: what it is sent and when, and what it may do."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost

from alphapulse_relay.hub.framed import FRAMED_SKIP_BEHIND
from alphapulse_relay.hub.peer import Ending, Miss, Refusal, State
from alphapulse_relay.hub.permission import AccessRules, Rule
from alphapulse_relay.protocol_v2.control import (
    Ack,
    ErrorCode,
    Gap,
    GapReason,
    SequenceSync,
    Subscribe,
    Wish,
    build_control,
    parse_control,
    parse_error,
)
from alphapulse_relay.protocol_v2.errors import Rejection
from alphapulse_relay.protocol_v2.framing import Rules
from alphapulse_relay.web.peer import SAMPLE_SECONDS
from alphapulse_relay.web.signals import SERVE_SECONDS
from tests.hub.fakes import Events, Hub, make_clock, message, messages
from tests.web.browsers import Browsers

WINDOW = 8 << 20


def masked(payload: bytes, opcode: int = 2) -> bytes:
    """Return a client's small frame, masked with zeros."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


@pytest.fixture
def here() -> Iterator[Browsers]:
    hub = Hub(make_clock(), rules=Rules(aside=True), window=WINDOW)
    browsers = Browsers(hub)
    yield browsers
    browsers.finish()
    hub.finish()


class TestWhatItIsSent:
    def test_whole_messages_once_a_turn(self, here: Browsers) -> None:
        browser, publisher = here.open(), here.hub.connect()
        sent = messages(30)
        for each in sent:
            publisher.send(each[:40], each[40:])
        assert browser.signals == []
        here.serve()
        assert browser.signals == sent
        assert len(browser.frames) == 2  # that it is live, and all of these

    def test_nobody_is_woken_for_it(self, here: Browsers) -> None:
        browser = here.open()
        assert not browser.peer.woken
        if here.hub.factory.fan_out is not None:
            assert not here.hub.factory.fan_out.chunkwise

    def test_never_its_own(self, here: Browsers) -> None:
        browser, consumer = here.open(publish=True), here.hub.connect()
        own, others = messages(2), messages(3, first=10)
        browser.send(b"".join(own))
        consumer.send(*others)
        here.serve()
        assert browser.signals == others
        assert consumer.received == b"".join(own)

    def test_what_its_query_asks_for(self, here: Browsers) -> None:
        publisher = here.hub.connect()
        past = [message(number=number, source=20 + number % 2) for number in range(20)]
        publisher.send(*past)
        browser = here.open("sources=21&last=3&name=desk")
        here.serve()
        assert browser.signals == past[15::2]
        assert here.hub.factory.names["desk"] is browser.peer
        publisher.send(message(source=20), mine := message(source=21))
        here.serve()
        assert browser.signals[3:] == [mine]

    def test_what_it_asks_for_later(self, here: Browsers) -> None:
        publisher = here.hub.connect()
        publisher.send(*messages(5))
        browser = here.open()
        ask = Subscribe(Wish.SKIP_WHEN_BEHIND, sources=frozenset({21}))
        browser.send(build_control(ask, timestamp=1))
        publisher.send(message(source=20), mine := message(source=21))
        here.serve()
        assert browser.signals == [mine]

    def test_all_of_a_long_past_in_order(self, here: Browsers) -> None:
        publisher = here.hub.connect()
        past = messages(300, 10_000)
        publisher.send(*past)
        browser = here.open("last=300&behind=wait")
        here.serve(5)
        assert browser.signals == past

    def test_what_cannot_be_had_is_told(self, here: Browsers) -> None:
        browser = here.open("position=1:0")
        (word,) = browser.words
        told = parse_error(word)
        assert told is not None
        assert told.code == ErrorCode.WRONG_EPOCH
        assert browser.close is not None
        assert (browser.close.code, browser.close.reason) == (1008, "refused")
        browser.finish()
        assert here.hub.counters.ended[Ending.REFUSED] == 1


class TestWhatItsRuleSays:
    def allow(self, here: Browsers, **what: Any) -> None:
        here.hub.factory.access = AccessRules((Rule("all", **what),))

    def test_one_too_many_is_told_why(self, here: Browsers) -> None:
        """Two that came at once were both let in by their requests."""
        self.allow(here, connections=1)
        here.open()
        browser = here.open()
        (word,) = browser.words
        assert "too_many_of_identity" in parse_error(word).text
        assert browser.close is not None
        assert (browser.close.code, browser.close.reason) == (1008, "refused")
        assert here.hub.counters.refused[Refusal.TOO_MANY_OF_IDENTITY] == 1

    @pytest.mark.parametrize("form", ["binary", "json"])
    def test_who_gets_no_messages_may_publish(self, here: Browsers, form: str) -> None:
        self.allow(here, subscribe=False)
        browser = here.open(f"wishes=acknowledge&name=desk&format={form}", publish=True)
        here.serve()
        assert here.hub.factory.names["desk"] is browser.peer
        browser.send(message(number=7))
        here.serve()
        if form == "binary":
            sync, ack = map(parse_control, browser.words)
            assert isinstance(sync, SequenceSync)
            assert ack == Ack(20, 7, 64)
        else:
            assert [each["control"] for each in browser.documents] == ["sequence_sync", "ack"]
        assert browser.signals == []

    @pytest.mark.parametrize(
        ("query", "what"),
        [
            ("", {"domains": frozenset()}),
            ("types=21", {}),
            ("last=1", {}),
        ],
    )
    def test_who_wants_messages_that_it_may_not_have_is_told(
        self, here: Browsers, query: str, what: dict[str, Any]
    ) -> None:
        self.allow(here, subscribe=False, **what)
        browser = here.open(query, publish=True)
        (word,) = browser.words
        assert parse_error(word).code == ErrorCode.FORBIDDEN
        assert browser.close is not None
        assert (browser.close.code, browser.close.reason) == (1008, "refused")

    def test_who_may_only_read_and_get_nothing(self, here: Browsers) -> None:
        self.allow(here, subscribe=False)
        browser = here.open()
        (word,) = browser.words
        assert parse_error(word).code == ErrorCode.FORBIDDEN


class TestBehind:
    def test_it_is_moved_to_the_head_with_a_gap(self, here: Browsers) -> None:
        browser, publisher = here.open(), here.hub.connect()
        publisher.send(*(first := messages(10, 10_000)))
        browser.transport.room = 50_000
        here.serve()
        assert browser.peer.state is State.BEHIND
        missed = here.hub.fill(publisher, FRAMED_SKIP_BEHIND + 50_000)
        here.serve(3)
        browser.transport.take(math.inf)
        publisher.send(last := message(number=77))
        here.serve(2)
        assert browser.signals == [*first, last]
        assert [word for word in map(parse_control, browser.words) if isinstance(word, Gap)] == [
            Gap(
                here.hub.factory.log.epoch,
                100_000,
                100_000 + len(b"".join(missed)),
                GapReason.SKIPPED,
            )
        ]
        assert here.hub.counters.missed[Miss.SKIPPED] == len(missed)

    def test_or_catches_up_if_it_would_rather_wait(self, here: Browsers) -> None:
        browser, publisher = here.open("behind=wait"), here.hub.connect()
        browser.transport.room = 0
        sent = here.hub.fill(publisher, FRAMED_SKIP_BEHIND + 50_000)
        here.serve(3)
        browser.transport.take(math.inf)
        here.serve(10)
        assert browser.signals == sent

    def test_no_publisher_waits_for_it(self, here: Browsers) -> None:
        browser, publisher = here.open("behind=wait", room=1000), here.hub.connect()
        here.hub.fill(publisher, 3 * WINDOW)
        assert not publisher.held
        browser.transport.take(math.inf)
        here.serve(100)
        gaps = [word for word in map(parse_control, browser.words) if isinstance(word, Gap)]
        assert gaps
        assert {gap.reason for gap in gaps} == {GapReason.RETENTION}
        assert here.hub.factory.pace.held_seconds == 0

    def test_a_queue_is_no_more_than_a_frame(self, here: Browsers) -> None:
        browser, publisher = here.open("behind=wait", room=0), here.hub.connect()
        here.hub.fill(publisher, 4 << 20)
        here.serve(10)
        assert len(browser.transport.value()) < 600_000


class TestSample:
    def test_now_and_then_the_newest(self, here: Browsers) -> None:
        browser, publisher = here.open("sample=3&sources=20"), here.hub.connect()
        here.serve(round(SAMPLE_SECONDS / SERVE_SECONDS) + 1)
        sent = [message(number=number, source=20 + number % 2) for number in range(100)]
        publisher.send(b"".join(sent))
        here.serve(2)
        assert browser.signals == sent[94::2]
        publisher.send(b"".join(sent))
        here.serve(2)
        assert len(browser.signals) == 3
        here.serve(round(SAMPLE_SECONDS / SERVE_SECONDS))
        assert browser.signals == 2 * sent[94::2]
        assert here.hub.counters.missed[Miss.SKIPPED] == 0

    def test_all_where_there_are_no_more(self, here: Browsers) -> None:
        browser, publisher = here.open("sample=3"), here.hub.connect()
        sent = messages(2)
        publisher.send(*sent)
        here.serve(round(SAMPLE_SECONDS / SERVE_SECONDS) + 1)
        assert browser.signals == sent
        assert browser.peer.cursor.messages_out == 2

    def test_after_all_of_the_past_that_was_asked_for(self, here: Browsers) -> None:
        publisher = here.hub.connect()
        publisher.send(*(past := messages(20)))
        browser = here.open("sample=3&last=10")
        here.serve(2)
        assert browser.signals == past[10:]
        publisher.send(b"".join(fresh := messages(20, first=50)))
        here.serve(round(SAMPLE_SECONDS / SERVE_SECONDS) + 1)
        assert browser.signals == past[10:] + fresh[17:]

    def test_of_what_is_rare_nothing_is_missed(self, here: Browsers) -> None:
        browser, publisher = here.open("sample=100&sources=77"), here.hub.connect()
        rare = []
        for turn in range(40):
            here.hub.fill(publisher, 1 << 20)
            publisher.send(each := message(number=turn, source=77))
            rare.append(each)
            here.serve(5)
        here.serve(10)
        assert browser.signals == rare
        assert here.hub.counters.missed[Miss.SKIPPED] == 0

    def test_is_not_slow_after_a_stall(self, here: Browsers) -> None:
        browser, publisher = here.open("sample=2", room=0), here.hub.connect()
        here.hub.fill(publisher, 2 * WINDOW)
        browser.transport.take(math.inf)
        last = messages(2, first=500)
        publisher.send(*last)
        here.serve(round(SAMPLE_SECONDS / SERVE_SECONDS) + 1)
        assert browser.signals == last


class TestPings:
    def test_who_does_not_read_has_one_answer_waiting(self, here: Browsers) -> None:
        browser = here.open()
        browser.transport.room = 500
        for number in range(10_000):
            browser.protocol.dataReceived(masked(str(number).encode(), opcode=9))
        assert len(browser.transport.value()) < 2000
        browser.transport.take(math.inf)
        browser.exchange()
        assert browser.frames[-1].data == b"9999"


class TestJson:
    def test_decoded(self, here: Browsers) -> None:
        browser, publisher = here.open("format=json"), here.hub.connect()
        publisher.send(*messages(3, first=5))
        here.serve()
        sync, *rest = browser.documents
        assert (sync["control"], sync["state"], sync["position"]) == ("sequence_sync", "live", 0)
        assert sync["epoch"] == str(here.hub.factory.log.epoch)
        assert [document["sequence"] for document in rest] == [5, 6, 7]
        assert [document["tlvs"][0]["type"] for document in rest] == [21] * 3

    def test_no_more_in_a_turn_than_holds_nobody_up(self, here: Browsers) -> None:
        clock = iter(range(1_000_000))
        here.signals.frames._clock = lambda: float(next(clock))  # each frame takes a second
        browser, publisher = here.open("format=json&behind=wait"), here.hub.connect()
        publisher.send(*messages(8))
        frames = len(browser.frames)
        for turn in range(1, 9):
            here.serve()
            browser.exchange()
            assert len(browser.frames) == frames + turn
        here.serve(2)
        signals = [document for document in browser.documents if "control" not in document]
        assert len(signals) == 8


class TestReadOnly:
    def test_what_it_publishes_is_dropped_and_told(self, here: Browsers) -> None:
        browser, consumer = here.open(), here.hub.connect()
        browser.send(message(), message(number=2))
        here.serve()
        assert consumer.received == b""
        assert here.hub.counters.dropped[Rejection.READ_ONLY] == 2
        assert here.hub.counters.messages_received == 0
        told = [parse_error(word) for word in browser.words]
        assert [error.text for error in told if error] == [
            f"read_only at byte {at}: this WebSocket may only read: see --web-publish"
            for at in (0, 64)
        ]
        assert browser.close is None

    def test_who_may_publishes_to_all(self, here: Browsers) -> None:
        browser, other = here.open(publish=True), here.open()
        consumer = here.hub.connect()
        sent = messages(3)
        browser.send(sent[0] + sent[1][:20], sent[1][20:] + sent[2])
        here.serve()
        assert consumer.received == b"".join(sent)
        assert other.signals == sent
        assert (browser.peer.messages_in, browser.peer.bytes_in) == (3, 3 * 64)

    def test_a_broken_stream_ends_it(self, here: Browsers) -> None:
        browser = here.open(publish=True)
        browser.send(b"this is not a message, and long enough for a header")
        assert browser.close is not None
        assert (browser.close.code, browser.close.reason) == (1008, "magic")
        told = parse_error(browser.words[-1])
        assert told is not None
        assert told.code == ErrorCode.BROKEN_STREAM


class TestLeaving:
    def test_who_has_left_is_sent_nothing_more(self, here: Browsers, logged: Events) -> None:
        browser, publisher = here.open(publish=True), here.hub.connect()
        browser.protocol.dataReceived(masked(b"this is not a message, long enough for a header"))
        assert browser.peer.left
        here.hub.fill(publisher, 3 * FRAMED_SKIP_BEHIND // 2)
        here.serve(5)
        assert browser.signals == []
        assert here.hub.counters.missed[Miss.SKIPPED] == 0
        assert logged.lines("reads again") == []

    def test_who_breaks_the_protocol_leaves_at_once(self, here: Browsers) -> None:
        browser = here.open("name=desk")
        browser.protocol.dataReceived(masked(b"", opcode=3))
        assert here.hub.factory.names == {}
        assert here.hub.counters.ended[Ending.VIOLATION] == 1
        assert browser.close is not None
        assert browser.close.code == 1002

    def test_who_is_left_unread_is_heard_when_it_answers(self, here: Browsers) -> None:
        browser = here.open(publish=True)
        drain = here.hub.drain()
        assert browser.close is not None
        browser.exchange()  # its answer
        assert browser.transport.disconnecting
        browser.finish()
        drain.look()
        assert drain.done

    def test_who_only_waits_for_its_turn_is_told_why(self, here: Browsers) -> None:
        clock = iter(range(1_000_000))
        here.signals.frames._clock = lambda: float(next(clock))
        browser, publisher = here.open("format=json&behind=wait"), here.hub.connect()
        here.hub.fill(publisher, 1 << 20)
        here.serve(2)
        assert browser.peer.transport.starved
        browser.peer.end(Ending.UNDURABLE)
        assert browser.close is not None
        assert (browser.close.code, browser.close.reason) == (1011, "undurable")

    def test_the_relay(self, here: Browsers) -> None:
        browser, publisher = here.open(), here.hub.connect()
        publisher.send(sent := message())
        drain = here.hub.drain()
        here.serve(10)
        assert browser.signals == [sent]
        assert browser.close is not None
        assert (browser.close.code, browser.close.reason) == (1001, "shutdown")
        browser.finish()
        drain.look()
        assert drain.done
        assert here.hub.counters.ended[Ending.SHUTDOWN] == 2

    def test_the_browser(self, here: Browsers) -> None:
        browser = here.open()
        browser.client.send_close(1001)
        browser.exchange()
        browser.finish()
        assert here.hub.counters.ended[Ending.CLOSED] == 1

    def test_the_browser_without_a_word(self, here: Browsers) -> None:
        browser = here.open()
        browser.lose(ConnectionLost)
        assert here.hub.counters.ended[Ending.RESET] == 1

    def test_nothing_is_looked_at_when_all_are_gone(self, here: Browsers) -> None:
        for browser in [here.open(), here.open()]:
            browser.lose()
        assert here.hub.clock.getDelayedCalls() == []


def test_the_sync_tells_where_a_replay_has_come(here: Browsers) -> None:
    publisher = here.hub.connect()
    publisher.send(*messages(3))
    browser = here.open("last=2&wishes=positions&behind=wait")
    here.serve()
    syncs = [word for word in map(parse_control, browser.words) if isinstance(word, SequenceSync)]
    assert (syncs[0].position, syncs[-1].position) == (64, 192)
