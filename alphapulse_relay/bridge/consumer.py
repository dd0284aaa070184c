"""The durable consumer: what the stream has for the relay here, in the stream's order.

Knows how JetStream delivers, and that a delivery may be lost on the way. Then, and after a start,
the consumer is made anew behind what was acknowledged: JetStream would deliver again what is
missing only after what came later.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from alphapulse_relay.bridge.server import Server

ASKED = 32
"""NATS messages that may be on the way at once; of 1 MiB each at most, as servers are set up."""
EXPIRES_SECONDS = 10.0
"""How long a request for messages lives..."""
SILENCES = 2
"""...and for how many times that a server may say nothing: it has forgotten the request then."""
ACK_WAIT_SECONDS = 3600.0
"""What is not acknowledged for so long is delivered again: nothing, as it is not lost here."""


class RestartError(Exception):
    """The consumer has to be made anew. ``str()`` is one line."""


class Delivery(NamedTuple):
    """A NATS message as it was delivered; ``pending`` more are in the stream.

    ``stored`` is when it was, in seconds since 1970.
    """

    sequence: int
    subject: str
    payload: bytes
    headers: dict[str, str] | None
    stored: float
    pending: int
    acknowledge: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """Which messages of the stream come, under which name it is kept how far they have come."""

    stream: str
    durable: str
    subjects: tuple[str, ...]


class Consumer:
    """Has deliveries, from when it runs. ``server`` is connected, or will be again."""

    def __init__(self, server: Server, asked: Asked) -> None:
        self._server = server
        self._asked = asked
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self.delivered = 0
        """The sequence of the last delivery, 0 if there was none since it began."""
        self._deliveries = 0  # that were made to this consumer
        self._on_the_way = 0  # that were asked for
        self._moved = asyncio.Event()
        self._fault: str | None = None

    @property
    def _jetstream(self) -> JetStreamContext:
        return self._server.client.jetstream()

    @property
    def waiting(self) -> int:
        """How many deliveries wait here."""
        return self._queue.qsize()

    async def get(self) -> Delivery:
        """Return the next delivery."""
        delivery = await self._queue.get()
        self._moved.set()
        return delivery

    async def acknowledged(self) -> int | None:
        """Return the sequence up to which all was acknowledged; None if there is no consumer."""
        try:
            info = await self._jetstream.consumer_info(self._asked.stream, self._asked.durable)
        except nats.js.errors.NotFoundError:
            return None
        return info.ack_floor.stream_seq if info.ack_floor else 0

    async def has_delivered_all(self) -> bool:
        """Tell whether all that the server has was delivered, and acknowledged.

        What was removed from the stream before it was delivered, it does not know of any more.
        """
        try:
            info = await self._jetstream.consumer_info(self._asked.stream, self._asked.durable)
        except nats.js.errors.NotFoundError:
            return False
        return not info.num_pending and not info.num_ack_pending

    async def begin(self, sequence: int) -> None:
        """Make the consumer, from a sequence on, on a new connection.

        Raises :class:`RestartError` and errors of NATS.
        """
        while self.waiting:  # what comes again
            self._queue.get_nowait()
        self._deliveries = self._on_the_way = self.delivered = 0
        self._fault = None
        await self._make(sequence)

    async def run(self) -> None:
        """Have all come that is behind where it began, over one connection; until cancelled.

        Raises :class:`RestartError` when that cannot go on, and errors of NATS.
        """
        client = self._server.client
        inbox = client.new_inbox()
        subscription = await client.subscribe(
            inbox, cb=self._received, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        try:
            await self._ask_on(inbox)
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _make(self, begin: int) -> None:
        asked = self._asked
        with suppress(nats.js.errors.NotFoundError):
            await self._jetstream.delete_consumer(asked.stream, asked.durable)
        one = len(asked.subjects) == 1
        config = ConsumerConfig(
            durable_name=asked.durable,
            ack_policy=AckPolicy.ALL,
            ack_wait=ACK_WAIT_SECONDS,
            max_ack_pending=-1,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=begin,
            filter_subject=asked.subjects[0] if one else None,
            filter_subjects=None if one else list(asked.subjects),
        )
        made = (await self._jetstream.add_consumer(asked.stream, config)).config
        if (made.filter_subject, made.filter_subjects or None) != (
            config.filter_subject,
            config.filter_subjects,
        ):
            # Servers before 2.10 know one subject only, and would send all there are.
            raise RestartError(
                f"the NATS server is too old to choose {', '.join(asked.subjects)}: 2.10 is needed"
            )

    async def _ask_on(self, inbox: str) -> None:
        """Keep a request under way, so that messages come as soon as they are stored."""
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._asked.stream}.{self._asked.durable}"
        silent = 0
        while silent < SILENCES:
            wanted = ASKED - self._on_the_way - self.waiting
            if wanted >= ASKED // 2:
                request = {"batch": wanted, "expires": int(EXPIRES_SECONDS * 1e9)}
                self._on_the_way += wanted
                await self._server.client.publish(subject, json.dumps(request).encode(), inbox)
            self._moved.clear()
            try:
                async with asyncio.timeout(EXPIRES_SECONDS):
                    await self._moved.wait()
                silent = 0
            except TimeoutError:
                silent += 1 if self._on_the_way else 0
            if self._fault is not None:
                raise RestartError(self._fault)
        raise RestartError("JetStream does not answer")

    async def _received(self, message: Msg) -> None:
        self._moved.set()
        status = (message.headers or {}).get("Status")
        if status is not None and not message.reply.startswith("$JS.ACK"):
            self._told(status, message.headers or {})
            return
        self._on_the_way -= 1
        known = message.metadata
        self._deliveries += 1
        if known.sequence.consumer != self._deliveries and self._fault is None:
            self._fault = f"{known.sequence.consumer - self._deliveries} deliveries were lost"
        if self._fault is None:
            self.delivered = known.sequence.stream
            self._queue.put_nowait(
                Delivery(
                    known.sequence.stream,
                    message.subject,
                    message.data,
                    message.headers,
                    known.timestamp.timestamp(),
                    known.num_pending,
                    partial(self._server.client.publish, message.reply, b"+ACK"),
                )
            )

    def _told(self, status: str, headers: dict[str, str]) -> None:
        """Take note of what the server says of a request."""
        if status in {"404", "408"}:
            self._on_the_way -= int(headers.get("Nats-Pending-Messages", self._on_the_way))
        elif status != "100":
            self._fault = f"{status} {headers.get('Description', '')}".strip()
            if "Consumer Deleted" in self._fault:
                self._fault += f": is another bridge called {self._asked.durable}, too?"
