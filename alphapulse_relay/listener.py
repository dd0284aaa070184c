"""Where the relay listens: on sockets bound here, and on those that were passed in.

All listening sockets are known here, so that they can be kept from accepting until the relay
serves, and be lent to one that takes over. Knows nothing of what flows through them.
"""

import errno
import os
import socket
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from alphapulse_relay.hub.ports import LISTEN_BACKLOG, UnixPort, accept_waiting
from alphapulse_relay.passed import Passed, PassedSockets
from alphapulse_relay.unix_socket import Claim, SocketPath, claim_of

_log = Logger()


class SocketReactor:
    """A reactor that takes a passed-in socket, if there is one, instead of binding an address.

    For endpoints: it stands between them, or :class:`PortReactor`, and the real one.
    """

    def __init__(self, reactor: Any, passed: PassedSockets) -> None:
        self.passed = passed
        """Those that nobody has asked for yet."""
        self._reactor = reactor
        self._opened: dict[Any, Claim | None] = {}
        """The ports, and how the path of each is held; None if there is none that is ours."""
        self._passed_in: dict[Any, int] = {}
        """Those that others may still accept at, and how many are to wait there once none does."""

    # What an endpoint asks of its reactor

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> Any:
        """Listen on a TCP port, as ``IReactorTCP``."""
        passed = self.passed.take_tcp(interface, port)
        if passed is None:
            opened = self._reactor.listenTCP(port, factory, backlog, interface)
            return self._keep(opened)
        try:
            port = self.adoptStreamPort(passed.socket.fileno(), passed.socket.family, factory)
        finally:
            passed.close()
        self._passed_in[port] = backlog
        return port

    def listenUNIX(
        self,
        address: str | bytes,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,  # noqa: ARG002, N803 - IReactorUNIX's; the path is claimed anyway
        *,
        guarded: bool = True,
    ) -> Any:
        """Listen on a Unix socket, as ``IReactorUNIX``; ``guarded`` as :class:`SocketPath` has it.

        Raises :class:`StartError`, too, if the path cannot be had.
        """
        path = os.fsdecode(address)
        passed = self.passed.take_unix(path)
        if passed is not None:
            return self._listen_on(passed, factory, backlog, mode)
        claim = claim_of(path, guarded=guarded)
        claim.claim()
        port = UnixPort(os.fsencode(path), factory, backlog, mode, self._reactor)
        try:
            port.startListening()
        except CannotListenError as error:
            claim.release()
            if error.socketError.errno == errno.EADDRINUSE:
                raise claim.taken() from error
            raise
        claim.bound()
        return self._keep(port, claim)

    def adoptStreamPort(self, descriptor: int, family: int, factory: IProtocolFactory) -> Any:
        """Listen on a duplicate of a socket that was passed in, as ``IReactorSocket``."""
        known = self.passed.take_descriptor(descriptor)
        if known is not None:
            known.socket.detach()  # it is closed by who asks
        if family != socket.AF_UNIX:
            port = self._keep(self._reactor.adoptStreamPort(descriptor, family, factory))
            self._passed_in[port] = LISTEN_BACKLOG
            return port
        # The reactor's own port gives the file other permissions, and removes it at the end.
        listening = socket.socket(fileno=os.dup(descriptor))
        return self._listen_on(Passed(listening), factory, LISTEN_BACKLOG)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def _listen_on(
        self, passed: Passed, factory: IProtocolFactory, backlog: int, mode: int = 0
    ) -> Any:
        claim = _claim(passed)
        port = UnixPort.of(passed.socket, factory, backlog, self._reactor)
        port.mode = mode
        port.startListening()
        self._passed_in[port] = backlog
        return self._keep(port, claim)

    def _keep(self, port: Any, claim: Claim | None = None) -> Any:
        self._opened[port] = claim
        if claim is not None:
            port.closed = claim.release
        return port

    # What becomes of all of them

    def hold(self) -> None:
        """Have all ports leave in the kernel's queue whoever connects."""
        for port in self._opened:
            port.stopReading()

    def admit(self) -> None:
        """Have all ports accept."""
        for port in self._opened:
            port.startReading()

    def passable(self) -> list[Passed]:
        """Return all that is listened on, for another relay. The sockets stay this one's."""
        return [
            Passed(port.socket) if claim is None else Passed(port.socket, claim.lock, claim.file)
            for port, claim in self._opened.items()
        ]

    def drop_unused(self) -> None:
        """Close the sockets that nobody asked for, and say which."""
        for passed in self.passed.rest():
            _log.warn("nothing listens on {address}, which was passed in", address=passed.address)
            claim = _claim(passed)
            passed.socket.close()
            if claim is not None:
                claim.owned = True
                claim.release()

    def owns(self, port: Any) -> bool:
        """Tell whether nobody but this relay accepts at a port, now or when it has left."""
        claim = self._opened.get(port)
        return claim is not None and claim.owned

    def own(self) -> None:
        """Take note that no other relay has our sockets, or the one that lent them leaves.

        Only now is listen(2) called on those that were passed in: from then on clients take this
        process for the one that listens (SO_PEERCRED), and as many may wait as it says.
        """
        for port, backlog in self._passed_in.items():
            port.socket.listen(backlog)
        self._passed_in.clear()
        for port, claim in self._opened.items():
            if claim is not None and not claim.owned:
                claim.own(port.mode)

    def lend(self) -> None:
        """Accept no more, and leave every socket and path to the relay that has them, too."""
        self.hold()
        for port, claim in self._opened.items():
            port._shouldShutdown = False  # it would be shut for all who have it
            if claim is not None:
                claim.owned = False

    def abandon(self) -> None:
        """Undo a start that failed, before the process ends: remove what is ours."""
        for port, claim in self._opened.items():
            if claim is not None:
                claim.release()
                port.stopListening()


def _claim(passed: Passed) -> SocketPath | None:
    """Return how the path of a socket is held, lent by another relay; None if by none."""
    if passed.file is None:
        return None
    path = Path(os.fsdecode(passed.socket.getsockname()))
    return SocketPath.lent(path, passed.lock, passed.file)


class ListenerService(Service):
    """The Unix socket: claimed and bound with the rights that twistd starts with.

    ``address`` is a path, or an abstract name with a null before it; ``ports`` listens there.
    """

    def __init__(
        self, address: str, mode: int, hub: IProtocolFactory, ports: Any, sockets: SocketReactor
    ) -> None:
        self._address, self._mode, self._hub = address, mode, hub
        self._ports, self._sockets = ports, sockets
        self._port: Any = None

    def privilegedStartService(self) -> None:
        """Listen. Raises :class:`StartError` if the path cannot be had."""
        self._port = self._ports.listenUNIX(self._address, self._hub, mode=self._mode)
        super().privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """Accept no more but those that wait, unless somebody else will, and remove the socket.

        A relay that never served has nothing to take them into.
        """
        served = self.running
        super().stopService()
        if self._port is None:
            return succeed(None)
        if served and self._sockets.owns(self._port):
            accept_waiting(self._port)
        return maybeDeferred(self._port.stopListening)


def address_of(path: Path) -> str:
    """Return the address that ``--socket`` gives: for ``@name`` that of an abstract name."""
    text = os.fspath(path)
    return f"\0{text[1:]}" if text.startswith("@") else text
