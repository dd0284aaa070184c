"""A client without a socket: what it asks for, makes of the answer, and where it resumes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.client.bookmark import Bookmark
from alphapulse_relay.client.core import (
    NAME_HELD,
    NOTHING,
    Core,
    Event,
    Message,
    Missed,
    Run,
    Synced,
)
from alphapulse_relay.client.errors import (
    BookmarkError,
    ClientError,
    LeavingError,
    NotARelayError,
    RelayError,
    UnacknowledgedError,
)
from alphapulse_relay.client.outbox import UNACKNOWLEDGED_MAX
from alphapulse_relay.protocol_v2.control import (
    Ack,
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
    build_control,
    parse_control,
)
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Flags, build_message
from tests.client.journal import EPOCH, Journal, message, messages, said, sequences

ALL = Subscribe(Wish.POSITIONS, Start.POSITION)
"""From the first message on."""
PUBLISHER = Subscribe(Wish.ACKNOWLEDGE, types=NOTHING)
HELLO = SequenceSync(EPOCH, 0, SyncState.LIVE)


def asked(core: Core) -> Subscribe:
    """What the core asks for when it connects."""
    found = parse_control(next(split(core.connect(timestamp=1))))
    assert isinstance(found, Subscribe)
    return found


def listening(subscription: Subscribe = ALL, bookmark: Bookmark | None = None) -> Core:
    """A core whose relay has answered."""
    core = Core(subscription, bookmark)
    core.connect(timestamp=1)
    assert list(core.receive(said(HELLO))) == [Synced(core.bookmark, SyncState.LIVE)]
    assert core.due() == b""
    return core


def taken(events: list[Event]) -> list[int]:
    return sequences(event.data for event in events if isinstance(event, Message))


class TestConnect:
    def test_asks_for_what_is_wanted(self):
        wanted = Subscribe(Wish.ZSTD, Start.LAST, 7, 0, frozenset({21}), frozenset({20}), "risk")
        assert asked(Core(wanted)) == wanted

    def test_begins_at_the_bookmark(self):
        core = listening()
        bookmark = core.bookmark._replace(position=77)
        wanted = asked(Core(ALL, bookmark))
        assert (wanted.start, wanted.start_value, wanted.epoch) == (Start.POSITION, 77, EPOCH)

    def test_resumes_where_the_last_one_ended(self):
        core = listening()
        list(core.receive(said(SequenceSync(EPOCH, 500, SyncState.LIVE))))
        assert asked(core).start_value == 500

    def test_starts_as_before_where_nothing_was_answered(self):
        core = Core(Subscribe(Wish.POSITIONS, Start.LAST, 3))
        assert asked(core) == asked(core) == core.subscription

    def test_one_that_only_publishes_never_resumes(self):
        core = listening(PUBLISHER)
        assert asked(core) == PUBLISHER
        assert list(core.receive(said(SequenceSync(EPOCH + 1, 9, SyncState.LIVE))))

    def test_starts_over(self):
        core = listening()
        core.start_over(Start.LAST, 5)
        assert (asked(core).start, asked(core).start_value, asked(core).epoch) == (Start.LAST, 5, 0)


class TestReceive:
    @pytest.mark.parametrize("size", [1, 7, 32, 10_000])
    def test_however_it_is_cut(self, size):
        journal = Journal(messages(8))
        core = Core(ALL)
        stream = journal.answer(asked(core))
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        events = [event for piece in pieces for event in core.receive(piece)]
        assert [e.data for e in events if isinstance(e, Message)] == journal.content
        assert core.bookmark[:3] == (EPOCH, journal.head, 0)

    def test_the_bookmark_of_each_message(self):
        core = Core(ALL)
        journal = Journal(messages(4), batch=2)
        length = len(journal.content[0])
        events = list(core.receive(journal.answer(asked(core))))
        assert [event.bookmark[1:3] for event in events] == [
            (0, 0),
            *[(0, 1), (0, 2), (2 * length, 0)],
            *[(2 * length, 1), (2 * length, 2), (4 * length, 0)],
        ]

    def test_what_came_before_the_answer_is_not_of_the_subscription(self):
        core = Core(ALL)
        core.connect(timestamp=1)
        events = list(core.receive(message(1) + said(HELLO) + message(2)))
        assert taken(events) == [2]
        assert core.bookmark[1:3] == (0, 1)

    def test_nor_is_it_counted_when_resuming(self):
        core, journal = Core(ALL), Journal(messages(4), batch=9)
        whole = journal.answer(asked(core))
        before = list(core.receive(whole[: whole.index(message(3))]))
        after = list(core.receive(message(9) * 3 + journal.answer(asked(core))))
        assert (taken(before), taken(after)) == ([1, 2], [3, 4])

    def test_a_gap_moves_the_position(self):
        core = listening()
        gap = Gap(EPOCH, 40, 900, GapReason.SKIPPED)
        _, missed, second = core.receive(message(1) + said(gap) + message(2))
        assert missed == Missed(gap, Bookmark(EPOCH, 900, 0, core.bookmark.asked))
        assert second.bookmark[1:3] == (900, 1)

    def test_heartbeats_and_acks_are_events(self):
        said_by_relay = [Heartbeat(5, 0), Ack(20, 7, 99)]
        assert list(listening().receive(said(*said_by_relay))) == said_by_relay

    def test_expands(self):
        wanted = Subscribe(Wish.POSITIONS | Wish.ZSTD, Start.POSITION)
        core, journal = Core(wanted), Journal([message(1, size=200), message(2)])
        stream = journal.answer(asked(core))
        assert len(stream) < journal.head
        events = list(core.receive(stream))
        assert [e.data for e in events if isinstance(e, Message)] == journal.content

    def test_a_publishers_false_claim_to_be_compressed_is_passed_on(self):
        data = build_message(b"xx", source=20, sequence=1, timestamp=1, flags=Flags.ZSTD)
        core = listening(Subscribe(Wish.POSITIONS | Wish.ZSTD))
        assert [event.data for event in core.receive(data + message(2))] == [data, message(2)]

    def test_what_is_compressed_is_left_alone_unless_wished(self):
        data = build_message(b"xx", source=20, sequence=1, timestamp=1, flags=Flags.ZSTD)
        assert [event.data for event in listening().receive(data)] == [data]


class TestResumption:
    """Each message once, wherever the connection and the program end."""

    JOURNAL = Journal(messages(8))

    def test_after_a_break_at_any_byte(self):
        whole = self.JOURNAL.answer(asked(Core(ALL)))
        for cut in range(len(whole) + 1):
            core = Core(ALL)
            core.connect(timestamp=1)
            events = list(core.receive(whole[:cut]))
            events += core.receive(self.JOURNAL.answer(asked(core)))
            assert taken(events) == list(range(1, 9)), cut

    @given(st.lists(st.tuples(st.integers(0, 700), st.integers(1, 5)), max_size=8))
    def test_after_many_breaks_and_with_other_batches(self, breaks):
        core, events = Core(ALL), []
        for cut, batch in breaks:
            journal = Journal(self.JOURNAL.content, batch=batch)
            events += core.receive(journal.answer(asked(core))[:cut])
        events += core.receive(self.JOURNAL.answer(asked(core)))
        assert taken(events) == list(range(1, 9))

    def test_of_a_program_that_ends_after_any_message(self):
        whole = self.JOURNAL.answer(asked(Core(ALL)))
        core = Core(ALL)
        core.connect(timestamp=1)
        for event in core.receive(whole):
            again = Core(ALL, event.bookmark)
            rest = taken(list(again.receive(self.JOURNAL.answer(asked(again)))))
            done = taken([event])
            if done:
                assert rest == list(range(done[0] + 1, 9))

    def test_an_iterator_that_is_dropped_takes_nothing_more(self):
        core = Core(ALL)
        stream = core.receive(self.JOURNAL.answer(asked(core)))
        before = [next(stream) for _ in range(3)]
        after = list(core.receive(self.JOURNAL.answer(asked(core))))
        assert taken(before) + taken(after) == list(range(1, 9))

    def test_with_another_subscription_repeats_rather_than_misses(self):
        core = listening()
        (event,) = core.receive(message(1))
        other = Subscribe(Wish.POSITIONS, Start.POSITION, types=frozenset({21}))
        assert event.bookmark.taken == 1
        assert taken(list(listening(other, event.bookmark).receive(message(1)))) == [1]

    def test_behind_a_gap_repeats_rather_than_misses(self):
        core = listening()
        list(core.receive(messages(3)[0] + messages(3)[1]))
        journal = Journal(messages(3), tail=len(message(1)))
        events = list(core.receive(journal.answer(asked(core))))
        assert taken(events) == [2, 3]
        assert [event.gap[1:] for event in events if isinstance(event, Missed)] == [
            (0, journal.tail, GapReason.RETENTION)
        ]

    def test_an_answer_from_elsewhere_repeats_rather_than_misses(self):
        core = listening()
        list(core.receive(message(1)))
        core.connect(timestamp=1)
        events = core.receive(said(SequenceSync(EPOCH, 10, SyncState.LIVE)) + message(2))
        assert taken(list(events)) == [2]


class TestRuns:
    def test_are_what_would_come_one_by_one(self):
        core, stream = listening(), b"".join([message(1), message(2), said(HELLO), message(3)])
        runs = [event for event in core.receive_runs(stream) if isinstance(event, Run)]
        assert [(sequences(split(run.data)), run.messages) for run in runs] == [
            ([1, 2], 2),
            ([3], 1),
        ]
        assert [run.bookmark.taken for run in runs] == [2, 1]
        assert core.bookmark == runs[-1].bookmark

    @given(st.integers(0, 8), st.integers(1, 4000))
    def test_after_a_break_each_comes_once(self, taken, size):
        """What came before it is passed over, wherever a run is cut."""
        stream = b"".join(message(number) for number in range(8))
        core = listening(bookmark=Bookmark(EPOCH, 0, taken, listening().bookmark.asked))
        came = []
        for start in range(0, len(stream), size):
            for event in core.receive_runs(stream[start : start + size]):
                came.extend(sequences(split(event.data)))
                assert event.bookmark.taken == came[-1] + 1
        assert came == list(range(taken, 8))


class TestRefusals:
    @pytest.mark.parametrize("code", [ErrorCode.WRONG_EPOCH, ErrorCode.NOT_KEPT])
    def test_of_a_bookmark(self, code):
        core = listening()
        with pytest.raises(BookmarkError, match="the relay says: no such thing"):
            list(core.receive(said(ErrorMessage(code, "no such thing"))))

    def test_an_answer_from_another_journal(self):
        core = listening()
        core.connect(timestamp=1)
        with pytest.raises(BookmarkError, match="answers from journal 1 instead of e0c4"):
            list(core.receive(said(SequenceSync(1, 0, SyncState.LIVE))))

    def test_a_relay_that_leaves(self):
        with pytest.raises(LeavingError, match="connect again"):
            list(listening().receive(said(ErrorMessage(ErrorCode.LEAVING, "connect again"))))

    def test_others_keep_their_code(self):
        with pytest.raises(RelayError, match=r"says: nothing \(error 99\)") as raised:
            list(listening().receive(said(ErrorMessage(99, ""))))
        assert raised.value.code == 99
        assert not isinstance(raised.value, BookmarkError)

    @pytest.mark.parametrize(
        ("code", "passes"),
        [
            (ErrorCode.TOO_MANY_PEERS, True),
            (ErrorCode.NAME_TAKEN, True),
            (ErrorCode.LEAVING, True),
            (ErrorCode.MALFORMED, False),
            (ErrorCode.BROKEN_STREAM, False),
            (ErrorCode.WRONG_EPOCH, False),
        ],
    )
    def test_which_may_pass(self, code, passes):
        error = RelayError(ErrorMessage(code, ""))
        assert Core(ALL).may_pass(error, now=7.0) is passes
        assert listening().may_pass(error, now=7.0) is passes

    def test_a_name_is_held_only_so_long_by_a_predecessor(self):
        error = RelayError(ErrorMessage(ErrorCode.NAME_TAKEN, ""))
        never, once = Core(ALL), listening()
        times = [7.0, 7.0 + NAME_HELD - 0.01, 7.0 + NAME_HELD]
        assert [never.may_pass(error, now=now) for now in times] == [True, True, False]
        assert [once.may_pass(error, now=now) for now in times] == [True] * 3

    def test_garbage_never_passes(self):
        assert not listening().may_pass(NotARelayError(), now=7.0)

    @pytest.mark.parametrize(
        "garbage",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            build_message(b"", source=80, sequence=0, timestamp=1, domain=4),
            said(Subscribe()),
            message(1, size=255)[:24] + b"\xff" * 8,
        ],
        ids=["another protocol", "empty control", "a peer's word", "huge"],
    )
    def test_garbage_ends_it_after_what_came_before(self, garbage):
        core = listening()
        stream = core.receive(message(1) + message(2) + garbage)
        events = [next(stream), next(stream)]
        with pytest.raises(NotARelayError):
            next(stream)
        assert taken(events) == [1, 2]

    @given(st.binary(max_size=200))
    def test_any_bytes_are_accepted_or_a_client_error(self, data):
        core = listening()
        with suppress(ClientError):
            list(core.receive(data))


class TestPublish:
    def test_is_kept_until_acknowledged(self):
        core = listening(PUBLISHER)
        one, two, three = messages(3)
        assert [core.publish(one), core.publish(two), core.publish(three)] == [one, two, three]
        list(core.receive(said(Ack(20, 2, 9))))
        assert core.connect(timestamp=1) == build_subscribe()
        list(core.receive(said(HELLO)))
        assert [core.due(), core.due()] == [three, b""]
        list(core.receive(said(Ack(20, 3, 9))))
        core.connect(timestamp=1)
        list(core.receive(said(HELLO)))
        assert core.due() == b""

    def test_waits_for_the_answer(self):
        core = Core(PUBLISHER)
        assert core.publish(message(1)) == b""
        core.connect(timestamp=1)
        assert [core.publish(message(2)), core.due()] == [b"", b""]
        with pytest.raises(RelayError):
            list(core.receive(said(ErrorMessage(ErrorCode.NOT_DURABLE, ""))))
        assert core.due() == b""
        core.connect(timestamp=1)
        list(core.receive(said(HELLO)))
        assert core.due() == message(1) + message(2)

    def test_goes_behind_what_is_due(self):
        core = Core(PUBLISHER)
        core.publish(message(1))
        core.connect(timestamp=1)
        for _ in core.receive(said(HELLO)):
            assert core.publish(message(2)) == message(1) + message(2)
        assert core.due() == b""

    def test_waits_only_where_it_is_kept(self):
        core = Core(Subscribe(types=NOTHING))
        core.connect(timestamp=1)
        with pytest.raises(UnacknowledgedError, match="has not answered"):
            core.publish(message(1))

    def test_an_ack_is_for_its_source_alone(self):
        core = listening(PUBLISHER)
        core.publish(message(1, source=20))
        core.publish(message(2, source=21))
        list(core.receive(said(Ack(21, 2, 9), Ack(22, 9, 9))))
        assert list(core.outbox) == [message(1, source=20)]

    def test_is_not_kept_where_no_ack_is_wished(self):
        core = listening(Subscribe(types=NOTHING))
        core.publish(message(1))
        core.publish(message(1))
        assert len(core.outbox) == 0

    def test_a_sequence_must_grow(self):
        core = listening(PUBLISHER)
        core.publish(message(5))
        with pytest.raises(ValueError, match="sequence 5 of source 20 comes after 5"):
            core.publish(message(5))
        assert core.publish(message(1, source=21))

    def test_a_listener_needs_a_name(self):
        with pytest.raises(ValueError, match="needs a name"):
            listening().publish(message(1))
        assert listening(Subscribe(name="risk")).publish(message(1)) == message(1)

    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (b"", "not a message"),
            (b"x" * 40, "not a message"),
            (message(1)[:-1], "41 bytes, but the header states 42"),
            (message(1) + b"x", "43 bytes, but the header states 42"),
            (message(1)[:-1] + b"x", "checksum"),
            (said(Heartbeat(1, 0)), "domain 4"),
        ],
    )
    def test_what_cannot_be_published(self, data, what):
        core = listening(PUBLISHER)
        with pytest.raises(ValueError, match=what):
            core.publish(data)
        assert len(core.outbox) == 0

    def test_what_is_not_acknowledged_is_bounded(self):
        core = listening(PUBLISHER)
        large = build_message(
            bytes(UNACKNOWLEDGED_MAX), source=20, sequence=1, timestamp=1, with_checksum=False
        )
        core.publish(large)
        with pytest.raises(UnacknowledgedError):
            core.publish(message(2))
        list(core.receive(said(Ack(20, 1, 9))))
        core.publish(message(2))

    def test_asks_for_a_sign_of_life(self):
        assert parse_control(listening().ask_for_life(timestamp=7)) == Heartbeat(7, 0)


def build_subscribe() -> bytes:
    return build_control(PUBLISHER, timestamp=1, source=0)
