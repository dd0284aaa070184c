"""What an identity may do by its rule, and how its connections are held to that, in a hub."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from alphapulse_relay.hub import account
from alphapulse_relay.hub.dialogue import HEARTBEAT_SECONDS, NOTHING
from alphapulse_relay.hub.peer import Ending, Identity, Refusal, State
from alphapulse_relay.hub.permission import AccessRules, Rule
from alphapulse_relay.protocol_v2.compression import compress, expand
from alphapulse_relay.protocol_v2.control import (
    Ack,
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    Heartbeat,
    RecoveryRequest,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
    parse_error,
)
from alphapulse_relay.protocol_v2.errors import Rejection
from alphapulse_relay.protocol_v2.framing import Level, Rules
from alphapulse_relay.protocol_v2.header import build_message
from tests.hub.control import RULES, control, data, read, said
from tests.hub.fakes import WINDOW, Client, Events, Hub, message, messages

TRADER, DESK = 1001, 1002
MakeHub = Callable[..., Hub]


def rules(*access: Rule) -> AccessRules:
    return AccessRules(access)


def for_trader(**what: Any) -> AccessRules:
    """Return rules by which the trader may do that, and everybody else all."""
    return rules(Rule("trader", uids=frozenset({TRADER}), **what), Rule("others"))


def connect(hub: Hub, uid: int = TRADER, room: float = math.inf) -> Client:
    """Return a client on a Unix socket, of that user."""
    transport = hub._transport()
    transport.room = room
    protocol: Any = hub.factory.buildProtocol(None)
    number = hub.factory.next_number()
    protocol.identify = lambda: Identity(number, "unix", 7, uid, uid, "flash")
    client = Client(protocol, transport)
    hub.clients.append(client)
    return client


def packed(size: int, source: int = 20) -> bytes:
    """Return a compressed message whose plain form has so many bytes."""
    payload = random.Random(source).randbytes(size // 2) + bytes(size - size // 2 - 32)
    message = compress(build_message(payload, source=source, sequence=1, timestamp=0))
    assert message is not None
    return message


def refusal(client: Client) -> ErrorMessage:
    """Return what a client was told that was not let in."""
    assert client.closed
    return parse_error(client.received)


class TestComingIn:
    def test_without_rules_all_may_do_all(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        client = connect(hub)
        assert client.protocol.account is None
        assert client.protocol.rules is hub.factory.rules

    def test_who_has_no_rule_is_refused(self, make_hub: MakeHub, logged: Events) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = rules(Rule("desk", uids=frozenset({DESK})))
        client = connect(hub)
        error = refusal(client)
        assert error.code == ErrorCode.FORBIDDEN
        assert error.text == "refused: forbidden: no access rule lets you in"
        assert hub.counters.refused[Refusal.FORBIDDEN] == 1
        assert hub.counters.accepted == 0
        assert logged.lines("connection refused: 1 (unix pid=7 uid=1001 flash), reason=forbidden")

    def test_the_log_names_the_rule(self, make_hub: MakeHub, logged: Events) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = rules(Rule("desk"))
        connect(hub)
        assert logged.lines() == ["peer connected: 1 (unix pid=7 uid=1001 flash), rule=desk"]

    def test_nothing_of_what_it_sends_counts(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = rules(Rule("desk", uids=frozenset({DESK})))
        consumer = connect(hub, DESK)
        connect(hub).send(message())
        assert consumer.received == b""
        assert hub.counters.messages_received == 0

    def test_all_of_a_rule_share_what_they_may_publish(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = rules(Rule("all", sources=frozenset({20})))
        assert connect(hub, TRADER).protocol.rules is connect(hub, DESK).protocol.rules

    def test_so_many_connections_of_one_identity(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = rules(Rule("all", connections=2))
        first = connect(hub)
        connect(hub)
        error = refusal(connect(hub))
        assert error.code == ErrorCode.TOO_MANY_PEERS
        assert error.text.startswith("refused: too_many_of_identity: ")
        assert hub.counters.refused[Refusal.TOO_MANY_OF_IDENTITY] == 1
        connect(hub, DESK)
        first.lose()
        connect(hub)
        assert len(list(hub.factory.peers)) == 3


class TestPublishing:
    @pytest.mark.parametrize("level", Level)
    def test_only_its_sources(self, make_hub: MakeHub, level: Level, logged: Events) -> None:
        hub = make_hub(rules=Rules(level, aside=True))
        hub.factory.access = for_trader(sources=frozenset({20, 21}))
        consumer, trader = connect(hub, DESK), connect(hub)
        own, foreign = message(number=1, source=21), message(number=2, source=22)
        trader.send(own + foreign + own)
        assert consumer.received == own + own
        assert hub.counters.dropped[Rejection.FORBIDDEN] == 1
        assert logged.lines(
            "reason=forbidden, the first at byte 64 of its stream: source 22 is not"
        )
        assert not trader.closed

    def test_a_legacy_writer_s_source_is_where_the_version_belongs(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(sources=frozenset({20}))
        consumer, trader = connect(hub, DESK), connect(hub)
        pretended = bytearray(message(source=20))
        pretended[5] = 30
        own = bytearray(message(source=99))
        own[5] = 20
        for each in (pretended, own):
            each[28:32] = bytes(4)
        trader.send(bytes(pretended) + bytes(own))
        assert consumer.received == bytes(own)

    @pytest.mark.parametrize("level", [Level.FRAMING, Level.CHECKSUM])
    def test_only_its_domains(self, make_hub: MakeHub, level: Level) -> None:
        hub = make_hub(rules=Rules(level, frozenset({1, 2}), aside=True))
        hub.factory.access = for_trader(domains=frozenset({1}))
        consumer, trader = connect(hub, DESK), connect(hub)
        own, foreign = (
            build_message(b"", source=20, sequence=1, timestamp=0, domain=domain)
            for domain in (1, 2)
        )
        trader.send(foreign + own + foreign)
        assert consumer.received == own
        assert hub.counters.dropped[Rejection.FORBIDDEN] == 2

    def test_a_domain_that_nobody_may_use_is_no_question_of_rules(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(domains=frozenset({1}))
        connect(hub).send(build_message(b"", source=1, sequence=1, timestamp=0, domain=3))
        assert hub.counters.dropped[Rejection.DOMAIN] == 1
        assert hub.counters.dropped[Rejection.FORBIDDEN] == 0

    def test_a_compressed_message_is_judged_unexpanded(
        self, make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(sources=frozenset({20}))
        consumer, trader = connect(hub, DESK), connect(hub)
        own, foreign = packed(8000, 20), packed(8000, 22)
        expanded: list[bytes] = []

        def expand_and_tell(message: bytes, most: int) -> bytes:
            expanded.append(message)
            return expand(message, most)

        monkeypatch.setattr("alphapulse_relay.hub.receiver.expand", expand_and_tell)
        trader.send(foreign, own)
        assert expanded == [own]
        assert consumer.received == expand(own, 1 << 20)
        assert hub.counters.dropped[Rejection.FORBIDDEN] == 1

    def test_what_is_in_a_compressed_message_is_judged_too(
        self, make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(sources=frozenset({20}))
        consumer, trader = connect(hub, DESK), connect(hub)
        foreign = message(8000, source=22)
        monkeypatch.setattr("alphapulse_relay.hub.receiver.expand", lambda *_: foreign)
        trader.send(packed(8000))
        assert consumer.received == b""
        assert hub.counters.dropped[Rejection.FORBIDDEN] == 1

    def test_nothing_but_control(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(domains=frozenset())
        consumer, trader = connect(hub, DESK), connect(hub)
        trader.send(message(), control(Heartbeat(1, 0)), packed(8000))
        assert consumer.received == b""
        assert hub.counters.dropped[Rejection.FORBIDDEN] == 2
        beat, error = said(trader)
        assert isinstance(beat, Heartbeat)
        assert isinstance(error, ErrorMessage)
        assert error.code == ErrorCode.FORBIDDEN

    def test_who_does_not_speak_control_is_told_nothing(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(domains=frozenset())
        trader = connect(hub)
        trader.send(message())
        assert trader.received == b""


class TestGettingNothing:
    @pytest.fixture
    def hub(self, make_hub: MakeHub) -> Hub:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(subscribe=False)
        return hub

    def test_not_what_others_publish(self, hub: Hub) -> None:
        trader, other = connect(hub), connect(hub, DESK)
        other.send(*messages(3))
        trader.send(own := message(source=21))
        assert trader.received == b""
        assert other.received == own
        assert (trader.protocol.delivery.rides, trader.protocol.woken) == (False, False)

    def test_it_is_told_so_if_it_asks(self, hub: Hub) -> None:
        trader, other = connect(hub), connect(hub, DESK)
        trader.send(control(Subscribe()), control(Subscribe(Wish.POSITIONS, Start.LAST, 5)))
        other.send(message())
        codes = [each.code for each in said(trader) if isinstance(each, ErrorMessage)]
        assert codes == [ErrorCode.FORBIDDEN] * 2
        assert data(trader) == []

    def test_it_may_publish_with_acknowledgements(self, hub: Hub) -> None:
        trader, other = connect(hub), connect(hub, DESK)
        other.send(message(number=1))
        wishes = Wish.POSITIONS | Wish.ACKNOWLEDGE | Wish.HEARTBEATS
        trader.send(control(Subscribe(wishes, types=NOTHING, name="flash")))
        (sync,) = said(trader)
        assert isinstance(sync, SequenceSync)
        assert sync.position == 64
        other.send(message(number=2))
        trader.send(message(number=7, source=21))
        assert [each for each in said(trader) if isinstance(each, Ack)] == [Ack(21, 7, 192)]
        hub.clock.pump([HEARTBEAT_SECONDS] * 2)
        assert isinstance(said(trader)[-1], Heartbeat)
        assert data(trader) == []

    def test_it_is_never_overtaken_nor_behind_nor_muted(self, hub: Hub) -> None:
        trader, other = connect(hub, room=0), connect(hub, DESK)
        trader.send(message())
        hub.fill(other, 3 * WINDOW)
        assert not trader.closed
        assert (trader.protocol.state, trader.protocol.cursor.behind) == (State.LIVE, 0)
        assert not hub.factory.pace.held
        trader.lose()
        assert hub.counters.missed == dict.fromkeys(hub.counters.missed, 0)

    def test_it_does_not_count_as_a_consumer_that_keeps_up(self, hub: Hub) -> None:
        """Else publishers would run ahead of those that do get something."""
        connect(hub)
        slow, publisher = connect(hub, DESK, room=100), connect(hub, DESK)
        slow.take(1)
        hub.fill(publisher, WINDOW * 5 // 8)
        assert publisher.held
        hub.clock.advance(10)

    def test_answers_wait_for_room(self, hub: Hub) -> None:
        trader = connect(hub, room=10)
        trader.send(control(Heartbeat(1, 0)))
        assert len(trader.received) == 10
        assert trader.protocol.state is State.BEHIND
        trader.take()
        (beat,) = said(trader)
        assert isinstance(beat, Heartbeat)
        assert trader.protocol.state is State.LIVE

    def test_who_never_reads_the_answers_is_parted_from(self, hub: Hub) -> None:
        trader = connect(hub, room=0)
        for number in range(3000):
            if not trader.closed:
                trader.send(control(RecoveryRequest(20, number, 1, 5)))
        assert hub.counters.ended[Ending.UNREAD] == 1

    def test_answers_are_signs_of_life(self, hub: Hub) -> None:
        trader = connect(hub)
        wishes = Wish.ACKNOWLEDGE | Wish.HEARTBEATS
        trader.send(control(Subscribe(wishes, types=NOTHING)))
        for number in range(3):
            hub.clock.advance(HEARTBEAT_SECONDS / 2)
            trader.send(message(number=number))
            hub.clock.advance(HEARTBEAT_SECONDS / 2)
        assert not [each for each in said(trader) if isinstance(each, Heartbeat)]
        for count in (1, 2):
            hub.clock.advance(HEARTBEAT_SECONDS)
            assert len([each for each in said(trader) if isinstance(each, Heartbeat)]) == count

    def test_the_relay_leaves_when_it_has_its_acknowledgements(self, hub: Hub) -> None:
        trader = connect(hub)
        trader.send(control(Subscribe(Wish.ACKNOWLEDGE, types=NOTHING)))
        trader.transport.room = 0
        trader.send(message(number=7))
        drain = hub.drain()
        drain.look()
        assert not trader.closed
        trader.take()
        drain.look()
        _, ack, error = said(trader)
        assert ack == Ack(20, 7, 64)
        assert isinstance(error, ErrorMessage)
        assert error.code == ErrorCode.LEAVING
        assert hub.counters.ended[Ending.SHUTDOWN] == 1

    def test_the_relay_leaves_without_waiting_for_it(self, hub: Hub) -> None:
        connect(hub, room=0)
        connect(hub, DESK).send(message())
        drain = hub.drain()
        drain.look()
        assert drain.done


class TestHistory:
    @pytest.fixture
    def hub(self, make_hub: MakeHub) -> Hub:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(replay=False)
        connect(hub, DESK).send(*messages(5, first=1))
        return hub

    @pytest.mark.parametrize(
        ("wish", "start"),
        [
            (Wish.STOP_AT_HEAD, Start.POSITION),
            (Wish.POSITIONS, Start.TIME),
            (Wish.POSITIONS, Start.LAST),
        ],
    )
    def test_it_gets_none(self, hub: Hub, wish: Wish, start: Start) -> None:
        trader = connect(hub)
        trader.send(control(Subscribe(wish, start, 1)))
        (error,) = said(trader)
        assert error == ErrorMessage(ErrorCode.FORBIDDEN, "the access rules give you no history")
        assert data(trader) == []
        assert hub.counters.dropped[Rejection.CONTROL] == 1

    def test_a_bookmark_goes_on_at_the_head_and_what_is_between_is_named(self, hub: Hub) -> None:
        trader, epoch = connect(hub), hub.factory.log.epoch
        trader.send(control(Subscribe(Wish.POSITIONS, Start.POSITION, 128, epoch)))
        hub.clients[0].send(new := message(number=6))
        assert read(trader.received) == [
            Gap(epoch, 128, 320, GapReason.RETENTION),
            SequenceSync(epoch, 320, SyncState.LIVE),
            new,
            SequenceSync(epoch, 384, SyncState.LIVE),
        ]
        assert hub.counters.dropped[Rejection.CONTROL] == 0

    def test_a_bookmark_at_the_head_misses_nothing(self, hub: Hub) -> None:
        trader, epoch = connect(hub), hub.factory.log.epoch
        trader.send(control(Subscribe(Wish.POSITIONS, Start.POSITION, 320, epoch)))
        assert said(trader) == [SequenceSync(epoch, 320, SyncState.LIVE)]

    @pytest.mark.parametrize(
        ("position", "other", "code"),
        [(128, 1, ErrorCode.WRONG_EPOCH), (321, 0, ErrorCode.NOT_KEPT)],
    )
    def test_a_bookmark_into_another_journal_is_refused(
        self, hub: Hub, position: int, other: int, code: ErrorCode
    ) -> None:
        trader, epoch = connect(hub), hub.factory.log.epoch
        trader.send(control(Subscribe(Wish(0), Start.POSITION, position, epoch + other)))
        (error,) = said(trader)
        assert isinstance(error, ErrorMessage)
        assert error.code == code

    def test_who_wants_nothing_misses_nothing(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(subscribe=False)
        connect(hub, DESK).send(message())
        trader, epoch = connect(hub), hub.factory.log.epoch
        trader.send(control(Subscribe(Wish(0), Start.POSITION, 0, types=NOTHING)))
        assert said(trader) == [SequenceSync(epoch, 64, SyncState.LIVE)]

    def test_nor_anything_again(self, hub: Hub) -> None:
        trader = connect(hub)
        trader.send(control(RecoveryRequest(20, 1, 1, 5)))
        (error,) = said(trader)
        assert isinstance(error, ErrorMessage)
        assert error.code == ErrorCode.FORBIDDEN

    def test_it_gets_what_comes(self, hub: Hub) -> None:
        trader = connect(hub)
        trader.send(control(Subscribe(Wish.POSITIONS)))
        hub.clients[0].send(new := message(number=6))
        assert data(trader) == [new]


class TestLimits:
    @pytest.fixture
    def hub(self, make_hub: MakeHub) -> Hub:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(messages_per_second=10)
        return hub

    def test_who_sends_too_much_is_read_later(self, hub: Hub) -> None:
        consumer, trader = connect(hub, DESK), connect(hub)
        trader.send(*(sent := messages(10)))
        assert not trader.held
        trader.send(*(more := messages(5, first=10)))
        assert trader.held
        assert consumer.received == b"".join(sent + more)  # nothing is dropped
        assert (hub.factory.accounts.held, hub.counters.limited) == (1, {"trader": 1})
        hub.clock.advance(0.45)
        assert trader.held
        hub.clock.advance(0.1)
        assert not trader.held
        assert hub.factory.accounts.held == 0

    def test_all_connections_of_the_identity_are_held(self, hub: Hub) -> None:
        first, second, other = connect(hub), connect(hub), connect(hub, DESK)
        first.send(*messages(6))
        second.send(*messages(6))
        third = connect(hub)
        assert (first.held, second.held, third.held, other.held) == (True, True, True, False)
        hub.clock.advance(1)
        assert not any(client.held for client in (first, second, third))

    def test_to_come_again_pays_no_debt(self, hub: Hub) -> None:
        trader = connect(hub)
        trader.send(*messages(30))
        trader.lose()
        assert hub.factory.accounts.held == 0
        again = connect(hub)
        assert again.held
        hub.clock.advance(2.05)
        assert not again.held
        again.lose()
        last = connect(hub)
        last.send(*messages(9))  # of the second's worth only a twentieth was saved
        assert last.held
        hub.clock.advance(10)

    def test_bytes(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(bytes_per_second=1000)
        trader = connect(hub)
        trader.send(message(1000))
        assert not trader.held
        trader.send(message(64))
        assert trader.held
        hub.clock.advance(0.07)
        assert not trader.held

    def test_a_compressed_message_counts_as_what_is_in_it(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(bytes_per_second=10_000)
        trader = connect(hub)
        trader.send(packed(40_000))
        hub.clock.advance(2.9)
        assert trader.held
        hub.clock.advance(0.2)
        assert not trader.held

    @pytest.mark.parametrize("what", ["forbidden", "damaged", "garbage", "control"])
    def test_what_is_dropped_counts_too(self, hub: Hub, what: str) -> None:
        trader = connect(hub)
        sent = {
            "forbidden": build_message(b"", source=1, sequence=1, timestamp=0, domain=3),
            "damaged": message()[:-1] + b"\xff",
            "garbage": build_message(b"no zstd", source=1, sequence=1, timestamp=0, flags=1),
            "control": control(Heartbeat(1, 0)),
        }
        trader.send(*[sent[what]] * 11)
        assert trader.held
        hub.clock.advance(1)
        assert not trader.held

    def test_pace_and_limit_both_hold(self, hub: Hub) -> None:
        peer = connect(hub).protocol
        client = hub.clients[0]
        client.send(*messages(20))
        peer.hold()
        hub.clock.advance(2)
        assert client.held
        peer.release()
        assert not client.held
        peer.hold()
        client.send(*messages(20))
        peer.release()
        assert client.held
        hub.clock.advance(2)
        assert not client.held

    def test_who_is_not_to_be_read_any_more_stays_so(self, hub: Hub) -> None:
        trader = connect(hub)
        trader.send(*messages(20))
        trader.protocol.stop_reading()
        hub.clock.advance(2)
        assert trader.held

    def test_no_limit_no_account_of_it(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader()
        trader = connect(hub)
        trader.send(*messages(1000))
        assert not trader.held
        assert not trader.protocol.limited

    def test_idle_accounts_are_forgotten(
        self, make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(account, "IDLE_MAX", 1)
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(messages_per_second=10)
        accounts = hub.factory.accounts._accounts
        trader = connect(hub)
        trader.send(*messages(10))
        trader.lose()
        connect(hub, 5)
        assert len(accounts) == 2
        hub.clock.advance(1.1)
        connect(hub, 6)
        assert len(accounts) == 2

    def test_many_identities_are_looked_at_a_few_times_each(
        self, make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = make_hub(rules=RULES, max_peers=2000)
        hub.factory.access = rules(Rule("all"))
        looks = []

        class Watched(account.Account):
            @property
            def idle(self) -> bool:
                looks.append(self)
                return super().idle

        monkeypatch.setattr(account, "Account", Watched)
        for uid in range(1000):
            connect(hub, uid)
        assert len(looks) < 3000


class TestOtherRules:
    """The rules change while peers are connected."""

    def test_who_may_not_connect_any_more_is_told_and_parted_from(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        trader, other = connect(hub), connect(hub, DESK)
        hub.factory.access = rules(Rule("desk", uids=frozenset({DESK})))
        assert refusal(trader) == ErrorMessage(ErrorCode.FORBIDDEN, "no access rule lets you in")
        assert hub.counters.ended[Ending.FORBIDDEN] == 1
        assert not other.closed

    def test_what_may_be_published(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        consumer, trader = connect(hub, DESK), connect(hub)
        for access, number in (
            (for_trader(domains=frozenset()), 0),
            (for_trader(sources=frozenset({20})), 1),
            (None, 2),
        ):
            hub.factory.access = access
            trader.send(message(source=20), message(source=21))
            assert len(data(consumer)) == number
            consumer.transport.clear()

    def test_the_same_rules_change_nothing(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(messages_per_second=10, subscribe=False)
        trader = connect(hub)
        trader.send(*messages(20))
        account = trader.protocol.account
        hub.factory.access = for_trader(messages_per_second=10, subscribe=False)
        assert trader.protocol.account is account
        assert trader.held
        hub.clock.advance(2)
        assert not trader.held

    def test_another_limit(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(messages_per_second=1)
        trader = connect(hub)
        trader.send(*messages(101))
        assert trader.held
        hub.factory.access = for_trader(messages_per_second=50)
        hub.clock.advance(1.9)
        assert trader.held  # what is owed is so by any limit
        hub.clock.advance(0.2)
        assert not trader.held
        hub.clock.advance(1)
        trader.send(*messages(51))
        assert trader.held
        hub.factory.access = None
        assert not trader.held

    def test_what_is_owed_stays_so_whatever_else_of_the_rule_changes(
        self, make_hub: MakeHub
    ) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(messages_per_second=10)
        trader = connect(hub)
        trader.send(*messages(30))
        trader.lose()
        for sources in ({20}, {20, 21}):
            hub.factory.access = for_trader(messages_per_second=10, sources=frozenset(sources))
        again = connect(hub)
        assert again.held
        hub.clock.advance(1.9)
        assert again.held
        hub.clock.advance(0.2)
        assert not again.held

    def test_all_connections_count_by_the_changed_rule(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(messages_per_second=10)
        first, second = connect(hub), connect(hub)
        first.send(*messages(20))
        hub.factory.access = for_trader(messages_per_second=20, connections=2)
        assert refusal(connect(hub)).code == ErrorCode.TOO_MANY_PEERS
        assert hub.factory.accounts.held == 2
        hub.clock.advance(0.6)
        assert not any(each.held for each in (first, second))

    def test_another_rule_s_limit_is_another_s(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(messages_per_second=10)
        trader = connect(hub)
        trader.send(*messages(30))
        uids = frozenset({TRADER})
        hub.factory.access = rules(Rule("flash", uids=uids, messages_per_second=10))
        assert not trader.held

    @pytest.mark.parametrize("before", [True, False])
    def test_who_may_get_messages_is_asked_to_come_again(
        self, make_hub: MakeHub, before: bool
    ) -> None:
        hub = make_hub(rules=RULES)
        hub.factory.access = for_trader(subscribe=before)
        trader = connect(hub)
        hub.factory.access = for_trader(subscribe=not before)
        error = refusal(trader)
        assert error.code == ErrorCode.LEAVING
        assert "connect again" in error.text

    def test_who_is_in_the_past_may_not_stay_there(self, make_hub: MakeHub) -> None:
        hub = make_hub(rules=RULES)
        connect(hub, DESK).send(*messages(100, 1000))
        past, present = connect(hub, room=500), connect(hub)
        past.send(control(Subscribe(start=Start.LAST, start_value=50)))
        assert past.protocol.cursor.replaying
        hub.factory.access = for_trader(replay=False)
        assert past.closed
        assert not present.closed
