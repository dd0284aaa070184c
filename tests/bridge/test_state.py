"""What a bridge remembers, in a file that is always whole."""

import json
import os
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from alphapulse_relay.bridge.state import PAGE, State, StateError, StateFile

STATE = State(
    "1:2:3:4",
    "1:2:2:4",
    "1:1:0:4",
    "then",
    3.5,
    5,
    5.5,
    6,
    7,
    8,
    {"third": 4},
    {"other": "a:1:0:0"},
    9,
)


def loaded(path: Path) -> StateFile:
    file = StateFile(path)
    file.load()
    return file


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    file = loaded(tmp_path / "state")
    assert (file.state, file.saved) == (State(), 0)
    file.state = STATE
    file.save()
    assert loaded(tmp_path / "state").state == STATE
    assert os.listdir(tmp_path) == ["state"]


def test_it_is_kept_again_and_again(tmp_path: Path) -> None:
    """Also when there are more relays than there was room for."""
    path, file = tmp_path / "state", loaded(tmp_path / "state")
    for number in range(300):
        file.state.done = number
        file.state.ends[f"relay-{number}"] = "1:2:3:4"
        file.save()
        assert loaded(path).state == file.state
        if number % 50 == 0:
            file = loaded(path)
    assert path.stat().st_size > 2 * PAGE


def test_it_is_torn_anywhere(tmp_path: Path) -> None:
    """The one before it is found then: both are there at any time."""
    path, file = tmp_path / "state", loaded(tmp_path / "state")
    for number in range(1, 5):
        file.state.done = number
        file.save()
        before = path.read_bytes()
        file.state.done = number + 1
        file.save()
        after = path.read_bytes()
        pairs = enumerate(zip(before, after, strict=True))
        cut = random.Random(number).choice([n for n, (one, other) in pairs if one != other])
        path.write_bytes(after[:cut] + before[cut:])
        assert loaded(path).state.done in (number, number + 1)
        path.write_bytes(after)


def test_it_is_moved_away(tmp_path: Path) -> None:
    path, file = tmp_path / "state", loaded(tmp_path / "state")
    file.save()
    path.unlink()
    file.state.done = 5
    file.save()
    assert loaded(path).state.done == 5


def test_when_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "state"
    StateFile(path).save()
    os.utime(path, (1000, 1000))
    assert loaded(path).saved == 1000


@pytest.mark.parametrize(
    "changed",
    [
        {"done": -1},
        {"done": "1"},
        {"done": 1.5},
        {"position": None},
        {"outward": "1:2:3"},
        {"outward": 5},
        {"created": None},
        {"ends": None},
        {"ends": []},
        {"ends": {"other": 5}},
        {"ends": {"other": "somewhere"}},
        {"more": 1},
    ],
)
def test_what_is_no_state(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "state"
    text = json.dumps({"number": 1, **vars(STATE), **changed}).encode().ljust(PAGE - 9)
    path.write_bytes(text + b"%08x\n" % zlib.crc32(text) + b" " * PAGE)
    with pytest.raises(StateError, match="is not a bridge's state: move it away"):
        loaded(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"null", b"\xff", bytes(100)])
def test_what_is_not_even_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(StateError, match="is not a bridge's state: move it away"):
        loaded(path)
    assert path.read_bytes() == content


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=f"written: there is no directory {tmp_path}/nowhere$"):
        loaded(tmp_path / "nowhere" / "state")


def test_a_directory_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(StateError, match="cannot be written: nor can its directory, by this user"):
        loaded(tmp_path / "state")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=f"^{tmp_path} cannot be read: Is a directory$"):
        loaded(tmp_path)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = loaded(path)
    file.save()
    path.rename(tmp_path / "kept")
    path.symlink_to("/dev/full")
    file.state = STATE
    with pytest.raises(StateError, match="cannot be written: No space left on device"):
        file.save()
    assert loaded(tmp_path / "kept").state == State()
