"""The bookmark's file: whole at any moment, and never guessed."""

import os
from pathlib import Path

import pytest

from alphapulse_relay.client.bookmark import Bookmark, fingerprint, load_bookmark, save_bookmark
from alphapulse_relay.protocol_v2.control import Start, Subscribe, Wish

OLD = Bookmark(epoch=2**64 - 1, position=100, taken=2, asked=7)
NEW = OLD._replace(position=200)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "risk.bookmark"


def test_comes_back_as_it_was_saved(file):
    save_bookmark(file, OLD)
    save_bookmark(file, NEW)
    assert load_bookmark(str(file)) == NEW
    assert os.listdir(file.parent) == [file.name]


def test_no_file_is_no_bookmark(file):
    assert load_bookmark(file) is None


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_the_old_one_survives_an_end_before_the_rename(file, monkeypatch, call):
    save_bookmark(file, OLD)

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[call], end)
    with pytest.raises(KeyboardInterrupt):
        save_bookmark(file, NEW)
    monkeypatch.undo()
    assert load_bookmark(file) == OLD
    save_bookmark(file, NEW)
    assert load_bookmark(file) == NEW


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1, 2, 3, 4]",
        '{"epoch": 1, "position": 2, "taken": 3}',
        '{"epoch": 1, "position": 2, "taken": -3, "asked": 4}',
        '{"epoch": 1, "position": 2.5, "taken": 3, "asked": 4}',
        '{"epoch": 1, "position": 2, "taken": 3, "asked": 4, "more": 5}',
    ],
)
def test_a_file_that_holds_something_else(file, text):
    file.write_text(text)
    with pytest.raises(ValueError, match="is not a bookmark: it holds"):
        load_bookmark(file)


def test_subscriptions_to_which_the_same_messages_come():
    base = Subscribe(types=frozenset({21, 22}), sources=frozenset({20}), name="a")
    same = Subscribe(Wish.ZSTD, Start.LAST, 5, 6, frozenset({22, 21}), frozenset({20}), "a")
    assert fingerprint(same) == fingerprint(base)


@pytest.mark.parametrize(
    "other",
    [
        Subscribe(types=frozenset({21})),
        Subscribe(sources=frozenset({21})),
        Subscribe(name="21"),
    ],
)
def test_subscriptions_to_which_others_come(other):
    assert fingerprint(other) != fingerprint(Subscribe())
