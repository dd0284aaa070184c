"""The journal of a hub, for those who show it: whether there is one, and how its log lies."""

from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.file_segment import FileSegment
from alphapulse_relay.hub.journal import Journal


def journal_of(hub: SignalRelayFactory) -> Journal | None:
    """Return the hub's journal; None where its log lies in memory by choice."""
    storage = hub.log.storage
    return storage if isinstance(storage, Journal) else None


def segments_of(hub: SignalRelayFactory) -> dict[str, int]:
    """Return how many of the log's segments lie in files, and how many in memory."""
    files = sum(isinstance(each, FileSegment) for each in hub.log.segments)
    return {"files": files, "memory": len(hub.log.segments) - files}


def fsync_of(journal: Journal) -> str:
    """Return when the journal is synced, as ``--fsync`` has it."""
    sync = journal.sync
    if sync.immediate:
        return "always"
    return "never" if sync.every is None else f"{sync.every:g}"
