"""Large messages that have come in part, and the room they share."""

import pytest

from alphapulse_relay.hub.gathering import LEAST_GROWTH, Gathering, NoRoomError, Room

SIZE = 10 * LEAST_GROWTH


def put(gathering: Gathering, data: bytes) -> None:
    while data:
        space = gathering.space()
        length = min(len(space), len(data))
        space[:length] = data[:length]
        gathering.took(length)
        data = data[length:]


def test_holds_what_has_come() -> None:
    data = bytes(number % 251 for number in range(SIZE))
    gathering = Gathering(Room(), memoryview(data[:100]), SIZE)
    put(gathering, data[100:-1])
    assert not gathering.whole
    put(gathering, data[-1:])
    assert gathering.whole
    assert gathering.end() == data


def test_never_has_space_beyond_the_message() -> None:
    gathering = Gathering(Room(), memoryview(bytes(100)), 150)
    assert len(gathering.space()) == 50


def test_takes_room_as_bytes_come_and_gives_it_back() -> None:
    room = Room(SIZE)
    gathering = Gathering(room, memoryview(bytes(100)), SIZE)
    assert room.free == SIZE - 100 - LEAST_GROWTH
    put(gathering, bytes(SIZE - 100))
    assert room.free == 0
    gathering.end()
    assert room.free == SIZE


def test_without_room_nothing_is_taken() -> None:
    room = Room(LEAST_GROWTH)
    with pytest.raises(NoRoomError):
        Gathering(room, memoryview(bytes(100)), SIZE)
    assert room.free == LEAST_GROWTH


def test_all_share_the_room() -> None:
    room = Room(3 * LEAST_GROWTH)
    one = Gathering(room, memoryview(bytes(100)), SIZE)
    two = Gathering(room, memoryview(bytes(100)), SIZE)
    with pytest.raises(NoRoomError):
        put(two, bytes(2 * LEAST_GROWTH))
    one.end()
    assert room.free > LEAST_GROWTH
    two.end()
    assert room.free == 3 * LEAST_GROWTH
