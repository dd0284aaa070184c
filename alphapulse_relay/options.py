"""The relay's settings: what the options' values come to, and the command line that gives them.

Knows which values do not go together. Which options there are stands in ``option_table.py``, where
their values come from in ``option_sources.py``; what the options do it does not know.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from twisted.copyright import version as twisted_version
from twisted.python import usage

from alphapulse_relay import __version__
from alphapulse_relay import option_values as read
from alphapulse_relay.hub.permission import AccessRules
from alphapulse_relay.journal.format import room_of, size_for
from alphapulse_relay.option_sources import USAGE_STATUS, Given, OptionError, all_given, value_of
from alphapulse_relay.option_table import (
    BY_NAME,
    CONFIG,
    ENVIRONMENT_PREFIX,
    JOURNAL_BESIDE,
    OPTIONS,
)
from alphapulse_relay.protocol_v2.framing import Level, Rules

BACKLOG_SEGMENTS = 8
"""The log's window is kept in so many segments; no message spans two."""
SEGMENT_ROOM = 128 * 1024
"""Bytes that a segment must hold beyond the largest message: what is received at once, twice."""

_FILES = {"socket": "*.sock", "config": "*.toml", "journal": "*", "web-token-file": "*"}
"""Which files a shell may offer."""


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

    ``flags`` holds the options that were given on the command line, ``config`` among them, by
    name. Raises :class:`OptionError` for the first value that is wrong.
    """
    return settings_of(*all_given(flags, environ))


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
        _exit(error)


def _exit(error: usage.UsageError) -> NoReturn:
    print(f"signal-relay: {error}", file=sys.stderr)  # noqa: T201
    raise SystemExit(error.status if isinstance(error, OptionError) else USAGE_STATUS)


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


def _completions() -> usage.Completions:
    """Tell a shell what may follow each option (``twisted.python.usage.Completions``)."""
    actions: dict[str, usage.Completer] = {}
    for option in OPTIONS:
        if option.switch:
            continue
        if option.words:
            actions[option.name] = usage.CompleteList(option.words)
        else:
            actions[option.name] = usage.Completer()
    for name, glob in _FILES.items():
        actions[name] = usage.CompleteFiles(glob)
    repeatable = [option.name for option in OPTIONS if option.repeat]
    return usage.Completions(multiUse=repeatable, optActions=actions)


class Options(usage.Options):
    """The command line of ``twistd signal-relay``. After :meth:`parseOptions`: ``settings``."""

    synopsis = "[options]"
    longdesc = (
        "A hub for Protocol V2 messages: what one peer sends goes to all the others. "
        "Sizes take K, M and G, powers of 1024. Where an option is given more than once, a flag "
        f"wins over the environment ({ENVIRONMENT_PREFIX} and the name in capitals, such as "
        f"{BY_NAME['max-peers'].variable}), that over the file, and that over the default."
    )
    optParameters = [  # noqa: RUF012 (so usage.Options has it)
        [option.name, option.short, None, option.help]
        for option in (*OPTIONS, CONFIG)
        if not option.repeat and not option.switch
    ]
    optFlags = [  # noqa: N815, RUF012 (so usage.Options has it)
        [option.name, option.short, option.help] for option in OPTIONS if option.switch
    ]
    compData = _completions()  # noqa: N815 (so usage.Options has it)
    settings: Settings

    def opt_listen(self, endpoint: str) -> None:  # noqa: D102 (the table has it)
        self.setdefault("listen", []).append(endpoint)

    opt_listen.__doc__ = BY_NAME["listen"].help
    opt_l = opt_listen

    def opt_web_origin(self, origin: str) -> None:  # noqa: D102 (the table has it)
        self.setdefault("web-origin", []).append(origin)

    opt_web_origin.__doc__ = BY_NAME["web-origin"].help

    def opt_version(self) -> NoReturn:
        """Display the version and exit."""
        print(f"signal-relay {__version__} (Twisted {twisted_version})")  # noqa: T201
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:  # noqa: N802
        """Refuse arguments: there are only options."""
        if arguments:
            raise OptionError(f"unexpected argument {arguments[0]!r}")

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse ``options`` and read environment and file into ``settings``.

        Whatever is wrong ends the process with one line: twistd would print all of the help.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            _exit(error)
        self.settings = settings_or_exit(self.flags, os.environ)

    @property
    def flags(self) -> dict[str, str | list[str]]:
        """The options that were given on the command line, as :func:`settings_from` takes them."""
        switches = {option.name for option in OPTIONS if option.switch}
        values = {name: value for name, value in self.items() if name not in switches}
        given = {name: value for name, value in values.items() if value is not None}
        return given | {name: "true" for name in switches if self[name]}
