"""The other end: what a program needs to consume from a relay and to publish to it.

:mod:`blocking` for plain sockets, :mod:`reconnecting` for Twisted, both over :mod:`core`, which
knows no socket and so fits any other event loop. Nothing here imports the relay; what is promised
when a connection breaks is told in ``docs/client.md``.
"""
