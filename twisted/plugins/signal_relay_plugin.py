"""Makes ``twistd signal-relay`` known to Twisted."""

from twisted.application.service import ServiceMaker

signal_relay = ServiceMaker(
    "Signal Relay",
    "alphapulse_relay.service",
    "A hub for Protocol V2 messages: what one peer sends goes to all the others",
    "signal-relay",
)
