"""Why a client cannot go on: one family, each with its own type."""

from alphapulse_relay.protocol_v2.control import ErrorCode, ErrorMessage, Gap

BOOKMARK_CODES = frozenset({ErrorCode.WRONG_EPOCH, ErrorCode.NOT_KEPT})
"""Errors that say that a bookmark does not fit the relay's journal."""


class ClientError(Exception):
    """What went wrong between a client and its relay."""


class NoRelayError(ClientError):
    """Nothing was there to connect to for as long as the client was told to try."""


class WrongUserError(ClientError):
    """The process that listens runs as another user than the one that was expected."""


class CertificateError(ClientError):
    """What listens has not proved to be the relay: its certificate is wrong, or out of date."""


class NotARelayError(ClientError):
    """What came is not what a relay sends."""


class IncompleteError(ClientError):
    """The connection ended before all that was asked for had come."""


class UnacknowledgedError(ClientError):
    """Messages that were published are not known to have arrived."""


class RelayError(ClientError):
    """The relay sent an Error. ``code`` is an :class:`ErrorCode`, or one that is newer."""

    def __init__(self, error: ErrorMessage) -> None:
        super().__init__(f"the relay says: {error.text or 'nothing'} (error {error.code})")
        self.code = error.code


class BookmarkError(RelayError):
    """The relay cannot go on from the bookmark: its journal is another one, or ends before it.

    What lies between is unknown. Only the application can tell whether to start over live or with
    the oldest message that is kept.
    """


class LeavingError(RelayError):
    """The relay has left in order, after all that there was; as a rule it is back at once."""


class GapError(ClientError):
    """Messages will not come. ``gap`` tells which and why; those after it will."""

    def __init__(self, gap: Gap) -> None:
        lost = f"{gap.stop - gap.start} bytes of the journal from position {gap.start}"
        super().__init__(f"messages were missed: {lost} ({gap.reason.name.lower()})")
        self.gap = gap


def from_relay(error: ErrorMessage) -> RelayError:
    """Return the exception for an Error."""
    if error.code == ErrorCode.LEAVING:
        return LeavingError(error)
    return BookmarkError(error) if error.code in BOOKMARK_CODES else RelayError(error)
