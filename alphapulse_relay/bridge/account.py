"""What a bridge has done, and how it stands: plain numbers, for metrics and status."""

from dataclasses import dataclass, field
from enum import StrEnum


class Loss(StrEnum):
    """Why messages do not cross. The word is the same in log, metrics and documents."""

    RELAY_GAP = "relay_gap"
    """The relay's journal no longer had them when the bridge came to it, or could not read them."""
    STREAM_GAP = "stream_gap"
    """The stream no longer had them when the bridge came to them."""
    REFUSED = "refused"
    """The relay here does not take them: its rules, or their size."""
    FOREIGN = "foreign"
    """They were in the stream, but no bridge has made them."""


@dataclass
class Way:
    """One way: counts since the start, and why it stands still, if it does."""

    messages: int = 0
    bytes: int = 0
    stored_bytes: int = 0
    """What the messages take in NATS, compressed or not, but for headers."""
    runs: int = 0
    repeated: int = 0
    """Messages that were not sent, as they had already arrived before a break."""
    waiting_messages: int = 0
    """Outward those that came from the relay; inward NATS messages that are in the stream."""
    waiting_bytes: int = 0
    waiting_since: float = 0.0
    """When the oldest came that waits, in seconds since 1970; 0 if none does."""
    crossing_seconds: float = 0.0
    """Age of what crossed last, when it had crossed."""
    trouble: str | None = "not begun yet"
    """Why nothing crosses; None if it does."""

    def waited(self, now: float) -> float:
        """Return the age, in seconds, of the oldest that waits; 0 if none does."""
        return max(now - self.waiting_since, 0.0) if self.waiting_since else 0.0


@dataclass
class Account:
    """Both ways, and what is about neither alone."""

    outward: Way = field(default_factory=Way)
    inward: Way = field(default_factory=Way)
    round_trip: float = 0.0
    """Seconds that the last publish to NATS took to be acknowledged."""
    own: int = 0
    """NATS messages of this bridge's own relay that came back, and were passed over."""
    filtered: int = 0
    """Messages that came, and the filter does not want."""
    lost: dict[Loss, int] = field(default_factory=lambda: dict.fromkeys(Loss, 0))
    """Events, not messages, where it is not known how many."""
