"""Runs that come in several NATS messages: whole and in order, or told to be broken."""

import random
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.bridge import assembly as module
from alphapulse_relay.bridge.assembly import Assembly, MissingError, check_run
from alphapulse_relay.bridge.envelope import Envelope, EnvelopeError, Place, Share
from alphapulse_relay.bridge.split import UNTYPED, parts_of
from alphapulse_relay.protocol_v2.control import Heartbeat, build_control
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.selection import Selector, select
from alphapulse_relay.protocol_v2.tlv import build_tlv

EVERY = frozenset[int]()
CONTROL = build_control(Heartbeat(1, 2), timestamp=1)


def message(*types: int, sequence: int = 1) -> bytes:
    payload = b"".join(build_tlv(each, b"content") for each in types)
    return build_message(payload, source=20, sequence=sequence, timestamp=1)


RUN = b"".join(message(20 + number % 3, sequence=number) for number in range(9))
"""Types 20, 21 and 22, three times."""
OTHER = message(20, sequence=100) + message(21, sequence=101)


def envelope(run: bytes, begin: int = 0) -> Envelope:
    """Return one that ends where one with the next higher ``begin`` begins."""
    return Envelope(run, Place(1, begin, 0, 0), Place(1, begin + 1, 0, 0), 5)


def shares(run: bytes, begin: int = 0) -> list[Envelope]:
    """Return a run by type."""
    parts, whole = parts_of(run), envelope(run, begin)
    types = tuple(part.type for part in parts)
    messages = len(list(split(run)))
    return [
        whole._replace(payload=part.payload, share=Share(part.type, types, part.order, messages))
        for part in parts
    ]


def pieces(envelopes: Iterable[Envelope], room: int) -> list[Envelope]:
    return [piece for each in envelopes for piece in each.cut(room)]


def add(assembly: Assembly, envelopes: Iterable[Envelope], relay: str = "a") -> list[bytes]:
    """Return the runs that are whole with these."""
    return [run for each in envelopes if (run := assembly.add(relay, each, 1))]


def wanted(run: bytes, types: Iterable[int]) -> bytes:
    found = select(run, Selector(types=frozenset(types)))
    return b"".join(run[start:stop] for start, stop in found.ranges)


class TestPieces:
    def test_a_whole_run_is_whole_at_once(self) -> None:
        assembly = Assembly(EVERY)
        assert assembly.add("a", envelope(RUN), 1) == RUN
        assert not assembly.begun

    def test_nothing_before_the_last(self) -> None:
        assembly = Assembly(EVERY)
        *first, last = envelope(RUN).cut(50)
        assert add(assembly, first) == []
        assert assembly.begun
        assert assembly.add("a", last, 1) == RUN
        assert not assembly.begun

    @pytest.mark.parametrize("stored", range(1, 3))
    def test_it_begins_again(self, stored: int) -> None:
        assembly = Assembly(EVERY)
        cut = envelope(RUN).cut(len(RUN) // 3)
        assert add(assembly, cut[:stored]) == []
        assert add(assembly, envelope(RUN).cut(17)) == [RUN]
        assert not assembly.begun

    def test_it_begins_again_as_a_whole(self) -> None:
        assembly = Assembly(EVERY)
        assert add(assembly, [*envelope(RUN).cut(100)[:2], envelope(RUN)]) == [RUN]
        assert not assembly.begun

    @pytest.mark.parametrize("missing", [0, 1, 2])
    def test_one_is_missing(self, missing: int) -> None:
        assembly = Assembly(EVERY)
        cut = envelope(RUN).cut(len(RUN) // 4 + 1)
        assert len(cut) == 4
        assert add(assembly, cut[:missing]) == []
        for behind in cut[missing + 1 :]:
            with pytest.raises(MissingError, match="before it in its run has not come"):
                assembly.add("a", behind, 1)
            assert not assembly.begun  # what follows comes all the same
        assert add(assembly, envelope(OTHER).cut(30)) == [OTHER]

    def test_pieces_of_two_runs(self) -> None:
        assembly = Assembly(EVERY)
        one, two = envelope(OTHER).cut(60), envelope(OTHER, 1).cut(60)
        assert len(one) == len(two) == 2
        add(assembly, one[:1])
        with pytest.raises(MissingError):
            assembly.add("a", two[1], 1)

    def test_more_than_there_may_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LARGEST", 250)
        assembly = Assembly(EVERY)
        cut = envelope(RUN).cut(100)
        assert add(assembly, cut[:2]) == []
        with pytest.raises(
            EnvelopeError, match="300 bytes of runs have come in part with it, of at most 250"
        ):
            assembly.add("a", cut[2], 1)
        assert not assembly.begun

    def test_where_it_began(self) -> None:
        assembly = Assembly(EVERY)
        cut = envelope(RUN).cut(100)
        assembly.add("a", cut[0], 7)
        assembly.add("b", shares(RUN)[0], 8)
        assembly.add("a", cut[1], 9)
        assert assembly.begun == {"a": 7, "b": 8}

    def test_the_last_is_missing(self) -> None:
        assembly = Assembly(EVERY)
        assert add(assembly, envelope(RUN).cut(100)[:-1]) == []
        assert add(assembly, envelope(OTHER, 1).cut(30)) == [OTHER]

    def test_relays_do_not_mix(self) -> None:
        assembly, found = Assembly(EVERY), []
        one, two = envelope(RUN).cut(50), envelope(OTHER).cut(20)
        for number in range(max(len(one), len(two))):
            found += add(assembly, one[number : number + 1], "a")
            found += add(assembly, two[number : number + 1], "b")
        assert sorted(found) == sorted([RUN, OTHER])
        assert not assembly.begun

    def test_what_is_forgotten(self) -> None:
        assembly = Assembly(EVERY)
        add(assembly, [*envelope(RUN).cut(50)[:3], shares(RUN)[0]])
        assembly.clear()
        assert not assembly.begun
        assert add(assembly, shares(RUN)) == [RUN]


class TestShares:
    def test_all(self) -> None:
        assembly = Assembly(EVERY)
        *first, last = shares(RUN)
        assert add(assembly, first) == []
        assert assembly.begun
        assert assembly.add("a", last, 1) == RUN
        assert not assembly.begun

    def test_one_only(self) -> None:
        run = message(20, sequence=1) + message(20, sequence=2)
        (share,) = shares(run)
        assert Assembly(EVERY).add("a", share, 1) == run

    @pytest.mark.parametrize("types", [{20}, {21}, {22}, {20, 21}, {20, 22}, {21, 22, 30}, {30}])
    @pytest.mark.parametrize("all_come", [True, False])
    def test_types_that_come(self, types: set[int], all_come: bool) -> None:
        assembly = Assembly(frozenset(types))
        come = [each for each in shares(RUN) if all_come or each.share.type in types]
        assert b"".join(add(assembly, come)) == wanted(RUN, types)
        assert not assembly.begun

    def test_a_type_that_is_not_wanted_leaves_no_piece(self) -> None:
        assembly = Assembly(frozenset({22}))
        assert add(assembly, shares(RUN)[0].cut(20)[:2]) == []
        assert not assembly.begun

    def test_a_run_that_is_not_by_type_comes_whatever_its_types(self) -> None:
        assert Assembly(frozenset({30})).add("a", envelope(RUN), 1) == RUN

    def test_messages_without_a_type(self) -> None:
        run = message(sequence=1) + message(20, sequence=2) + message(sequence=3)
        assert [each.share.type for each in shares(run)] == [20, UNTYPED]
        assert add(Assembly(EVERY), shares(run)) == [run]
        assert add(Assembly(frozenset({20})), shares(run)) == [message(20, sequence=2)]

    @pytest.mark.parametrize("stored", range(1, 6))
    def test_pieces_of_shares_of_which_some_come_again(self, stored: int) -> None:
        assembly = Assembly(EVERY)
        before = [each.cut(100) for each in shares(RUN)]
        first = [piece for share in before for piece in share][:stored]
        assert len(before[0]) > 1
        assert add(assembly, first) == []
        # The bridge goes on with the share that is not whole, perhaps in other pieces.
        whole = sum(piece.piece == piece.pieces for piece in first)
        assert add(assembly, pieces(shares(RUN)[whole:], 33)) == [RUN]
        assert not assembly.begun

    def test_it_begins_again_somewhere_else(self) -> None:
        assembly = Assembly(EVERY)
        assert add(assembly, shares(RUN)[:2]) == []
        assert add(assembly, shares(OTHER, begin=5)) == [OTHER]
        assert not assembly.begun

    def test_relays_do_not_mix(self) -> None:
        assembly = Assembly(EVERY)
        one, two = shares(RUN), shares(OTHER)
        assert add(assembly, one[:2], "a") == []
        assert add(assembly, two, "b") == [OTHER]
        assert assembly.begun
        assert add(assembly, one[2:], "a") == [RUN]
        assert not assembly.begun


class TestNoRuns:
    @pytest.mark.parametrize("bad", [b"x", b"nothing of it" * 10, bytes(32), RUN[:-1], RUN[1:]])
    def test_torn(self, bad: bytes) -> None:
        with pytest.raises(EnvelopeError, match=r"what is at byte \d+ is "):
            Assembly(EVERY).add("a", envelope(bad), 1)

    @pytest.mark.parametrize(
        ("bad", "told"),
        [
            (CONTROL, "what is at byte 0 is control"),
            (message(20) + CONTROL + message(21), f"what is at byte {len(message(20))} is control"),
            (message(20)[:40], "what is at byte 0 is not a whole message"),
            (RUN + RUN[:31], f"what is at byte {len(RUN)} is not a whole message"),
            (b"x" * 40, "what is at byte 0 is no message: "),
        ],
    )
    def test_where_it_breaks(self, bad: bytes, told: str) -> None:
        with pytest.raises(EnvelopeError, match=f"^{told}"):
            check_run(bad)

    def test_nothing_is_a_run_too(self) -> None:
        check_run(b"")

    @pytest.mark.parametrize("bad", [CONTROL, RUN[:-1]])
    def test_in_pieces(self, bad: bytes) -> None:
        assembly = Assembly(EVERY)
        *first, last = envelope(bad).cut(20)
        assert add(assembly, first) == []
        with pytest.raises(EnvelopeError):
            assembly.add("a", last, 1)
        assert not assembly.begun

    def test_control_in_a_share(self) -> None:
        share = shares(message(20))[0]
        order = share.payload[-8:]
        with pytest.raises(EnvelopeError, match="what is at byte 0 is control"):
            Assembly(EVERY).add("a", share._replace(payload=CONTROL + order), 1)

    @pytest.mark.parametrize("change", [-1, 1, 3, 100, 1 << 31])
    def test_an_order_of_another_length(self, change: int) -> None:
        assembly = Assembly(EVERY)
        share = shares(message(20) + message(20))[0]
        changed = share.share._replace(order=share.share.order + change)
        with pytest.raises(EnvelopeError):
            assembly.add("a", share._replace(share=changed), 1)
        assert not assembly.begun

    def test_an_order_of_other_messages(self) -> None:
        assembly = Assembly(EVERY)
        share = shares(message(20) + message(20))[0]
        with pytest.raises(EnvelopeError, match="its order has more messages than it has"):
            assembly.add("a", share._replace(payload=share.payload[len(message(20)) :]), 1)
        assert not assembly.begun
        assert add(assembly, shares(RUN)) == [RUN]


@given(st.integers(0, 1 << 32))
def test_whatever_is_killed_in_the_middle(seed: int) -> None:
    """Several relays publish in whatever way, and begin again what was not stored as a whole."""
    chance = random.Random(seed)
    types = frozenset(chance.sample(range(20, 25), chance.choice((0, 0, 1, 2))))
    assembly = Assembly(types)
    relays = {name: stored(chance) for name in "abc"[: chance.randint(1, 3)]}
    found: dict[str, list[bytes]] = {name: [] for name in relays}
    left = {name: list(envelopes) for name, (_, envelopes) in relays.items()}
    while left:
        name = chance.choice(sorted(left))
        found[name] += add(assembly, [left[name].pop(0)], name)
        if not left[name]:
            del left[name]
    for name, (sent, _) in relays.items():
        expected = wanted(sent, types) if types else sent
        assert b"".join(found[name]) == expected
    assert not assembly.begun


def stored(chance: random.Random) -> tuple[bytes, list[Envelope]]:
    """Return what a relay sent, and what is in the stream of that: each share once, pieces again.

    Its bridge is killed now and then before a share is stored as a whole.
    """
    sent, envelopes = b"", list[Envelope]()
    for begin in range(chance.randint(1, 4)):
        run = b"".join(
            message(*chance.sample(range(20, 25), chance.randint(1, 2)), sequence=number)
            for number in range(chance.randint(1, 8))
        )
        sent += run
        for share in shares(run, begin):
            while chance.random() < 0.3:
                cut = share.cut(chance.choice((10, 50, 200)))
                envelopes += cut[: chance.randrange(len(cut))]
            envelopes += share.cut(chance.choice((10, 50, 200, 10_000)))
    return sent, envelopes


class TestAnotherWay:
    """A relay's bridge is killed in the middle of a run, and goes on in another way."""

    def test_from_whole_runs_to_shares(self) -> None:
        assembly = Assembly(EVERY)
        add(assembly, envelope(RUN).cut(50)[:2])
        assert add(assembly, shares(RUN)) == [RUN]
        assert not assembly.begun

    def test_from_shares_to_whole_runs(self) -> None:
        assembly = Assembly(EVERY)
        add(assembly, shares(RUN)[:1])
        assert add(assembly, [envelope(RUN)]) == [RUN]
        assert not assembly.begun

    def test_the_first_share_is_gone(self) -> None:
        assembly = Assembly(EVERY)
        for behind in shares(RUN)[1:]:
            with pytest.raises(MissingError):
                assembly.add("a", behind, 1)
        assert add(assembly, shares(OTHER, 1)) == [OTHER]


class TestNothing:
    """What has no messages at all."""

    def test_an_empty_share(self) -> None:
        assembly = Assembly(EVERY)
        empty = shares(message(20))[0]._replace(payload=b"")
        for _ in range(2):
            with pytest.raises(EnvelopeError, match="there is nothing in it"):
                assembly.add("a", empty, 1)
        assert not assembly.begun

    def test_shares_without_messages(self) -> None:
        assembly = Assembly(EVERY)
        one = shares(message(20))[0]
        nothing = one._replace(payload=bytes(8), share=one.share._replace(order=1))  # type: ignore[union-attr]
        for _ in range(2):
            with suppress(EnvelopeError):
                assert assembly.add("a", nothing, 1) == b""
            assert not assembly.begun

    def test_an_empty_run(self) -> None:
        assembly = Assembly(EVERY)
        with pytest.raises(EnvelopeError, match="there is nothing in it"):
            assembly.add("a", envelope(b""), 1)
        assert not assembly.begun
