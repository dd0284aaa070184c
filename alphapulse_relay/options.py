"""Every option of the relay, in one table, and the four places a value may come from.

Knows names, defaults, what is accepted and which source wins: flag, then environment, then TOML
file, then default. Of the sources only the one that wins is read, so a flag can overrule a wrong
line in a file. Knows nothing of what the options do.

In the environment an option is ``SIGNAL_RELAY_`` and its name in capitals, with ``_`` for ``-``;
an empty variable counts as not set, and other variables with that prefix are ignored (Kubernetes
sets some for any service called signal-relay). In the file a key is the option's name as it is
spelled here, with ``-``.
"""

import difflib
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from twisted.copyright import version as twisted_version
from twisted.python import usage

from alphapulse_relay import __version__
from alphapulse_relay import option_values as read
from alphapulse_relay.journal.format import room_of, size_for
from alphapulse_relay.protocol_v2.framing import Level, Rules

USAGE_STATUS = 2
"""Exit status when a flag or an environment variable is wrong, as that of most programs.

When the configuration file is wrong, it is EX_CONFIG, 78 (sysexits.h).
"""
ENVIRONMENT_PREFIX = "SIGNAL_RELAY_"
BACKLOG_SEGMENTS = 8
"""The log's window is kept in so many segments; no message spans two."""
SEGMENT_ROOM = 128 * 1024
"""Bytes that a segment must hold beyond the largest message: what is received at once, twice."""

JOURNAL_BESIDE = "journal beside the socket"
"""What the default of ``--journal`` is called."""

_LOG_LEVELS = ("debug", "info", "warn", "error", "critical")
_LOG_FORMATS = ("text", "json")
_NUMBER = (str, int)
_FILES = {"socket": "*.sock", "config": "*.toml", "journal": "*", "web-token-file": "*"}
"""Which files a shell may offer."""


class OptionError(usage.UsageError):
    """A value that is not accepted. ``str()`` is one line; ``status`` is the exit status."""

    def __init__(self, message: str, status: int = USAGE_STATUS) -> None:
        super().__init__(" ".join(message.splitlines()))
        self.status = status


@dataclass(frozen=True)
class Settings:
    """The options' values. Sizes are in bytes, times in seconds; ``web`` may be absent.

    ``journal`` is where it lies, None for nowhere; ``fsync`` is 0 for always and None for never.
    ``web_origin`` holds origins as browsers write them, ``web_token_file`` what the file holds.
    """

    socket: Path
    socket_mode: int
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
    max_peers: int
    cpu: int | None
    log_level: str
    log_format: str

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


@dataclass(frozen=True)
class Option:
    """One option: ``read`` makes its value from text; ``types`` may stand for text in the file.

    The value of a ``repeat`` option is a list of texts, each read apart. A ``switch`` has no value
    on the command line. ``words`` is what a shell may offer.
    """

    name: str
    short: str | None
    default: str
    meaning: str
    read: Callable[[str], object]
    types: tuple[type, ...] = (str,)
    words: tuple[str, ...] = ()
    repeat: bool = False
    switch: bool = False

    @property
    def help(self) -> str:
        """The meaning and the default."""
        return f"{self.meaning} [default: {self.default or 'none'}]"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.field.upper()

    @property
    def field(self) -> str:
        """The name in :class:`Settings`."""
        return self.name.replace("-", "_")


# fmt: off
OPTIONS = (
    Option("socket", "s", "/tmp/alphapulse/signals.sock",  # noqa: S108 (clients are deployed so)
           "Unix socket that peers connect to; its directory is made if missing", read.path),
    Option("socket-mode", None, "660", "permissions of the socket, octal", read.mode,
           words=("600", "660", "666")),
    Option("listen", "l", "", "one more listener, a Twisted server endpoint string; repeatable "
           "(in the environment: separated by blanks)", read.endpoint, repeat=True),
    Option("allow-plaintext", None, "false", "listen beyond loopback without encryption, too: "
           "whoever reaches it is a peer, and whoever is on the way reads all", read.truth, (bool,),
           switch=True),
    Option("web", "w", "tcp:9750:interface=127.0.0.1",
           "endpoint of the side port (metrics, health, status), or none", read.optional_endpoint),
    Option("web-origin", None, "", "one more origin whose pages may read signals from the side "
           "port, such as https://desk.example; repeatable (in the environment: separated by "
           "blanks)", read.origin, repeat=True),
    Option("web-token-file", None, "none", "file with the token that the side port asks for where "
           "it is not bound to loopback, and of who publishes; or none", read.token_file),
    Option("web-publish", None, "false", "let who has the token publish by the side port",
           read.truth, (bool,), switch=True),
    Option("journal", "j", JOURNAL_BESIDE, "directory that keeps the log, or none", read.journal),
    Option("journal-size", None, "1G", "disk space for the journal; the oldest messages go first",
           read.size, _NUMBER),
    Option("journal-age", None, "none", "how long messages are kept at most, such as 36h or 7d, or "
           "none", read.age, _NUMBER),
    Option("fsync", None, "1", "when the journal is synced to the disk: never, always, or seconds "
           "between syncs", read.fsync, (str, int, float), words=("never", "always", "1")),
    Option("validate", None, "checksum", "how much of a message is checked: framing, checksum "
           "or strict", read.level, words=tuple(Level)),
    Option("domains", None, "2", "relay domains that are accepted, such as 1,2", read.domains,
           _NUMBER),
    Option("tlv-types", None, "20-39", "TLV types that strict validation allows, such as "
           "20-39,50", read.byte_list, _NUMBER),
    Option("max-message", None, "1M", "largest message, header included; a larger one breaks "
           "the stream", read.message_size, _NUMBER),
    Option("backlog", None, "64M", "without a journal: how much of the log is kept in "
           "memory, for all peers together", read.size, _NUMBER),
    Option("hold", None, "1", "seconds that publishers may be held back by consumers of which "
           "none takes a byte", read.seconds, (str, int, float)),
    Option("max-peers", None, "10000", "connections at a time; further ones are refused",
           read.count, _NUMBER),
    Option("cpu", None, "none", "core to pin the relay to, or none", read.cpu, _NUMBER),
    Option("log-level", None, "info", "least severe events that are logged: "
           f"{', '.join(_LOG_LEVELS)}", read.choice(_LOG_LEVELS), words=_LOG_LEVELS),
    Option("log-format", None, "text", "form of the log: text, or json with one object per line",
           read.choice(_LOG_FORMATS), words=_LOG_FORMATS),
)
# fmt: on
_BY_NAME = {option.name: option for option in OPTIONS}
_CONFIG = Option(
    "config", None, "none", "TOML file of options, whose keys are their names", read.path
)


@dataclass(frozen=True)
class _Given:
    """A value as it was given. ``origin`` tells a person where, if it was not a flag."""

    value: str | list[str]
    origin: str = ""
    status: int = USAGE_STATUS


def settings_from(flags: Mapping[str, str | list[str]], environ: Mapping[str, str]) -> Settings:
    """Return the settings that flags, environment and the file named in one of them give.

    ``flags`` holds the options that were given on the command line, ``config`` among them, by
    name. Raises :class:`OptionError` for the first value that is wrong.
    """
    file = _read_file(_given(_CONFIG, flags, environ, {}))
    given = {option.name: _given(option, flags, environ, file) for option in OPTIONS}
    values = {option.field: _value(option, given[option.name]) for option in OPTIONS}
    settings = Settings(**values)
    if given["journal"].value == JOURNAL_BESIDE:
        settings = replace(settings, journal=settings.socket.parent / "journal")
    _check_listeners(settings, given["listen"])
    _check_publishing(settings, given["web-publish"])
    _check_backlog(settings, given["backlog"], given["max-message"])
    if settings.journal is not None:
        _check_journal(settings, given["journal-size"], given["max-message"])
    return settings


def settings_or_exit(flags: Mapping[str, str | list[str]], environ: Mapping[str, str]) -> Settings:
    """Do as :func:`settings_from`, but end the process with one line if a value is wrong."""
    try:
        return settings_from(flags, environ)
    except OptionError as error:
        _exit(error)


def _exit(error: usage.UsageError) -> NoReturn:
    print(f"signal-relay: {error}", file=sys.stderr)  # noqa: T201
    raise SystemExit(error.status if isinstance(error, OptionError) else USAGE_STATUS)


def _given(
    option: Option,
    flags: Mapping[str, str | list[str]],
    environ: Mapping[str, str],
    file: Mapping[str, _Given],
) -> _Given:
    if option.name in flags:
        return _Given(flags[option.name])
    if text := environ.get(option.variable):
        return _Given(text.split() if option.repeat else text, f" (from {option.variable})")
    default = _Given([] if option.repeat else option.default, " (default)")
    return file.get(option.name, default)


def _value(option: Option, given: _Given) -> Any:
    texts = given.value if isinstance(given.value, list) else [given.value]
    values = []
    for text in texts:
        try:
            values.append(option.read(text))
        except ValueError as error:
            message = f"--{option.name}{given.origin}: {text!r} {error}"
            raise OptionError(message, given.status) from error
    return tuple(values) if option.repeat else values[0]


def _check_listeners(settings: Settings, listen: _Given) -> None:
    """Refuse to be reached from elsewhere by what others can read, and change, on the way."""
    for endpoint in settings.listen:
        if not settings.allow_plaintext and read.is_exposed(endpoint):
            raise OptionError(
                f"--listen{listen.origin}: {endpoint!r} is neither encrypted nor bound to "
                "loopback: use mtls:, add interface=127.0.0.1, or give --allow-plaintext",
                listen.status,
            )


def _check_publishing(settings: Settings, publish: _Given) -> None:
    """Refuse to let anybody publish that a browser can be made to speak for."""
    if settings.web_publish and settings.web_token_file is None:
        raise OptionError(
            f"--web-publish{publish.origin}: a token is needed to publish: give --web-token-file",
            publish.status,
        )


def _check_backlog(settings: Settings, backlog: _Given, max_message: _Given) -> None:
    """Refuse a window too small for the largest message."""
    least = BACKLOG_SEGMENTS * (settings.max_message + SEGMENT_ROOM)
    if settings.backlog < least:
        raise OptionError(
            f"--backlog{backlog.origin}: {backlog.value} is too small for --max-message "
            f"{max_message.value}{max_message.origin}: at least {read.size_text(least)} is needed, "
            f"{BACKLOG_SEGMENTS} x (max-message + {read.size_text(SEGMENT_ROOM)})",
            os.EX_CONFIG if os.EX_CONFIG in (backlog.status, max_message.status) else USAGE_STATUS,
        )

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if settings.backlog > memory:
        raise OptionError(
            f"--backlog{backlog.origin}: {backlog.value} is more than the memory of this machine, "
            f"{memory >> 20}M",
            backlog.status,
        )


def _check_journal(settings: Settings, size: _Given, max_message: _Given) -> None:
    """Refuse a journal too small for the largest message."""
    room = settings.max_message + SEGMENT_ROOM
    if room_of(settings.journal_size) < room:
        least = size_for(room)
        raise OptionError(
            f"--journal-size{size.origin}: {size.value} is too small for --max-message "
            f"{max_message.value}{max_message.origin}: at least {read.size_text(least)} is needed",
            os.EX_CONFIG if os.EX_CONFIG in (size.status, max_message.status) else USAGE_STATUS,
        )


def _read_file(config: _Given) -> dict[str, _Given]:
    where, path = f"--config{config.origin}", str(config.value)
    if path == _CONFIG.default:
        return {}
    try:
        content = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        message = f"{where}: cannot read {path!r}: {error.strerror}"
        raise OptionError(message, os.EX_CONFIG) from error
    except ValueError as error:
        raise OptionError(f"{where}: {path} is not TOML: {error}", os.EX_CONFIG) from error
    except RecursionError:
        raise OptionError(f"{where}: {path} is nested too deeply", os.EX_CONFIG) from None
    return {name: _from_toml(name, value, path) for name, value in content.items()}


def _from_toml(name: str, value: object, path: str) -> _Given:
    option = _BY_NAME.get(name)
    if option is None:
        near = difflib.get_close_matches(name, _BY_NAME, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_BY_NAME)}"
        raise OptionError(f"--config: {path}: unknown key {name!r}: {hint}", os.EX_CONFIG)
    origin = f" (from {path})"
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # more digits, or brackets, than Python writes
        message = f"--{name}{origin}: the value is too long or nested too deeply"
        raise OptionError(message, os.EX_CONFIG) from None
    if option.repeat:
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            return _Given(value, origin, os.EX_CONFIG)
        message = f'--{name}{origin}: {shown} is not a list of strings, such as ["..."]'
    elif type(value) in option.types:
        text = str(value).lower() if option.switch else str(value)
        return _Given(text, origin, os.EX_CONFIG)
    elif option.switch:
        message = f"--{name}{origin}: {shown} is not true or false"
    else:
        accepted = " or a number" if len(option.types) > 1 else f', such as "{option.default}"'
        message = f"--{name}{origin}: {shown} is not a string{accepted}"
    raise OptionError(message, os.EX_CONFIG)


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
        f"{_BY_NAME['max-peers'].variable}), that over the file, and that over the default."
    )
    optParameters = [  # noqa: RUF012 (so usage.Options has it)
        [option.name, option.short, None, option.help]
        for option in (*OPTIONS, _CONFIG)
        if not option.repeat and not option.switch
    ]
    optFlags = [  # noqa: N815, RUF012 (so usage.Options has it)
        [option.name, option.short, option.help] for option in OPTIONS if option.switch
    ]
    compData = _completions()  # noqa: N815 (so usage.Options has it)
    settings: Settings

    def opt_listen(self, endpoint: str) -> None:  # noqa: D102 (the table has it)
        self.setdefault("listen", []).append(endpoint)

    opt_listen.__doc__ = _BY_NAME["listen"].help
    opt_l = opt_listen

    def opt_web_origin(self, origin: str) -> None:  # noqa: D102 (the table has it)
        self.setdefault("web-origin", []).append(origin)

    opt_web_origin.__doc__ = _BY_NAME["web-origin"].help

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
