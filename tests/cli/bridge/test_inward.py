"""From where on messages of the stream would come."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats")

from alphapulse_relay.cli.bridge.inward import check_inward
from alphapulse_relay.cli.words import Failure
from tests.cli.bridge.looking import MADE, consumer, ends, remember, stream
from tests.cli.doctor.subjects import found, only

CREATED = str(MADE)


def check(directory: Path, view: Any, **state: Any) -> list[tuple[str, str]]:
    one = ends(directory, view)
    return found(check_inward, remember(one, **state) if state else one)


def test_a_first_start(tmp_path: Path) -> None:
    ((verdict, text),) = check(tmp_path, stream())
    assert verdict == "ok"
    assert text.startswith("a first start: what comes behind message 10, the last now")


@pytest.mark.parametrize(("done", "acknowledged", "expected"), [(7, 8, 8), (9, 8, 9)])
def test_the_later_one_counts(tmp_path: Path, done: int, acknowledged: int, expected: int) -> None:
    view = stream(consumer=consumer(acknowledged, 1234))
    ((_, text),) = check(tmp_path, view, created=CREATED, done=done)
    assert text == (
        f"would go on behind message {expected}: 1,234 NATS messages to come for consumer desk"
    )


def test_a_bridge_that_runs(tmp_path: Path) -> None:
    view = stream(consumer=consumer(10, 0, asks=1))
    ((_, text),) = check(tmp_path, view, created=CREATED, done=10)
    assert text.endswith("and a bridge asks for more just now")


def test_the_consumer_has_gone(tmp_path: Path) -> None:
    ((_, text),) = check(tmp_path, stream(), created=CREATED, done=7)
    assert text == "would go on behind message 7, 3 before the last: no consumer yet"


def test_the_file_has_gone(tmp_path: Path) -> None:
    ((_, text),) = check(tmp_path, stream(consumer=consumer(8, 2)))
    assert text.startswith("would go on behind message 8: 2 NATS messages to come")


def test_what_the_stream_has_no_more(tmp_path: Path) -> None:
    _, (verdict, text) = check(tmp_path, stream(), created=CREATED, done=3)
    assert verdict == "note"
    assert text.startswith("messages 4 to 5 are not in the stream any more")


@pytest.mark.parametrize(("caught_up", "expected"), [(0, "4 to 5"), (4, "5 to 5"), (8, "")])
def test_what_by_types_the_stream_has_no_more(
    tmp_path: Path, caught_up: int, expected: str
) -> None:
    """NATS counts what is gone as acknowledged; whether it had come the bridge remembers."""
    view = stream(consumer=consumer(5, 5))
    one = remember(
        ends(tmp_path, view, take_types="21"), created=CREATED, done=3, caught_up=caught_up
    )
    (_, told), *gone = found(check_inward, one)
    assert told.startswith("would go on behind message 5")
    assert [text.partition(" are not")[0] for _, text in gone] == (
        [f"messages {expected}"] if expected else []
    )


def test_a_run_that_is_not_whole(tmp_path: Path) -> None:
    view = stream(consumer=consumer(9, 1))
    ((_, text),) = check(tmp_path, view, created=CREATED, done=9, parts={"b": 9, "c": 7})
    assert text == (
        "would go on behind message 6, where a run begins that has not come as a whole: 1 NATS "
        "message to come for consumer desk"
    )


@pytest.mark.parametrize("acknowledged", [9, None])
def test_a_stream_that_has_lost_its_end(tmp_path: Path, acknowledged: int | None) -> None:
    view = stream(consumer=None if acknowledged is None else consumer(acknowledged, 1))
    one = remember(ends(tmp_path, view), created=CREATED, done=9, stored=5.0, parts={"b": 7})
    asked = []
    vars(one)["same_until"] = lambda _, *what: asked.append(what) or 8
    finding = only(check_inward, one)
    assert asked == [(9, 5.0)]
    assert (finding.verdict, finding.what) == (
        "note",
        "the stream has lost what it had behind message 8 when 9 had come: what it has there now, "
        "2 at most, is new and would come",
    )


def test_a_stream_that_is_what_it_was(tmp_path: Path) -> None:
    one = remember(ends(tmp_path, stream()), created=CREATED, done=9, stored=5.0)
    vars(one)["same_until"] = lambda *_: 9
    assert only(check_inward, one).what.startswith("would go on behind message 9, 1 before")


def test_it_cannot_be_known_what_the_stream_was(tmp_path: Path) -> None:
    one = remember(ends(tmp_path, stream()), created=CREATED, done=9, stored=5.0)

    def fail(*_: Any) -> int:
        raise Failure("no answer")

    vars(one)["same_until"] = fail
    finding = only(check_inward, one)
    assert finding.verdict == "note"
    assert finding.what == "whether the stream is what it was is not known: no answer"


def test_an_end_that_was_lost_before_anything_came(tmp_path: Path) -> None:
    """Then nobody knows when the last was stored, and the bridge does not look."""
    ((verdict, text),) = check(tmp_path, stream(), created=CREATED, done=11)
    assert verdict == "note"
    assert text == (
        "message 11 has come here, and the stream ends at 10: it lost its end, and what it is "
        "given up to 11 would not come"
    )


def test_a_stream_that_was_made_before_is_another_ones(tmp_path: Path) -> None:
    given = {"created": "another", "done": 3, "gone": MADE.timestamp() + 1}
    ((_, text),) = check(tmp_path, stream(), **given)
    assert "a first start" in text


def test_a_stream_that_was_made_since_is_taken_as_a_whole(tmp_path: Path) -> None:
    one = remember(ends(tmp_path, stream(state={"first_seq": 1})), created="another", done=3)
    one.file.state.gone = MADE.timestamp() - 1  # type: ignore[union-attr]
    assert only(check_inward, one).what.startswith("would go on behind message 0, 10 bef")
