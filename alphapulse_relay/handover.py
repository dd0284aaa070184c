"""A relay gives its listening sockets to the one that takes its place, and leaves.

The old one listens on ``<socket>.handover``, for its own user and root only. In order:

1. The new one connects, and is sent an offer: one line of JSON, and with its bytes the descriptors
   of the sockets (SCM_RIGHTS, unix(7)). Both have the sockets now; the old one serves.
2. The new one says that it has them, once all that it was told to do is known to be possible.
3. The old one says that it leaves, accepts no more, delivers what was sent, and closes its journal.
   Whoever connects meanwhile waits in the kernel's queue.
4. It closes the connection; the new one opens the journal, and serves.

Until 3 the new one may go away at any time, and nothing has happened. The handover's own socket is
among those that are given, so the next one asks the new one.
"""

import json
import os
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, ServerFactory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from alphapulse_relay.hub.throttle import Throttle
from alphapulse_relay.listener import SocketReactor
from alphapulse_relay.passed import Passed, PassedSockets, from_parts
from alphapulse_relay.unix_socket import StartError, peer_of, shown

SUFFIX = ".handover"
"""What is put behind the socket's path."""
MODE = 0o600
BACKLOG = 8
"""How many may wait while one takes over."""
VERSION = 1
ASK_SECONDS = 5.0
"""How long an offer is waited for: a relay that works answers within milliseconds."""
ASK_INTERVAL = 0.02
"""Seconds between attempts where so many ask that there is no room to wait in."""
TAKE_SECONDS = 30.0
"""How long a new one may have the sockets without saying so. Then another may ask."""
LEAVE_SECONDS = 60.0
"""How long the old one may take beyond the time for which it delivers: to sync a journal on a slow
disk."""
PROGRESS_SECONDS = 5.0
"""How often a new one that waits says so."""
OFFER_MAX = 64 * 1024
"""Bytes of an offer: each socket takes about 30."""
DESCRIPTORS_AT_ONCE = 253
"""The most that the kernel passes with one message (SCM_MAX_FD)."""
_TAKEN = b"taken\n"
_LEAVING = b"leaving\n"

_log = Logger()


@dataclass
class Giver:
    """What the old relay does about a handover.

    ``offered`` returns all that it listens on, ``drain`` for how many seconds it will deliver, and
    ``leave`` is called when somebody has taken over. ``journal`` is its directory, None for none.
    """

    clock: IReactorTime
    offered: Callable[[], list[Passed]]
    drain: Callable[[], float]
    leave: Callable[[], None]
    journal: str | None = None
    _taker: "_Giving | None" = None
    _throttle: Throttle = field(init=False)

    def __post_init__(self) -> None:
        self._throttle = Throttle(self.clock)

    def begin(self, taker: "_Giving") -> bool:
        """Take note that somebody takes over; return whether it may: one at a time."""
        if self._taker is not None:
            return False
        self._taker = taker
        return True

    def tell_refused(self, pid: int | None, reason: str) -> None:
        """Log that somebody may not take over, unless there are many such lines."""
        # An abstract name has no permissions: every user of the machine can come here.
        more = self._throttle.admit()
        if more is not None:
            text = "pid {pid} does not take over: {reason}{more}"
            _log.warn(text, pid=pid, reason=reason, more=more)

    def over(self, taker: "_Giving") -> None:
        """Take note that it has gone."""
        if self._taker is taker:
            self._taker = None

    def withdraw(self) -> None:
        """Let nobody take over who has not said that it has the sockets."""
        if self._taker is not None and not self._taker.left:
            self._taker.transport.abortConnection()

    def finish(self) -> None:
        """Let the new one begin, if there is one."""
        if self._taker is not None:
            self._taker.transport.loseConnection()


class GiverFactory(ServerFactory):
    """Makes the connections of those that take over."""

    noisy = False

    def __init__(self, giver: Giver) -> None:
        self._giver = giver

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: ARG002 - IProtocolFactory
        """Return the old one's end of a handover."""
        return _Giving(self._giver)


class _Giving(Protocol):
    """The old one's end: from the offer until it has left, or the new one has gone."""

    transport: Any

    def __init__(self, giver: Giver) -> None:
        self._giver = giver
        self._received = b""
        self._limit: IDelayedCall | None = None
        self.left = False
        """Whether the new one has the sockets, and the old one leaves."""

    def connectionMade(self) -> None:
        """Send the sockets to who may have them."""
        self._pid, uid = peer_of(self.transport.getHandle())
        if uid not in (0, os.geteuid()):
            self._refuse(f"it is of another user (uid {uid})")
        elif not self._giver.begin(self):
            self._refuse("another does")
        else:
            self._offer()
            self._limit = self._giver.clock.callLater(TAKE_SECONDS, self._refuse, "it is too slow")

    def _refuse(self, reason: str) -> None:
        self._giver.tell_refused(self._pid, reason)
        self.transport.abortConnection()

    def _offer(self) -> None:
        parts = [part for passed in self._giver.offered() for part in passed.parts()]
        offer = {
            "version": VERSION,
            "pid": os.getpid(),
            "drain": self._giver.drain(),
            "journal": self._giver.journal,
            "descriptors": [name for name, _ in parts],
        }
        for _, descriptor in parts:
            self.transport.sendFileDescriptor(descriptor)
        self.transport.write(json.dumps(offer).encode() + b"\n")

    def dataReceived(self, data: bytes) -> None:
        """Leave when the new one says that it has the sockets."""
        if self.left:
            return
        self._received += data
        if self._received == _TAKEN:
            self.left = True
            self._stop_clock()
            self.transport.write(_LEAVING)
            _log.info("handed over to pid {pid}: leaving", pid=self._pid)
            self._giver.leave()
        elif not _TAKEN.startswith(self._received):
            self._refuse("what it says is not understood")

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Go on as if nothing had been, unless the relay leaves already."""
        self._stop_clock()
        self._giver.over(self)

    def _stop_clock(self) -> None:
        if self._limit is not None and self._limit.active():
            self._limit.cancel()


@dataclass
class Offer:
    """What an old relay gives.

    ``drain`` is for how many seconds it will deliver; ``journal`` is its directory, None if it has
    none, or does not tell.
    """

    pid: int
    drain: float
    journal: str | None
    sockets: PassedSockets
    connection: socket.socket


def ask(address: str) -> Offer | None:
    """Ask the relay at a socket's address for its sockets; None if there is none to ask.

    Blocks, but not for long. Raises :class:`StartError` if what is there does not give them.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ASK_SECONDS)
        _connect(connection, address + SUFFIX)
        _check_user(connection)
        offer = _read_offer(connection)
        _check_address(offer, address)
        return offer
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        connection.close()
        what = getattr(error, "strerror", None) or str(error)
        raise StartError(
            f"--takeover: the relay at {shown(address)} does not hand over: {what}; see its log",
            os.EX_TEMPFAIL,
        ) from error


def _connect(connection: socket.socket, address: str) -> None:
    """Connect to a socket, not to what a link leads to; wait while too many others do."""
    if not address.startswith("\0") and not stat.S_ISSOCK(os.lstat(address).st_mode):
        raise ValueError(f"{address} is not a socket")
    until = time.monotonic() + ASK_SECONDS
    while True:
        try:
            return connection.connect(address)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(ASK_INTERVAL)


def _check_user(connection: socket.socket) -> None:
    pid, uid = peer_of(connection)
    if uid not in (0, os.geteuid()):
        raise ValueError(f"it is of another user (pid {pid}, uid {uid})")


def _check_address(offer: Offer, address: str) -> None:
    """Refuse the sockets of a relay that is somewhere else: it would leave."""
    if not offer.sockets.has_unix(address):
        others = offer.sockets.rest()
        what = ", ".join(each.address for each in others)
        for each in others:
            each.close()
        raise ValueError(f"what answers is another's, with {what or 'no sockets'}")


def _read_offer(connection: socket.socket) -> Offer:
    """Return the offer that comes; whatever is wrong with it, no descriptor stays open."""
    text, descriptors = b"", list[int]()
    try:
        while not text.endswith(b"\n"):
            data, fds, _, _ = socket.recv_fds(
                connection, OFFER_MAX, DESCRIPTORS_AT_ONCE, socket.MSG_CMSG_CLOEXEC
            )
            descriptors += fds
            text += data
            if not data or len(text) > OFFER_MAX:
                raise ValueError("it refuses")
        offer = json.loads(text)
        if offer["version"] != VERSION:
            raise ValueError(f"it does so by version {offer['version']}, not {VERSION}")
        pid, drain, journal = int(offer["pid"]), float(offer["drain"]), offer.get("journal")
        sockets = from_parts(zip(offer["descriptors"], descriptors, strict=True))
        return Offer(pid, drain, journal, PassedSockets(sockets), connection)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


class Taking(Protocol):
    """The new one's end, from when it has the sockets.

    ``leaving`` is called when the old one says that it leaves: then they are the new one's alone.
    """

    transport: Any

    def __init__(self, offer: Offer, clock: IReactorTime, leaving: Callable[[], None]) -> None:
        self._pid, self._leaving = offer.pid, leaving
        self._received = b""
        wait = offer.drain + LEAVE_SECONDS
        self._limit = clock.callLater(wait, self._fail, f"it has not left within {wait:g} s")
        self._progress = LoopingCall(self._tell)
        self._progress.clock = clock
        self._progress.start(PROGRESS_SECONDS, now=False)
        self.done: Deferred[None] = Deferred(lambda _: self._stop())
        """Fires when the old one has left; fails with a :class:`StartError` if it does not."""

    def connectionMade(self) -> None:
        """Say that we have the sockets."""
        self.transport.write(_TAKEN)

    def dataReceived(self, data: bytes) -> None:
        """Take note when the old one says that it leaves."""
        self._received += data
        if self._received == _LEAVING:
            _log.info("the old relay (pid {pid}) leaves", pid=self._pid)
            self._leaving()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Go on, if the old one has left as it said."""
        if self.done.called:
            return
        if self._received == _LEAVING:
            self._stop()
            _log.info("took over from the relay of pid {pid}", pid=self._pid)
            self.done.callback(None)
        else:
            self._fail("it did not say that it leaves")

    def _tell(self) -> None:
        _log.info("waiting for the old relay (pid {pid}) to leave", pid=self._pid)

    def _fail(self, reason: str) -> None:
        self._stop()
        message = f"--takeover: the relay (pid {self._pid}) is not taken over from: {reason}"
        self.done.errback(StartError(message, os.EX_TEMPFAIL))

    def _stop(self) -> None:
        self._progress.stop()
        if self._limit.active():
            self._limit.cancel()


def take(offer: Offer, reactor: Any, leaving: Callable[[], None]) -> Deferred[None]:
    """Tell the old relay that we have its sockets; fires when it has left. See :class:`Taking`."""
    taking = Taking(offer, reactor, leaving)
    factory = Factory.forProtocol(lambda: taking)
    factory.noisy = False
    with offer.connection as connection:
        connection.setblocking(False)
        reactor.adoptStreamConnection(connection.fileno(), socket.AF_UNIX, factory)
    return taking.done


class Handover:
    """Both ends for one relay, whose socket is at ``address``.

    ``drain``, ``leave`` and ``journal`` as :class:`Giver` has them.
    """

    def __init__(
        self,
        address: str,
        sockets: SocketReactor,
        reactor: Any,
        drain: Callable[[], float],
        leave: Callable[[], None],
        journal: str | None,
    ) -> None:
        self._address, self._sockets, self._reactor = address, sockets, reactor
        self._leave, self._journal = leave, journal
        self._giver = Giver(reactor, sockets.passable, drain, self._lend, journal)
        self._offer: Offer | None = None
        self._taking: Deferred[None] | None = None
        self._port: Any = None

    @property
    def possible(self) -> bool:
        """Whether there seems to be a relay to ask."""
        return self._address.startswith("\0") or os.path.lexists(self._address + SUFFIX)

    def ask(self) -> None:
        """Ask the relay that is there, if there is one. See :func:`ask`."""
        self._offer = offer = ask(self._address)
        if offer is None:
            return
        self._sockets.passed.add(offer.sockets.rest())
        if offer.journal not in (None, self._journal):
            _log.warn(
                "the relay (pid {pid}) has its journal in {theirs}, this one has {ours}: every "
                "bookmark will be refused",
                pid=offer.pid,
                theirs=offer.journal,
                ours=self._journal or "none",
            )

    @property
    def asked(self) -> bool:
        """Whether there is a relay to take over from."""
        return self._offer is not None

    def listen(self) -> None:
        """Listen for who takes over from this relay; where that is not possible it goes without."""
        path, factory = self._address + SUFFIX, GiverFactory(self._giver)
        try:
            self._port = self._sockets.listenUNIX(path, factory, BACKLOG, MODE, guarded=False)
        except (StartError, CannotListenError) as error:
            _log.warn("nobody can take over from this relay: {reason}", reason=str(error))

    def take(self) -> Deferred[None]:
        """Take over; fires when the old relay has left. No port accepts before it is told to."""
        assert self._offer is not None
        self._sockets.hold()
        self._taking = take(self._offer, self._reactor, self._sockets.own)
        return self._taking

    def stop(self) -> Deferred[None]:
        """Take over from nobody any more, and let nobody new take over; fires when that is done."""
        if self._taking is not None:
            self._taking.cancel()
        self._giver.withdraw()
        return succeed(None) if self._port is None else maybeDeferred(self._port.stopListening)

    def finish(self) -> None:
        """Let who takes over begin: all is delivered, and the journal closed."""
        self._giver.finish()

    def _lend(self) -> None:
        self._sockets.lend()
        self._leave()
