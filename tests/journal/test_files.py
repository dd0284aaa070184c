"""Two files as memory, whatever is left of them."""

import os

import pytest

from alphapulse_relay.journal.files import map_slot
from alphapulse_relay.journal.format import PAGE, data_path, index_path, index_size
from tests.journal.writer import SIZE, Segment, messages, save


@pytest.fixture
def made(tmp_path) -> Segment:
    segment = Segment(3).fill(messages(10))
    save(tmp_path, segment)
    return segment


@pytest.mark.parametrize("writable", [True, False])
def test_whole_files(tmp_path, made, writable):
    maps = map_slot(tmp_path, 3, writable=writable)
    assert (maps.data[:], maps.index[:], maps.short) == (made.data, made.index, [])
    maps.data[0] ^= 1
    maps.close()
    assert (data_path(tmp_path, 3).read_bytes() == made.data) is not writable


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("size", [None, 0, 1, PAGE, SIZE, SIZE + PAGE - 1])
def test_data_that_is_short(tmp_path, made, writable, size):
    path = data_path(tmp_path, 3)
    path.unlink() if size is None else path.write_bytes(made.data[:size])
    maps = map_slot(tmp_path, 3, writable=writable)
    kept = made.data[: size or 0]
    assert maps.data[:] == kept + bytes(len(made.data) - len(kept))
    assert maps.short == ["0003.v2"]
    assert maps.index[:] == made.index


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("size", [None, 0, 63, PAGE, PAGE + 1, 2 * PAGE - 1])
def test_index_that_is_short(tmp_path, made, writable, size):
    path = index_path(tmp_path, 3)
    path.unlink() if size is None else path.write_bytes(made.index[:size])
    maps = map_slot(tmp_path, 3, writable=writable)
    kept = made.index[: size or 0]
    assert maps.index[:] == kept + bytes(len(made.index) - len(kept))
    assert maps.short == ["0003.index"]
    assert path.exists() == (writable or size is not None)


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("path", [data_path, index_path])
def test_a_pipe_is_not_waited_for(tmp_path, made, writable, path):
    path(tmp_path, 3).unlink()
    os.mkfifo(path(tmp_path, 3))
    with pytest.raises(OSError, match="Not a regular file"):
        map_slot(tmp_path, 3, writable=writable)


@pytest.mark.parametrize("pages", range(10, 200))
def test_index_beside_data(pages):
    """A fifth of a slot, as the relay makes them, is never taken for short."""
    index = max(pages // 5, 2)
    assert 0 <= index * PAGE - index_size((pages - index) * PAGE) <= PAGE
