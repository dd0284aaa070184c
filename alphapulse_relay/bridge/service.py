"""The second service: ``twistd signal-relay-bridge``. twistd finds what it needs here.

The rest is imported when it is known that it can be: it needs the client of NATS, and the reactor
that the options choose.
"""

from importlib.util import find_spec

from twisted.application.service import IService

from alphapulse_relay.bridge.options import Options
from alphapulse_relay.bridge.start import exit_with

__all__ = ["Options", "makeService"]

PACKAGES = ("nats", "nkeys")
"""What the relay does without: the client of NATS, and the signatures of its users."""


def makeService(options: Options) -> IService:
    """Return the bridge for parsed options; what is missing ends the process with one line."""
    check_packages()
    from twisted.internet import reactor  # noqa: PLC0415

    from alphapulse_relay.bridge.process import BridgeService  # noqa: PLC0415

    bridge = BridgeService(options.settings, options.parent or {}, reactor)
    # Twistd only now begins to start it, which may take a while.
    bridge.heed_hangup()
    return bridge


def check_packages() -> None:
    """End the process with one line if a package is missing that the bridge needs."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        exit_with(
            f"Python's package {missing[0]} is missing: "
            "pip install 'alphapulse-signal-relay[bridge]'"
        )
