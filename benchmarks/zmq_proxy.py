"""A ZeroMQ hub, as a process of its own: ``python zmq_proxy.py IN OUT``.

Prints a line when both endpoints can be connected to.
"""

import sys

import zmq

UNLIMITED = 0
"""High-water mark: at any other a ZeroMQ publisher drops what a consumer cannot take yet."""
BACKLOG = 4096
"""Connections that wait to be accepted: a thousand come at once."""


def run(publishers_at: str, consumers_at: str) -> None:
    """Forward all that comes in at one endpoint to all that have subscribed at the other."""
    context = zmq.Context()
    ends = []
    for kind, endpoint in ((zmq.XSUB, publishers_at), (zmq.XPUB, consumers_at)):
        end = context.socket(kind)
        end.set_hwm(UNLIMITED)
        end.setsockopt(zmq.BACKLOG, BACKLOG)
        end.bind(endpoint)
        ends.append(end)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    zmq.proxy(*ends)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2])
