"""Large messages that have come in part, kept apart until they are whole.

Knows how memory for them is taken and given back; what is in them it does not know.
"""

GATHERED_MAX = 256 * 1024 * 1024
"""Bytes that the parts of all publishers may take together: 256 of the largest messages, by
default. A limit for each alone would be none for those who open many connections."""
LEAST_GROWTH = 64 * 1024
"""Bytes by which the memory for a message grows at least: what is received at once."""


class NoRoomError(Exception):
    """All the memory there is for parts of messages is taken."""


class Room:
    """Memory in bytes that all who gather share."""

    def __init__(self, size: int = GATHERED_MAX) -> None:
        self.free = size

    def take(self, size: int) -> None:
        """Take so much. Raises :class:`NoRoomError`, and takes nothing, if there is less."""
        if size > self.free:
            raise NoRoomError
        self.free -= size

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        self.free += size


class Gathering:
    """A message of ``size`` bytes, of which the first have come. Raises :class:`NoRoomError`."""

    def __init__(self, room: Room, first: memoryview, size: int) -> None:
        self._room = room
        self._size = size
        self._memory = bytearray()
        self.length = 0
        """How many of its bytes are here."""
        self._grow(len(first))
        self._memory[: len(first)] = first
        self.length = len(first)

    @property
    def whole(self) -> bool:
        """Whether all of it is here."""
        return self.length == self._size

    def space(self) -> memoryview:
        """Return where the next bytes belong; as much as there is, never beyond the message."""
        return memoryview(self._memory)[self.length :]

    def took(self, length: int) -> None:
        """Take note of bytes that were put there. Raises :class:`NoRoomError`."""
        self.length += length
        if self.length == len(self._memory) and not self.whole:
            self._grow(self.length)

    def end(self) -> bytearray:
        """Return what is here, and give its memory back."""
        self._room.give_back(len(self._memory))
        memory, self._memory = self._memory, bytearray()
        return memory

    def _grow(self, length: int) -> None:
        """Make room for more behind ``length``: no more than has come, or all that is missing.

        So what a peer has only announced takes no memory.
        """
        size = min(length + max(length, LEAST_GROWTH), self._size)
        self._room.take(size - len(self._memory))
        grown = bytearray(size)
        grown[: self.length] = self._memory
        self._memory = grown
