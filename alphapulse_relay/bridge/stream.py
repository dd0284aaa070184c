"""The stream in NATS JetStream: stores runs, and tells what is in it.

Knows nats-py, its errors, and which of them pass. What the runs are, it does not.
"""

from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from alphapulse_relay.bridge.envelope import HEADERS_ROOM, Envelope, EnvelopeError
from alphapulse_relay.bridge.server import Server, describe

PUBLISH_SECONDS = 5.0
"""How long a NATS message may take to be stored before it is tried again: a cluster elects another
leader in about that."""
SMALLEST_PAYLOAD = 2 * HEADERS_ROOM
"""Bytes that a NATS message must be allowed to have, or it would be nearly all headers."""
CLOCK_TOLERANCE = 0.001
"""Seconds by which a time may differ that was told in another way: messages tell it rounded."""
_WRONG_LAST_SEQUENCE = 10071
_NO_SUCH_STREAM = 10059
_TOO_LARGE = 10054
_JETSTREAM_OFF = {10039, 10076}
"""Error codes of nats-server (server/errors.json)."""


class StreamError(Exception):
    """What an operator has to mend. ``str()`` is one line."""


class LaterError(Exception):
    """Nothing can be stored now. ``str()`` is one line."""


class WrongLastError(Exception):
    """The last message of the subject is another one: somebody else publishes as this relay.

    ``str()`` is one line.
    """


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
    """The last message of a subject, which may have wildcards: its sequence, and what it is.

    The envelope is without its payload.
    """

    subject: str
    sequence: int
    envelope: Envelope


class Stream:
    """The stream that bridges share. ``server`` is connected, or will be again."""

    def __init__(self, server: Server, wanted: Wanted) -> None:
        self.wanted = wanted
        self.created = ""
        """When the stream was made: another one has another time."""
        self._server = server
        self._max_message: int | None = None  # as the stream was when it was checked

    @property
    def max_payload(self) -> int:
        """Bytes that server and stream take in one NATS message, headers included."""
        limit = self._server.client.max_payload
        return limit if self._max_message is None else min(limit, self._max_message)

    @property
    def _jetstream(self) -> JetStreamContext:
        return self._server.client.jetstream(timeout=PUBLISH_SECONDS)

    async def check(self) -> StreamInfo:
        """Make the stream if that is wanted, and look whether it fits.

        Raises :class:`StreamError`, or :class:`LaterError` while nobody answers.
        """
        info = await self.find() or await self._create()
        faults = faults_of(info.config, self.wanted, self._server.client.max_payload)
        if faults:
            raise StreamError(f"stream {self.wanted.name}: {'; '.join(faults)}")
        size = info.config.max_msg_size
        self._max_message = size if size is not None and size > 0 else None
        self.created = str(info.created)
        return info

    async def find(self) -> StreamInfo | None:
        """Return it as it is, None if there is none. Raises what :meth:`check` does."""
        try:
            return await self._jetstream.stream_info(self.wanted.name)
        except nats.js.errors.NotFoundError as error:
            if error.err_code != _NO_SUCH_STREAM:
                raise StreamError(describe(error)) from error
            return None
        except TimeoutError:
            raise self._silence() from None
        except nats.errors.Error as error:
            raise _explained(error) from error

    def _silence(self) -> LaterError:
        """Return why nothing was answered: who may not ask is told so in another way."""
        return LaterError(self._server.complaint or "JetStream does not answer")

    async def _create(self) -> StreamInfo:
        name = self.wanted.name
        if not self.wanted.create:
            raise StreamError(f"there is no stream {name}: make one, or give --create-stream")
        try:
            return await self._jetstream.add_stream(self.wanted.config)
        except TimeoutError:
            raise self._silence() from None
        except nats.errors.Error as error:
            raise StreamError(f"stream {name} cannot be made: {describe(error)}") from error

    async def publish(self, subject: str, envelope: Envelope, last_sequence: int) -> int:
        """Store a run behind the message with that sequence; return its own.

        Raises :class:`LaterError` or :class:`WrongLastError`; :class:`StreamError` if it is too
        large by now.
        """
        headers = envelope.headers(subject, last_sequence)
        try:
            ack = await self._jetstream.publish(
                subject,
                envelope.payload,
                timeout=PUBLISH_SECONDS,
                stream=self.wanted.name,
                headers=headers,
            )
        except nats.js.errors.APIError as error:
            if error.err_code == _WRONG_LAST_SEQUENCE:
                raise WrongLastError(
                    f"message {last_sequence} of the stream is not the last of {subject}: "
                    "somebody else publishes as this relay"
                ) from error
            if error.err_code == _TOO_LARGE:
                raise StreamError(describe(error)) from error
            raise LaterError(describe(error)) from error
        except TimeoutError:
            raise self._silence() from None
        except nats.errors.MaxPayloadError as error:
            raise StreamError(describe(error)) from error
        except nats.errors.Error as error:
            raise LaterError(describe(error)) from error
        return ack.seq

    async def last_of(self, subject: str) -> Last | None:
        """Return the last message of a subject; None if there is none.

        Raises :class:`LaterError`, or :class:`StreamError` if it is none of a bridge's.
        """
        try:
            found = await self._jetstream.get_last_msg(self.wanted.name, subject)
        except nats.js.errors.NotFoundError as error:
            if error.err_code == _NO_SUCH_STREAM:
                raise LaterError(describe(error)) from error
            return None
        except TimeoutError:
            raise self._silence() from None
        except nats.errors.Error as error:
            raise LaterError(describe(error)) from error
        try:
            envelope = Envelope.parse(b"", found.headers)
        except EnvelopeError as error:
            raise StreamError(
                f"message {found.seq} of {subject} in stream {self.wanted.name}: {error}"
            ) from error
        return Last(found.subject or subject, found.seq or 0, envelope)

    async def last_of_relay(self, subject: str) -> Last | None:
        """Return the last message of a relay, split by type or not; None if there is none.

        Raises what :meth:`last_of` does.
        """
        found = [await self.last_of(each) for each in (subject, f"{subject}.>")]
        return max(filter(None, found), key=lambda last: last.sequence, default=None)

    async def oldest(self, info: StreamInfo) -> float | None:
        """Return when its first message was stored, in seconds since 1970; None if it is empty.

        Raises errors of NATS.
        """
        if not info.state.messages:
            return None
        try:
            found = await self._jetstream.get_msg(self.wanted.name, info.state.first_seq)
        except nats.js.errors.NotFoundError:  # it has just gone
            return None
        return found.time.timestamp() if found.time else None

    async def same_until(self, info: StreamInfo, sequence: int, stored: float) -> int:
        """Return up to which sequence, at most this one, the stream is what it was.

        A stream that has lost its end (a power cut, a backup) gives the sequences to others. What
        had this one was ``stored`` then, in seconds since 1970. Raises errors of NATS.
        """
        first, last = info.state.first_seq, info.state.last_seq
        if sequence < first or (sequence <= last and await self._was(sequence, stored)):
            return sequence
        low, high = max(first - 1, 0), min(sequence, last)
        while low < high:
            middle = (low + high + 1) // 2
            if await self._was(middle, stored):
                low = middle
            else:
                high = middle - 1
        return low

    async def _was(self, sequence: int, stored: float) -> bool:
        """Tell whether what has a sequence, or is next behind it, was stored by that time."""
        try:
            found = await self._jetstream.get_msg(
                self.wanted.name, sequence, subject=f"{self.wanted.subject}.>", next=True
            )
        except nats.js.errors.NotFoundError:
            return False
        return found.time is not None and found.time.timestamp() <= stored + CLOCK_TOLERANCE


def faults_of(config: StreamConfig, wanted: Wanted, max_payload: int) -> list[str]:
    """Return what is wrong with a stream, at a server that takes so many bytes, in words."""
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
    size = config.max_msg_size or -1
    room = min(max_payload, size) if size > 0 else max_payload
    if room < SMALLEST_PAYLOAD:
        faults.append(
            f"it takes only {room} bytes in a message: at least {SMALLEST_PAYLOAD} are needed"
        )
    return faults


def _covers(subject: str, prefix: str) -> bool:
    """Tell whether a stream's subject has all below a prefix: ``a.>`` and ``>`` have ``a.b.>``."""
    *levels, last = subject.split(".")
    ours = prefix.split(".")
    fits = all(level in ("*", our) for level, our in zip(levels, ours, strict=False))
    return last == ">" and len(levels) <= len(ours) and fits


def _explained(error: nats.errors.Error) -> Exception:
    """Return what an error of JetStream means to who runs a bridge."""
    code = getattr(error, "err_code", None)
    if isinstance(error, nats.js.errors.ServiceUnavailableError) and code is None:
        return StreamError("JetStream is not enabled on this NATS server")
    if code in _JETSTREAM_OFF:
        return StreamError(f"JetStream is not enabled: {describe(error)}")
    return LaterError(describe(error))
