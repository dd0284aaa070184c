"""Protocol V2, the wire: bytes in, values out.

Nothing here knows a socket, Twisted or the rest of the package. ``docs/protocol.md`` is the
specification that the docstrings refer to as "the protocol document".
"""
