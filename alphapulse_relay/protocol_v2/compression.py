"""Compressed messages: the payload as one zstd frame, marked by bit 0 of the header's flags.

The rest of the header is the plain message's, but for the payload's size and the checksum. What
comes from a peer is expanded in bounded memory, whatever its frame claims.
"""

import threading

import zstandard

from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.header import (
    CHECKSUM_OFFSET,
    HEADER_SIZE,
    VERSION,
    Domain,
    Flags,
    Header,
    checksum,
)

LEVEL = 1
"""Of zstd: 3, its default, makes signals no smaller, and takes twice as long for large ones."""
RATIO_MAX = 256
"""How many times larger than its frame a payload may be: signals shrink to a half or a tenth. So
what comes in one piece of 64 KiB is 16 MiB at most."""
WINDOW_MAX = 8 << 20
"""Most bytes of its own output that a frame may look back on, and so that expanding one takes
beside the message. RFC 8878 (3.1.1.1.2) asks decoders for as much."""

_VERSION_OFFSET = 5
_FLAGS_OFFSET = 7


class _Codecs(threading.local):
    """zstd's contexts: costly to make, and not to be used by two threads at once."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)


_codecs = _Codecs()


def is_compressed(message: bytes | bytearray | memoryview) -> bool:
    """Tell whether a message, of which the header is there, has a compressed payload.

    A legacy writer's never has: there byte 7 is not flags.
    """
    return message[_VERSION_OFFSET] == VERSION and bool(message[_FLAGS_OFFSET] & Flags.ZSTD)


def compress(message: bytes) -> bytes | None:
    """Return a whole message with its payload compressed; None where that is no smaller.

    None also for what cannot be marked as compressed, or is already: legacy writers' messages,
    control. The checksum is always set: :func:`expand` gives back the very same message if it had
    one, and one that had 0 comes back with the right one.
    """
    header = Header.unpack(message)
    if header.legacy or header.flags & Flags.ZSTD or header.domain == Domain.SYSTEM:
        return None
    frame = _codecs.compressor.compress(message[HEADER_SIZE:])
    if not len(frame) < header.payload_size <= RATIO_MAX * len(frame):
        return None
    return _with_payload(header, frame, header.flags | Flags.ZSTD, with_checksum=True)


def expand(message: bytes, max_message: int) -> bytes:
    """Return the plain form of a whole message for which :func:`is_compressed` holds.

    Its checksum is set if the compressed message's is. Raises
    :class:`~alphapulse_relay.protocol_v2.errors.WireError` (``compression``, offset 0) if the
    payload is not exactly one zstd frame, if the frame needs a dictionary or more than
    :data:`WINDOW_MAX`, or if the plain message would have more than ``max_message`` bytes, or its
    payload :data:`RATIO_MAX` times the frame's. Takes no more memory than these, whatever the frame
    claims.
    """
    header = Header.unpack(message)
    payload = expand_frame(message[HEADER_SIZE:], max_message - HEADER_SIZE)
    flags = header.flags & ~Flags.ZSTD.value
    return _with_payload(header, payload, flags, with_checksum=header.checksum != 0)


def expand_frame(frame: bytes, most: int) -> bytes:
    """Return what one zstd frame holds, at most so many bytes.

    Raises :class:`~alphapulse_relay.protocol_v2.errors.WireError` as :func:`expand` does.
    """
    if not frame.startswith(zstandard.FRAME_HEADER):
        raise _fault("the payload is not a zstd frame")
    try:
        return _content(frame, min(most, RATIO_MAX * len(frame)))
    except zstandard.ZstdError as error:
        raise _fault(str(error)) from None


def _content(frame: bytes, limit: int) -> bytes:
    size = zstandard.get_frame_parameters(frame).content_size
    if size in {0, zstandard.CONTENTSIZE_UNKNOWN}:
        return _content_of_any_size(frame, limit)
    if size > limit:
        raise _too_large(limit)
    return _codecs.decompressor.decompress(frame, allow_extra_data=False)


def _content_of_any_size(frame: bytes, limit: int) -> bytes:
    with _codecs.decompressor.stream_reader(frame) as reader:
        if len(reader.read(limit + 1)) > limit:
            raise _too_large(limit)
    # Now that it is known to be bounded: this tells whether the frame is whole.
    whole = _codecs.decompressor.decompressobj()
    content = whole.decompress(frame)
    if not whole.eof or whole.unused_data:
        raise _fault("the payload is not one whole zstd frame")
    return content


def _with_payload(header: Header, payload: bytes, flags: int, *, with_checksum: bool) -> bytes:
    header = header._replace(payload_size=len(payload), flags=flags, checksum=0)
    message = header.pack() + payload
    if not with_checksum:
        return message
    crc = checksum(message).to_bytes(4, "little")
    return message[:CHECKSUM_OFFSET] + crc + payload


def _too_large(limit: int) -> WireError:
    return _fault(f"more than the {limit} bytes that a payload may have")


def _fault(detail: str) -> WireError:
    return WireError(Rejection.COMPRESSION, 0, detail)
