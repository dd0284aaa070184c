"""A bridge that is made and does not run: its figures are what a test says."""

from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock

from alphapulse_relay.bridge.bridge import Bridge
from alphapulse_relay.bridge.options import BridgeSettings, settings_from
from alphapulse_relay.bridge.process import BridgeService

RELAY = "/nonexistent/s.sock"


def settings(directory: Path, **options: str) -> BridgeSettings:
    """Return settings of a bridge called desk, with a state file in the directory."""
    given = {"relay": RELAY, "name": "desk", "state": str(directory / "desk.state"), **options}
    return settings_from({name.replace("_", "-"): value for name, value in given.items()}, {})


def make_service(directory: Path, reactor: Any = None, **options: str) -> BridgeService:
    """Return the service; ``reactor`` runs nothing."""
    return BridgeService(settings(directory, **options), {}, reactor or MemoryReactorClock())


def make_ready(bridge: Bridge) -> None:
    """Have nothing be in the way."""
    bridge.link.trouble = bridge.server.trouble = None
    bridge.account.outward.trouble = bridge.account.inward.trouble = None
