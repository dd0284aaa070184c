"""Signal Relay: one log of messages, every peer a cursor into it."""

__version__ = "0.1.0"
