"""Makes ``twistd signal-relay-bridge`` known to Twisted."""

from twisted.application.service import ServiceMaker

signal_relay_bridge = ServiceMaker(
    "Signal Relay Bridge",
    "alphapulse_relay.bridge.service",
    "Joins a relay to those of other hosts, by NATS JetStream",
    "signal-relay-bridge",
)
