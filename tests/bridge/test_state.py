"""What a bridge remembers, in a file that is always whole."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from alphapulse_relay.bridge.state import State, StateError, StateFile

STATE = State("1:2:3:4", "1:1:0:4", "then", 5, 5.5, 6, 7, 8, {"third": 4}, {"other": "a:1:0:0"})


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


def test_when_it_was_saved_before_this_process(tmp_path: Path) -> None:
    path = tmp_path / "state"
    StateFile(path).save()
    os.utime(path, (1000, 1000))
    file = loaded(path)
    file.save()
    file.load()
    assert file.saved == 1000


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
    path.write_text(json.dumps(vars(STATE) | changed))
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
    with pytest.raises(StateError, match="cannot be written: no such directory"):
        loaded(tmp_path / "nowhere" / "state")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=f"^{tmp_path} cannot be read: Is a directory$"):
        loaded(tmp_path)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = loaded(path)
    file.save()
    (tmp_path / "state.new").mkdir()
    file.state = STATE
    with pytest.raises(StateError, match="cannot be written: Is a directory"):
        file.save()
    assert loaded(path).state == State()
