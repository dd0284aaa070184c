"""How the relay does, in one line for people."""

from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.journal import Journal


class Summary:
    """How the relay does, in one line: its peers, its rate since the last one, its journal."""

    def __init__(self, hub: SignalRelayFactory, journal: Journal | None) -> None:
        self._hub = hub
        self._journal = journal
        self._at = hub.clock.seconds()
        self._messages = 0

    def __call__(self) -> str:
        """Return the line."""
        hub, journal = self._hub, self._journal
        peers = len(tuple(hub.peers))
        parts = [f"{peers} {'peer' if peers == 1 else 'peers'}", f"{self._rate():,.0f} messages/s"]
        if journal is not None:
            parts.append(f"journal of {journal.pool.disk_bytes >> 20} MiB")
            if journal.failure is not None:
                parts.append(f"failing: {journal.failure}")
        return ", ".join(parts)

    def _rate(self) -> float:
        now, messages = self._hub.clock.seconds(), self._hub.counters.messages_received
        seconds, number = now - self._at, messages - self._messages
        self._at, self._messages = now, messages
        return number / seconds if seconds > 0 else 0.0
