"""A hub in a process of its own: ``python -m tests.cli.hub_process SOCKET MAX_PEERS``.

Prints "ready" once it listens, then its log, line by line.
"""

import sys

from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.ports import LISTEN_BACKLOG, RelayPort
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.protocol_v2.framing import Rules


def main(path: str, max_peers: str) -> None:
    observer = textFileLogObserver(sys.stdout)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    factory = SignalRelayFactory(
        reactor, Rules(aside=True), MemoryStorage(64 << 20), hold=1.0, max_peers=int(max_peers)
    )
    factory.open()
    RelayPort(path.encode(), factory, LISTEN_BACKLOG, 0o660, reactor).startListening()
    reactor.callWhenRunning(print, "ready")
    reactor.run()


main(*sys.argv[1:])
