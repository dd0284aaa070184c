"""The relay's settings: what the options' values come to, and the command line that gives them.

Knows which values do not go together. Which options there are stands in ``option_table.py``, where
their values come from in ``option_sources.py``; what the options do it does not know.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from alphapulse_relay import option_values as read
from alphapulse_relay.command_line import CommandLine, exit_for, precedence
from alphapulse_relay.hub.permission import AccessRules
from alphapulse_relay.journal.format import room_of, size_for
from alphapulse_relay.option_sources import USAGE_STATUS, Given, OptionError, all_given, value_of
from alphapulse_relay.option_table import JOURNAL_BESIDE, OPTIONS, RELAY
from alphapulse_relay.protocol_v2.framing import Level, Rules

BACKLOG_SEGMENTS = 8
"""The log's window is kept in so many segments; no message spans two."""
SEGMENT_ROOM = 128 * 1024
"""Bytes that a segment must hold beyond the largest message: what is received at once, twice."""


@dataclass(frozen=True)
class Settings:
    """The options' values. Sizes are in bytes, times in seconds; ``web`` may be absent.

    ``journal`` is where it lies, None for nowhere; ``fsync`` is 0 for always and None for never.
    ``web_origin`` holds origins as browsers write them, ``web_token_file`` what the file holds.
    ``access`` is only in the file; without such rules it is None.
    """

    socket: Path
    socket_mode: int
    takeover: bool
    listen: tuple[str, ...]
    allow_plaintext: bool
    web: str | None
    web_origin: tuple[str, ...]
    web_token_file: str | None = field(repr=False)  # a secret
    web_publish: bool
    journal: Path | None
    journal_size: int
    journal_age: float | None
    fsync: float | None
    validate: Level
    domains: frozenset[int]
    tlv_types: frozenset[int]
    max_message: int
    backlog: int
    hold: float
    drain: float
    max_peers: int
    cpu: int | None
    log_level: str
    log_format: str
    access: AccessRules | None = None

    @property
    def rules(self) -> Rules:
        """What the relay accepts from its peers."""
        return Rules(
            self.validate,
            self.domains,
            self.tlv_types,
            self.max_message,
            aside=True,
        )


def settings_from(flags: Mapping[str, str | list[str]], environ: Mapping[str, str]) -> Settings:
    """Return the settings that flags, environment and the file named in one of them give.

    ``flags`` are as :func:`all_given` takes them. Raises :class:`OptionError` for the first value
    that is wrong.
    """
    return settings_of(*all_given(RELAY, flags, environ))


def settings_of(given: Mapping[str, Given], access: AccessRules | None) -> Settings:
    """Return the settings that values come to, given by their options' names.

    Raises :class:`OptionError` for the first that is wrong.
    """
    values = {option.field: value_of(option, given[option.name]) for option in OPTIONS}
    settings = Settings(**values, access=access)
    check_together(settings, given)
    if given["journal"].value == JOURNAL_BESIDE:
        settings = replace(settings, journal=_journal_beside(settings, given["socket"]))
    return settings


def check_together(settings: Settings, given: Mapping[str, Given]) -> None:
    """Raise :class:`OptionError` for the first of the values that does not go with the others.

    ``given`` tells, by the options' names, how to speak of them.
    """
    _check_abstract(settings, given["socket"])
    _check_listeners(settings, given["listen"])
    _check_publishing(settings, given["web-publish"])
    _check_backlog(settings, given["backlog"], given["max-message"])
    if settings.journal is not None:
        _check_journal(settings, given["journal-size"], given["max-message"])


def settings_or_exit(flags: Mapping[str, str | list[str]], environ: Mapping[str, str]) -> Settings:
    """Do as :func:`settings_from`, but end the process with one line if a value is wrong."""
    try:
        return settings_from(flags, environ)
    except OptionError as error:
        exit_for(RELAY, error)


def _is_abstract(settings: Settings) -> bool:
    return str(settings.socket).startswith(read.ABSTRACT)


def _check_abstract(settings: Settings, where: Given) -> None:
    """Refuse an abstract socket that anybody could connect to: it has no permissions (unix(7))."""
    rules = () if settings.access is None else settings.access.rules
    if _is_abstract(settings) and not any(rule.uids for rule in rules):
        raise OptionError(
            f"--socket{where.origin}: {str(settings.socket)!r} is an abstract socket, which every "
            "user of this machine can connect to: give [[access]] rules by uid in the file, or a "
            "path",
            where.status,
        )


def _journal_beside(settings: Settings, where: Given) -> Path:
    """Return the journal's directory beside the socket, which is to be in a directory itself."""
    if _is_abstract(settings):
        raise OptionError(
            f"--journal: there is no directory beside {str(settings.socket)!r}{where.origin}: give "
            "--journal, or none",
            where.status,
            ("socket",),
        )
    return settings.socket.parent / "journal"


def _check_listeners(settings: Settings, listen: Given) -> None:
    """Refuse to be reached from elsewhere by what others can read, and change, on the way."""
    for endpoint in settings.listen:
        if read.is_exposed(endpoint) and not settings.allow_plaintext:
            raise OptionError(
                f"--listen{listen.origin}: {endpoint!r} is neither encrypted nor bound to "
                "loopback: use mtls:, add interface=127.0.0.1, or give --allow-plaintext",
                listen.status,
            )


def _check_publishing(settings: Settings, publish: Given) -> None:
    """Refuse to let anybody publish that a browser can be made to speak for."""
    rules = () if settings.access is None else settings.access.rules
    tokens = [settings.web_token_file, *(rule.token for rule in rules)]
    if settings.web_publish and not any(tokens):
        raise OptionError(
            f"--web-publish{publish.origin}: a token is needed to publish: give --web-token-file",
            publish.status,
        )


def _check_backlog(settings: Settings, backlog: Given, max_message: Given) -> None:
    """Refuse a window too small for the largest message."""
    least = BACKLOG_SEGMENTS * (settings.max_message + SEGMENT_ROOM)
    if settings.backlog < least:
        raise OptionError(
            f"--backlog{backlog.origin}: {backlog.value} is too small for --max-message "
            f"{max_message.value}{max_message.origin}: at least {read.size_text(least)} is needed, "
            f"{BACKLOG_SEGMENTS} x (max-message + {read.size_text(SEGMENT_ROOM)})",
            os.EX_CONFIG if os.EX_CONFIG in (backlog.status, max_message.status) else USAGE_STATUS,
            ("max-message",),
        )

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if settings.backlog > memory:
        raise OptionError(
            f"--backlog{backlog.origin}: {backlog.value} is more than the memory of this machine, "
            f"{memory >> 20}M",
            backlog.status,
        )


def _check_journal(settings: Settings, size: Given, max_message: Given) -> None:
    """Refuse a journal too small for the largest message."""
    room = settings.max_message + SEGMENT_ROOM
    if room_of(settings.journal_size) < room:
        least = size_for(room)
        raise OptionError(
            f"--journal-size{size.origin}: {size.value} is too small for --max-message "
            f"{max_message.value}{max_message.origin}: at least {read.size_text(least)} is needed",
            os.EX_CONFIG if os.EX_CONFIG in (size.status, max_message.status) else USAGE_STATUS,
            ("max-message",),
        )


class Options(CommandLine, table=RELAY):
    """The command line of ``twistd signal-relay``. After :meth:`parseOptions`: ``settings``."""

    longdesc = (
        "A hub for Protocol V2 messages: what one peer sends goes to all the others. "
        + precedence(RELAY, "max-peers")
    )
    settings: Settings

    def postOptions(self) -> None:
        """Read environment and file, too, into ``settings``."""
        self.settings = settings_from(self.flags, os.environ)
