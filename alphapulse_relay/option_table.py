"""What an option is, and every option of the relay, in one table.

Knows names, defaults and what is accepted; where a value comes from it does not know, nor what the
options do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from alphapulse_relay import option_values as read
from alphapulse_relay.protocol_v2.framing import Level

JOURNAL_BESIDE = "journal beside the socket"
"""What the default of ``--journal`` is called."""
_LOG_LEVELS = ("debug", "info", "warn", "error", "critical")
_LOG_FORMATS = ("text", "json")
_NUMBER = (str, int)


@dataclass(frozen=True)
class Option:
    """One option: ``read`` makes its value from text; ``types`` may stand for text in the file.

    The value of a ``repeat`` option is a list of texts, each read apart. A ``switch`` has no value
    on the command line; the default of a ``repeat`` one is separated by blanks. ``words`` is what a
    shell may offer, or the files whose names match ``files``. With ``reload``, a running relay
    takes another value at SIGHUP.
    """

    name: str
    short: str | None
    default: str
    meaning: str
    read: Callable[[str], object]
    types: tuple[type, ...] = (str,)
    words: tuple[str, ...] = ()
    files: str = ""
    repeat: bool = False
    switch: bool = False
    reload: bool = False

    @property
    def help(self) -> str:
        """The meaning and the default."""
        return f"{self.meaning} [default: {self.default or 'none'}]"

    @property
    def field(self) -> str:
        """The name as an attribute of the settings."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class Table:
    """All options of a ``program``. With ``access`` its file may have access rules, too."""

    program: str
    options: tuple[Option, ...]
    access: bool = False

    @cached_property
    def by_name(self) -> dict[str, Option]:
        """The options by their names."""
        return {option.name: option for option in self.options}

    @property
    def prefix(self) -> str:
        """What the environment variables begin with."""
        return self.program.replace("-", "_").upper() + "_"

    def variable(self, option: Option) -> str:
        """Return an option's environment variable."""
        return self.prefix + option.field.upper()


# fmt: off
LOG_OPTIONS = (
    Option("log-level", None, "info", "least severe events that are logged: "
           f"{', '.join(_LOG_LEVELS)}", read.choice(_LOG_LEVELS), words=_LOG_LEVELS, reload=True),
    Option("log-format", None, "text", "form of the log: text, or json with one object per line",
           read.choice(_LOG_FORMATS), words=_LOG_FORMATS),
)
"""Those that each program has."""
OPTIONS = (
    Option("socket", "s", "/tmp/alphapulse/signals.sock",  # noqa: S108 (clients are deployed so)
           "Unix socket that peers connect to; its directory is made if missing. Or @NAME, an "
           "abstract name", read.socket_path, files="*.sock"),
    Option("socket-mode", None, "660", "permissions of the socket, octal", read.mode,
           words=("600", "660", "666")),
    Option("takeover", None, "false", "take the sockets over from the relay that lives on the "
           "socket, which leaves; start as usual if there is none", read.truth, (bool,),
           switch=True),
    Option("listen", "l", "", "one more listener, a Twisted server endpoint string; repeatable "
           "(in the environment: separated by blanks)", read.endpoint, repeat=True),
    Option("allow-plaintext", None, "false", "listen beyond loopback without encryption, too: "
           "whoever reaches it is a peer, and whoever is on the way reads all", read.truth, (bool,),
           switch=True),
    Option("web", "w", "tcp:9750:interface=127.0.0.1",
           "endpoint of the side port (metrics, health, status), or none", read.optional_endpoint),
    Option("web-origin", None, "", "one more origin whose pages may read signals from the side "
           "port, such as https://desk.example; repeatable (in the environment: separated by "
           "blanks)", read.origin, repeat=True, reload=True),
    Option("web-token-file", None, "none", "file with the token that the side port asks for where "
           "it is not bound to loopback, and of who publishes; or none", read.token_file,
           files="*", reload=True),
    Option("web-publish", None, "false", "let who has the token publish by the side port",
           read.truth, (bool,), switch=True, reload=True),
    Option("journal", "j", JOURNAL_BESIDE, "directory that keeps the log, or none", read.journal,
           files="*"),
    Option("journal-size", None, "1G", "disk space for the journal; the oldest messages go first",
           read.size, _NUMBER),
    Option("journal-age", None, "none", "how long messages are kept at most, such as 36h or 7d, or "
           "none", read.age, _NUMBER, reload=True),
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
    Option("backlog", None, "64M", "how much of the log is kept in memory, for all peers "
           "together, without a journal, or while the disk does not take it", read.size, _NUMBER),
    Option("hold", None, "1", "seconds that publishers may be held back by consumers of which "
           "none takes a byte", read.seconds, (str, int, float), reload=True),
    Option("drain", None, "5", "seconds that the relay goes on delivering for once it was told to "
           "leave; who has not taken everything then is cut", read.seconds, (str, int, float),
           reload=True),
    Option("max-peers", None, "10000", "connections at a time; further ones are refused",
           read.count, _NUMBER, reload=True),
    Option("cpu", None, "none", "core to pin the relay to, or none", read.cpu, _NUMBER),
    *LOG_OPTIONS,
)
CONFIG = Option("config", None, "none", "TOML file of options, whose keys are their names",
                read.path, files="*.toml")
# fmt: on
"""Names the file of the others, so it cannot be in it."""
RELAY = Table("signal-relay", OPTIONS, access=True)
