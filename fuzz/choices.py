"""What a fuzzer has made up, read as choices.

Read from the first byte to the last, so that a seed can be written by hand, and what is put in
behind a choice changes none before it.
"""


class Choices:
    """The bytes; where nothing is left, zeros. True as long as there are any."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        """Return the next byte."""
        at = self._at
        self._at = at + 1
        return self._data[at] if at < len(self._data) else 0

    def number(self, size: int) -> int:
        """Return an unsigned number of so many bytes, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        """Return so many bytes, or what is left."""
        at = self._at
        self._at = at + size
        return self._data[at : at + size]

    def rest(self) -> bytes:
        """Return what is left."""
        return self.take(len(self._data))
