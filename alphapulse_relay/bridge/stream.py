"""The stream in NATS JetStream: stores runs, and tells what is in it.

Knows nats-py, its errors, and which of them pass. What the runs are, it does not.
"""

from dataclasses import dataclass
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from alphapulse_relay.bridge.envelope import Envelope, EnvelopeError, Place

PUBLISH_SECONDS = 5.0
"""How long a NATS message may take to be stored before it is tried again: a cluster elects another
leader in about that."""
_WRONG_LAST_SEQUENCE = 10071
_NO_SUCH_STREAM = 10059
_JETSTREAM_OFF = {10039, 10076}
"""Error codes of nats-server (server/errors.json)."""


class StreamError(Exception):
    """What an operator has to mend. ``str()`` is one line."""


class LaterError(Exception):
    """Nothing can be stored now. ``str()`` is one line."""


class WrongLastError(Exception):
    """The last message of the subject is another one: somebody else publishes as this relay."""


@dataclass(frozen=True)
class Wanted:
    """What the stream is to be: ``max_bytes`` in bytes, ``max_age`` in seconds, None for ever."""

    name: str
    subject: str
    create: bool
    replicas: int
    max_bytes: int
    max_age: float | None

    @property
    def config(self) -> StreamConfig:
        """The stream to be made."""
        return StreamConfig(
            name=self.name,
            subjects=[f"{self.subject}.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            num_replicas=self.replicas,
            max_bytes=self.max_bytes,
            max_age=self.max_age or 0,
            allow_direct=True,
        )


@dataclass(frozen=True)
class Last:
    """The last message of a subject: its sequence, and which part of a run it is."""

    sequence: int
    end: Place
    begin: Place
    part: int
    parts: int
    time: int


class Stream:
    """The stream that bridges share. ``client`` is connected, or will be again."""

    def __init__(self, client: Client, wanted: Wanted) -> None:
        self.wanted = wanted
        self.created = ""
        """When the stream was made: another one has another time."""
        self._client = client
        self.jetstream: JetStreamContext = client.jetstream(timeout=PUBLISH_SECONDS)

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one NATS message, headers included."""
        return self._client.max_payload

    async def check(self) -> StreamInfo:
        """Make the stream if that is wanted, and look whether it fits.

        Raises :class:`StreamError`, or :class:`LaterError` while nobody answers.
        """
        info = await self._find() or await self._create()
        faults = list(faults_of(info.config, self.wanted))
        if faults:
            raise StreamError(f"stream {self.wanted.name}: {'; '.join(faults)}")
        self.created = str(info.created)
        return info

    async def _find(self) -> StreamInfo | None:
        try:
            return await self.jetstream.stream_info(self.wanted.name)
        except nats.js.errors.NotFoundError as error:
            if error.err_code != _NO_SUCH_STREAM:
                raise StreamError(_words(error)) from error
            return None
        except nats.errors.Error as error:
            raise _explained(error) from error
        except TimeoutError:
            raise LaterError("JetStream does not answer") from None

    async def _create(self) -> StreamInfo:
        name = self.wanted.name
        if not self.wanted.create:
            raise StreamError(f"there is no stream {name}: make one, or give --create-stream")
        try:
            return await self.jetstream.add_stream(self.wanted.config)
        except nats.errors.Error as error:
            raise StreamError(f"stream {name} cannot be made: {_words(error)}") from error
        except TimeoutError:
            raise LaterError("JetStream does not answer") from None

    async def publish(self, subject: str, envelope: Envelope, last_sequence: int) -> int:
        """Store a run behind the message with that sequence; return its own.

        Raises :class:`LaterError` or :class:`WrongLastError`.
        """
        relay = subject.rpartition(".")[2]
        headers = envelope.headers(relay, last_sequence)
        try:
            ack = await self.jetstream.publish(
                subject,
                envelope.payload,
                timeout=PUBLISH_SECONDS,
                stream=self.wanted.name,
                headers=headers,
            )
        except nats.js.errors.APIError as error:
            if error.err_code == _WRONG_LAST_SEQUENCE:
                raise WrongLastError from error
            raise LaterError(_words(error)) from error
        except TimeoutError:
            raise LaterError(f"no answer within {PUBLISH_SECONDS:g} s") from None
        except nats.errors.Error as error:
            raise LaterError(_words(error)) from error
        return ack.seq

    async def last_of(self, subject: str) -> Last | None:
        """Return the last message of a subject; None if there is none.

        Raises :class:`LaterError`, or :class:`StreamError` if it is none of a bridge's.
        """
        try:
            found = await self.jetstream.get_last_msg(self.wanted.name, subject)
        except nats.js.errors.NotFoundError:
            return None
        except nats.errors.Error as error:
            raise LaterError(_words(error)) from error
        except TimeoutError:
            raise LaterError("JetStream does not answer") from None
        try:
            envelope = Envelope.parse(b"", found.headers)
        except EnvelopeError as error:
            raise StreamError(
                f"message {found.seq} of {subject} in stream {self.wanted.name}: {error}"
            ) from error
        return Last(
            found.seq or 0,
            envelope.end,
            envelope.begin,
            envelope.part,
            envelope.parts,
            envelope.time,
        )


def faults_of(config: StreamConfig, wanted: Wanted) -> list[str]:
    """Return what is wrong with a stream, in words."""
    faults = []
    subjects = config.subjects or []
    if not any(_covers(subject, wanted.subject) for subject in subjects):
        found = ", ".join(subjects) or "none"
        faults.append(f"it has the subjects {found}, not {wanted.subject}.>")
    if config.retention not in (None, RetentionPolicy.LIMITS):
        faults.append(f"its retention is {config.retention}: messages go before all have them")
    if config.storage != StorageType.FILE:
        faults.append("it is kept in memory: what is in it would not survive its server")
    if config.max_msgs_per_subject not in (None, -1, 0):
        faults.append(f"it keeps only {config.max_msgs_per_subject} messages of a relay")
    if config.no_ack:
        faults.append("it acknowledges nothing")
    if config.sealed:
        faults.append("it is sealed")
    return faults


def _covers(subject: str, prefix: str) -> bool:
    """Tell whether a stream's subject has all below a prefix: ``a.>`` and ``>`` have ``a.b.>``."""
    if not subject.endswith(">"):
        return False
    head = subject[:-1]
    return f"{prefix}.".startswith(head)


def _explained(error: Exception) -> Exception:
    """Return what an error of JetStream means to who runs a bridge."""
    code = getattr(error, "err_code", None)
    if isinstance(error, nats.js.errors.ServiceUnavailableError) and code is None:
        return StreamError("JetStream is not enabled on this NATS server")
    if code in _JETSTREAM_OFF:
        return StreamError(f"JetStream is not enabled: {_words(error)}")
    return LaterError(_words(error))


def _words(error: BaseException) -> str:
    """Return what a NATS error says, without what it is made of."""
    described: Any = getattr(error, "description", None)
    return str(described or error).removeprefix("nats: ").strip() or type(error).__name__
