"""A relay that is asked for messages: what it answers, and what to tell a person if it does not.

Knows one connection and the client's core; what becomes of the messages, it does not know.
"""

import select
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from alphapulse_relay.cli.connection import (
    FROM_RELAY,
    Wait,
    closed,
    connect,
    not_a_relay,
    receive,
)
from alphapulse_relay.cli.words import Failure, say
from alphapulse_relay.client.bookmark import Bookmark
from alphapulse_relay.client.core import Core, Event, Synced
from alphapulse_relay.client.errors import (
    BookmarkError,
    ClientError,
    LeavingError,
    NotARelayError,
)
from alphapulse_relay.protocol_v2.control import ErrorMessage, GapReason, Start, Subscribe, Wish

ANSWER_SECONDS = 10.0
"""For how long the answer to a question is waited for that a relay answers at once."""
REASONS = {
    GapReason.RETENTION: "no longer kept",
    GapReason.SKIPPED: "passed over",
    GapReason.DAMAGE: "damaged",
}


def start_of(since: int | None, position: int | None, last: int | None) -> tuple[Start, int]:
    """Return where a Subscribe begins: at the one that is not None, or live."""
    if since is not None:
        return Start.TIME, since
    if position is not None:
        return Start.POSITION, position
    if last is not None:
        return Start.LAST, last
    return Start.LIVE, 0


def new_core(subscription: Subscribe, bookmark: Bookmark | None = None) -> Core:
    """Return what a subscription asks for, of a relay that alone knows its limits."""
    return Core(subscription, bookmark, max_message=FROM_RELAY.max_message)


def subscribed(path: str, core: Core, wait_for: Wait, advice: str = "") -> Iterator[Event]:
    """Yield what a relay sends for a subscription until it closes the connection.

    Raises :class:`Failure` if there is no relay or it refuses; ``advice`` is what to do if its
    journal does not have the place to begin at.
    """
    try:
        request = core.connect(timestamp=time.time_ns())
    except ValueError as error:
        raise Failure(f"no relay can be asked for that: {error}") from None
    with connect(path) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have told why before
            connection.sendall(request)
        try:
            while data := receive(connection, wait_for):
                yield from core.receive(data)
        except LeavingError as error:
            raise closed(ErrorMessage(error.code, "")) from None
        except NotARelayError as error:
            raise not_a_relay(data, f"{path}: {error}") from None
        except BookmarkError as error:
            raise Failure(f"{path}: {error}{advice}") from None
        except ClientError as error:
            raise Failure(f"{path}: {error}") from None


def ask_head(path: str) -> Bookmark:
    """Return the epoch of a relay's journal and where it ends now; raises :class:`Failure`."""
    core = new_core(Subscribe(Wish.STOP_AT_HEAD))
    found = None
    for event in subscribed(path, core, partial(_wait_for_answer, path)):
        if isinstance(event, Synced):
            found = event.bookmark
    if found is None:
        raise Failure(f"{path}: the relay closed the connection without an answer")
    return found


def tell_missing(start: int, stop: int, reason: str) -> None:
    """Say which positions will not come."""
    say(f"positions {start} to {stop} are missing: {reason}")


def _wait_for_answer(path: str, descriptor: int) -> None:
    if not select.select([descriptor], [], [], ANSWER_SECONDS)[0]:
        raise Failure(
            f"{path}: no answer for {ANSWER_SECONDS:g} s: what listens there keeps no messages"
        )
