"""A blocking client's way to its relay: connects, serves the connection, connects again.

Knows when to try again and when to give up; what the events mean to a program, it does not.
"""

import logging
from collections.abc import Iterator

from alphapulse_relay.client.address import Address, TLSAddress, parse_address
from alphapulse_relay.client.backoff import Backoff
from alphapulse_relay.client.connection import Clock, Deadline, Link, open_connection
from alphapulse_relay.client.core import Core, Event
from alphapulse_relay.client.errors import ClientError, LeavingError, NoRelayError
from alphapulse_relay.client.silence import Silence, Verdict
from alphapulse_relay.client.tls import load_context
from alphapulse_relay.protocol_v2.control import Wish

_log = logging.getLogger(__name__)


class Session:
    """The connections of a core, one after the other.

    ``timeout`` is for how many seconds without a relay's answer to go on trying, ``None`` for
    ever. The rest is as for :class:`Client`.
    """

    def __init__(
        self,
        core: Core,
        address: Address,
        *,
        uid: int | None,
        timeout: float | None,
        clock: Clock,
        backoff: Backoff,
    ) -> None:
        self.link: Link | None = None
        """The connection, if there is one: a new one each time."""
        self._core = core
        self._address = address
        self._place = parse_address(address)
        if isinstance(self._place, TLSAddress):
            load_context(self._place)  # what is wrong with its files is an error now
        self._uid = uid
        self._timeout = timeout
        self._clock = clock
        self._backoff = backoff
        self._heartbeats = Wish.HEARTBEATS in core.subscription.wishes
        self._silence = Silence(clock.monotonic())
        self._retry_at = clock.monotonic()
        self._alone_since: float | None = None

    def turn(self, deadline: Deadline, *, reading: bool = True) -> Iterator[Event]:
        """Do one thing (connect, wait, send, receive) and yield what came; run it to its end.

        Raises ``TimeoutError`` if the deadline had passed, and :class:`ClientError` where it makes
        no sense to connect again: the next turn would, all the same.
        """
        left = deadline.left()
        if self.link is None:
            self._connect(left)
            return
        try:
            data = self.link.turn(self._patience(left), reading=reading)
            self._listen(self.link, heard=bool(data))
        except OSError as error:
            self._lost(error)
            return
        yield from self._receive(self.link, data)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self.link is not None:
            self.link.close()
            self.link = None

    def _connect(self, left: float) -> None:
        """Wait for the next attempt's time, or make it."""
        wait = self._retry_at - self._clock.monotonic()
        if wait > 0:
            self._clock.sleep(min(wait, left))
            return
        try:
            connection = open_connection(self._place, self._uid, max(left, 1e-3))
        except OSError as error:
            self._lost(error)
            return
        self.link = Link(connection, self._core.connect(timestamp=self._clock.time_ns()))
        self._silence = Silence(self._clock.monotonic())

    def _receive(self, link: Link, data: bytes) -> Iterator[Event]:
        try:
            yield from self._core.receive(data)
            link.out += self._core.due()
        except ClientError as error:
            self.close()
            if not self._core.may_pass(error, now=self._clock.monotonic()):
                raise
            if isinstance(error, LeavingError):
                self._left(error)
            else:
                self._lost(error)
        if self._core.answered:
            self._alone_since = None
            self._backoff.reset()

    def _patience(self, left: float) -> float:
        """Return for how many seconds nothing has to be done if nothing comes."""
        if not self._heartbeats:
            return left
        return min(left, max(self._silence.left(self._clock.monotonic()), 0))

    def _listen(self, link: Link, *, heard: bool) -> None:
        """Ask a silent relay for a sign of life; raises ``OSError`` if there was none."""
        now = self._clock.monotonic()
        if heard:
            self._silence.heard(now)
            return
        match self._heartbeats and self._silence.judge(now):
            case Verdict.ASK:
                link.out += self._core.ask_for_life(timestamp=self._clock.time_ns())
            case Verdict.GIVE_UP:
                raise ConnectionError("the relay is silent, and did not answer")

    def _left(self, error: LeavingError) -> None:
        """Come again soon: that the relay has left in order is no failure."""
        self._backoff.reset()
        self._retry_at = self._clock.monotonic() + self._backoff.delay()
        _log.info("no connection to %s: %s", self._address, error)

    def _lost(self, error: Exception) -> None:
        """Note when to try again; raises :class:`NoRelayError` if that was long enough."""
        self.close()
        now = self._clock.monotonic()
        self._retry_at = now + self._backoff.delay()
        if self._alone_since is None:
            self._alone_since = now
        _log.info("no connection to %s: %s", self._address, error)
        if self._timeout is not None and now - self._alone_since >= self._timeout:
            self._alone_since = None
            raise NoRelayError(f"no relay at {self._address}: {error}") from error
