"""The hub: bytes become messages, messages go into one log, every peer follows it.

Knows the wire and Twisted; never the web, the command line or the options.
"""
