"""What an address asks of ``/signals``."""

from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.protocol_v2.control import Start, Subscribe, Wish
from alphapulse_relay.web.query import Format, Query, QueryError, parse_query

SKIP = Wish.SKIP_WHEN_BEHIND


def parse(text: str) -> Query:
    return parse_query(parse_qs(text, keep_blank_values=True))


def test_nothing_asks_for_everything_live_and_to_be_moved_on() -> None:
    assert parse("") == Query(Subscribe(SKIP), Format.BINARY, 0)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("types=21", Subscribe(SKIP, types=frozenset({21}))),
        ("types=21,22,0,254", Subscribe(SKIP, types=frozenset({0, 21, 22, 254}))),
        ("sources=0,255", Subscribe(SKIP, sources=frozenset({0, 255}))),
        ("name=desk", Subscribe(SKIP, name="desk")),
        ("name=b%C3%BCro+2", Subscribe(SKIP, name="büro 2")),
        ("last=100", Subscribe(SKIP, Start.LAST, 100)),
        ("since=1795398161", Subscribe(SKIP, Start.TIME, 1_795_398_161_000_000_000)),
        ("since=1795398161.25", Subscribe(SKIP, Start.TIME, 1_795_398_161_250_000_000)),
        ("since=1795398161.1234567899", Subscribe(SKIP, Start.TIME, 1_795_398_161_123_456_789)),
        ("since=1970-01-01T00:00:01", Subscribe(SKIP, Start.TIME, 1_000_000_000)),
        ("since=1970-01-01T01:00:00%2B01:00", Subscribe(SKIP, Start.TIME, 0)),
        ("since=1969-01-01", Subscribe(SKIP, Start.TIME, 0)),
        ("position=7:216680", Subscribe(SKIP, Start.POSITION, 216_680, epoch=7)),
        (
            f"position={2**64 - 1}:{2**64 - 1}",
            Subscribe(SKIP, Start.POSITION, 2**64 - 1, epoch=2**64 - 1),
        ),
        ("behind=skip", Subscribe(SKIP)),
        ("behind=wait", Subscribe()),
        (
            "wishes=positions,heartbeats&behind=wait",
            Subscribe(Wish.POSITIONS | Wish.HEARTBEATS),
        ),
        ("wishes=stop-at-head,acknowledge", Subscribe(SKIP | Wish.STOP_AT_HEAD | Wish.ACKNOWLEDGE)),
    ],
)
def test_what_is_asked_for(text: str, asked: Subscribe) -> None:
    assert parse(text) == Query(asked, Format.BINARY, 0)


def test_the_form() -> None:
    assert parse("format=json&sample=100") == Query(Subscribe(SKIP), Format.JSON, 100)
    assert parse("format=binary").format is Format.BINARY


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("type=21", "'type' is not known, but types, sources,"),
        ("types=21&types=22", "types is given 2 times"),
        ("types=", "types='' is not numbers from 0 to 254"),
        ("types=255", "types='255' is not numbers from 0 to 254"),
        ("types=21-39", "types='21-39' is not numbers"),
        ("types=%D9%A1", "is not numbers"),
        ("sources=256", "sources='256' is not numbers from 0 to 255"),
        ("sources=" + ",".join(map(str, range(256))), "is not 255 numbers at most"),
        ("last=0", "last='0' is not a whole number from 1"),
        ("last=-1", "last='-1' is not a whole number"),
        ("since=yesterday", "since='yesterday' is not unix seconds, or a time such as"),
        ("since=nan", "since='nan' is not unix seconds"),
        ("since=99999-01-01", "is not unix seconds"),
        ("position=5", "position='5' is not an epoch and a position"),
        (f"position=1:{2**64}", "is not an epoch and a position"),
        ("name=", "name='' is not a printable name"),
        ("name=a%0Ab", "is not a printable name"),
        ("name=" + "ü" * 128, "is not a printable name of at most 255 bytes"),
        ("wishes=zstd", "wishes='zstd' is not among positions, stop-at-head"),
        ("behind=catch", "behind='catch' is not skip or wait"),
        ("format=xml", "format='xml' is not binary or json"),
        ("sample=0", "sample='0' is not a whole number from 1 to 1000"),
        ("sample=1001", "sample='1001' is not a whole number"),
        ("last=5&since=0", "last and since are given"),
    ],
)
def test_what_is_wrong_is_named(text: str, complaint: str) -> None:
    with pytest.raises(QueryError, match=r"^[^\n]*$") as caught:
        parse(text)
    assert complaint in str(caught.value)


NAMES = st.sampled_from(
    ["types", "sources", "last", "since", "position", "name", "format", "behind", "wishes"]
)


@given(st.dictionaries(NAMES | st.text(), st.lists(st.text(), min_size=1, max_size=2), max_size=4))
def test_any_query_is_understood_or_refused_in_one_line(parameters: dict[str, list[str]]) -> None:
    said = ""
    try:
        parse_query(parameters)
    except QueryError as error:
        said = str(error)
    assert said.isprintable()
