"""Open files: how many a relay needs, and how many peers fit where there are fewer.

Knows the limit that the kernel sets the process (getrlimit(2)), and the relay's own figures.
"""

import resource

WEB_CONNECTIONS_MAX = 1000
"""To the side port, at a time: far more than people and programs that watch a relay, each a file
descriptor and some 10 KB of memory."""
WEB_SHARE = 4
"""The part of a low limit of open files that the side port's connections may have: a quarter."""
SPARE_DESCRIPTORS = 256
"""Descriptors beyond those of the peers and of the side port's connections: listeners, log, epoll,
and what is being refused, of which a port accepts 100 in a turn."""


def needed(peers: int) -> int:
    """Return how many open files so many peers take, with all that is beside them."""
    return peers + WEB_CONNECTIONS_MAX + SPARE_DESCRIPTORS


def room_in(limit: int, peers: int) -> tuple[int, int]:
    """Return how many peers of so many fit into a limit, and how many side port connections."""
    if limit >= needed(peers):
        return peers, WEB_CONNECTIONS_MAX
    connections = min(WEB_CONNECTIONS_MAX, limit // WEB_SHARE)
    return max(0, min(peers, limit - connections - SPARE_DESCRIPTORS)), connections


def raise_limit(wanted: int) -> int:
    """Raise the limit of open files as far as may be; return how many of the wanted there are.

    Only root may go beyond the hard limit (getrlimit(2)).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    if hard != resource.RLIM_INFINITY and hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (OSError, ValueError):
            wanted = hard
        else:
            return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except OSError:  # a sandbox forbids even that
        return soft
    return wanted
