"""What can be wrong with bytes from a peer, each with one name."""

from enum import StrEnum
from typing import Self


class Rejection(StrEnum):
    """Why a message was not accepted: the same word in code, log, metric label and docs."""

    MAGIC = "magic"
    """The four bytes where a message must begin are not the magic. Ends the stream."""
    SIZE = "size"
    """The message would be larger than the limit. Ends the stream."""
    CHECKSUM = "checksum"
    """The CRC-32 does not match, or is missing where it is required."""
    DOMAIN = "domain"
    """The relay domain is not one that is accepted here."""
    FORBIDDEN = "forbidden"
    """The relay domain, or the source, is not one that this publisher may use."""
    TLV = "tlv"
    """A TLV is malformed or of a type that is not allowed (only checked at level ``strict``)."""
    COMPRESSION = "compression"
    """The payload is marked as compressed and cannot be expanded, or not within the limit."""
    CONTROL = "control"
    """A control message that cannot be read, or asks for what cannot be had."""
    READ_ONLY = "read_only"
    """It came from a WebSocket peer that may only read."""
    TORN = "torn"
    """The connection ended inside the message."""


class WireError(ValueError):
    """Bytes that are not Protocol V2, or not what is accepted here.

    ``reason`` names the rule that was broken; ``offset`` is where, in bytes from the start of the
    buffer that was read; ``detail`` tells a person what was found and what was expected.
    """

    def __init__(self, reason: Rejection, offset: int, detail: str) -> None:
        super().__init__(f"{reason} at byte {offset}: {detail}")
        self.reason = reason
        self.offset = offset
        self.detail = detail

    def moved(self, by: int) -> Self:
        """Return the same with an offset counted from ``by`` bytes further ahead."""
        return type(self)(self.reason, self.offset + by, self.detail)
