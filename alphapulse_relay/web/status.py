"""The relay's state as one JSON document, for people and their scripts.

Its shape is told in ``docs/operations.md``; keys are only ever added.
"""

import os
import pwd
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from alphapulse_relay import __version__
from alphapulse_relay.hub.counters import Counters
from alphapulse_relay.hub.factory import BUILD, Departure, SignalRelayFactory
from alphapulse_relay.hub.peer import Identity, Peer, State
from alphapulse_relay.protocol_v2.control import Subscribe
from alphapulse_relay.web.journal import fsync_of, journal_of, segments_of

USERS_KEPT = 1000
"""Users whose names are remembered: to look one up may take a question over the network."""


@dataclass
class SettingsRead:
    """When the settings in force were read, in seconds since the epoch.

    ``restart`` names the options that have other values by then, which need a restart.
    """

    at: float = field(default_factory=time.time)
    restart: list[str] = field(default_factory=list)


class Status:
    """Describes a hub. The relay counts as started when this is made."""

    def __init__(self, hub: SignalRelayFactory, settings: SettingsRead) -> None:
        self._hub = hub
        self._settings = settings
        self._started_at = time.time()
        self._started = hub.clock.seconds()

    def describe(self, *, ready: bool) -> dict[str, Any]:
        """Return the document: times in seconds, sizes in bytes."""
        hub = self._hub
        now = hub.clock.seconds()
        return {
            "version": __version__,
            "build": BUILD,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "uptime_seconds": now - self._started,
            "ready": ready,
            "settings": {"read_at": self._settings.at, "restart": self._settings.restart},
            "counters": _counters(hub),
            "log": _log(hub),
            "journal": _journal(hub),
            "held": hub.pace.held,
            "limited": hub.accounts.held,
            "peers": [_peer(peer, now) for peer in hub.peers],
            "departed": [_departure(departure) for departure in hub.departed],
        }


def _counters(hub: SignalRelayFactory) -> dict[str, Any]:
    counters = hub.counters
    return {
        "messages_received": counters.messages_received,
        "bytes_received": counters.bytes_received,
        "messages_delivered": hub.messages_delivered,
        "bytes_delivered": hub.bytes_delivered,
        "messages_replayed": hub.messages_replayed,
        "dropped": counters.dropped,
        "last_dropped": {
            reason: {"at": last.at, "peer": str(last.identity), "detail": last.detail}
            for reason, last in hub.report.last_dropped.items()
        },
        "missed": counters.missed,
        "connections": {
            "accepted": counters.accepted,
            "refused": counters.refused,
            "ended": counters.ended,
        },
        "tlv_messages": {str(number): n for number, n in enumerate(counters.types) if n},
        "malformed": counters.malformed[0],
        "held_seconds": hub.pace.held_seconds,
        "limited": counters.limited,
        "sources": {str(number): n for number, n in enumerate(counters.sources) if n},
        "sequences": _sequences(counters),
    }


def _sequences(counters: Counters) -> dict[str, dict[str, int]]:
    """Return what the numbers of publishers tell, of those that are not in perfect order."""
    found = zip(counters.sequences_missing, counters.sequences_repeated, strict=True)
    return {
        str(number): {"missing": missing, "repeated": repeated}
        for number, (missing, repeated) in enumerate(found)
        if missing or repeated
    }


def _log(hub: SignalRelayFactory) -> dict[str, Any]:
    log = hub.log
    return {
        "epoch": str(log.epoch),  # many readers of JSON round numbers beyond 2^53
        "head": log.head,
        "tail": log.tail,
        "window": log.window,
        "segments": segments_of(hub),
    }


def _journal(hub: SignalRelayFactory) -> dict[str, Any] | None:
    journal = journal_of(hub)
    if journal is None:
        return None
    return {
        "directory": str(journal.directory),
        "size": journal.size,
        "bytes": journal.pool.disk_bytes,
        "failure": journal.failure,
        "failures": journal.failures,
        "damages": journal.pager.damage,
        "fsync": fsync_of(journal),
        "synced": journal.sync.synced,
        "sync_failures": journal.sync.failures,
    }


@lru_cache(USERS_KEPT)
def _user(uid: int | None) -> str | None:
    """Return the user's name, None for one without."""
    try:
        return None if uid is None else pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return None


def _identity(identity: Identity) -> dict[str, Any]:
    return {
        "number": identity.number,
        "transport": identity.transport,
        "pid": identity.pid,
        "uid": identity.uid,
        "gid": identity.gid,
        "user": _user(identity.uid),
        "name": identity.program,
        "address": identity.address,
        "certificate": identity.certificate,
    }


def _peer(peer: Peer, now: float) -> dict[str, Any]:
    return {
        **_identity(peer.identity),
        "client_name": peer.name or None,
        "rule": None if peer.account is None else peer.account.rule.name,
        "limited": peer.account is not None and peer.account.held,
        "state": peer.state,
        "replaying": peer.cursor.replaying,
        "filter": _filter(peer.asked),
        "connected_seconds": now - peer.connected_at,
        "messages_in": peer.messages_in,
        "bytes_in": peer.bytes_in,
        "messages_out": peer.cursor.messages_out,
        "bytes_out": peer.cursor.bytes_out,
        "position": None if peer.cursor.away else peer.cursor.position,
        "bytes_behind": peer.cursor.behind,
        "queued_bytes": peer.delivery.queued,
        "messages_missed": peer.cursor.missing if peer.state is State.MUTED else 0,
    }


def _filter(asked: Subscribe) -> dict[str, list[int]] | None:
    """Return what of the messages it wants; None for all."""
    if not asked.types and not asked.sources:
        return None
    return {"types": sorted(asked.types), "sources": sorted(asked.sources)}


def _departure(departure: Departure) -> dict[str, Any]:
    return {
        **_identity(departure.identity),
        "reason": departure.reason,
        "at": departure.at,
        "messages_in": departure.messages_in,
        "messages_out": departure.messages_out,
    }
