"""The configuration file: any bytes, and any TOML.

What must hold: it gives Settings, or an OptionError of one line, with nothing in it that a terminal
would obey, whose status says that the file is wrong. Nothing else is raised.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tomllib import _parser

from twisted.internet import endpoints
from twisted.plugin import getPlugins

from alphapulse_relay import access_file, option_values, options
from alphapulse_relay.options import OPTIONS, OptionError, Settings, settings_from
from fuzz.choices import Choices

MODULES = (access_file, option_values, options, _parser)
MAX_LEN = 300
COMPARISONS = False
ACCESS_KEYS = tuple(access_file._KEYS)
LINES_MAX = 5
"""Of keys in one file that is made: each value is read apart from the others."""
VALUES = (
    *("none", "0", "1", "-1", "660", "0660", "always", "never", "64M", "1G", "10K", "1e9", "nan"),
    *("36h", "7d", "inf", "true", "false", "20-39,50", "2", "0-255", "debug", "json", "strict"),
    *("tcp:0", "tcp:9750:interface=127.0.0.1", "unix:/tmp/x", "ssl:443", "mtls:1", "systemd:"),
    *(
        "https://desk.example:8443",
        "root",
        "daemon",
        "*.desk.example",
        "a*.b",
        "relative",
        "/nowhere/token",
        "\\u0000",
        "a" * 300,
    ),
)
WORDS = (
    *(option.name for option in OPTIONS),
    *("[[access]]", "[access]", '"""', "'''", "inf", "nan", "0x", "1_000", "1979-05-27T07:32:00Z"),
    *(*ACCESS_KEYS, "sources"),
    *VALUES[:-2],
)
_ROOT = Path(__file__).parents[1]
_RAW, _MADE = 0, 1
_KEYS = tuple(option.name for option in OPTIONS)
_PLUGINS = {
    interface: list(getPlugins(interface))
    for interface in (endpoints.IStreamServerEndpointStringParser,)
}


def run(data: bytes) -> None:
    """Read a file; see above."""
    choices = Choices(data)
    text = choices.rest() if choices.byte() % 2 == _RAW else made(choices).encode()
    check_file(text)


def seeds() -> Iterator[bytes]:
    """Yield what to begin with: the sample's tables, each key with each kind of value."""
    for part in (_ROOT / "etc" / "signal-relay.toml").read_bytes().split(b"\n\n"):
        yield bytes([_RAW]) + part[:MAX_LEN]
        yield bytes([_RAW]) + part.replace(b"\n# ", b"\n").replace(b"\n#", b"\n")[:MAX_LEN]
    yield bytes([_RAW]) + b'[[access]]\nname = "a"\nuid = [1, "root"]\npublish = {domains = [2]}\n'
    for key in range(len(_KEYS)):
        for kind in range(len(_KINDS)):
            yield bytes([_MADE, key, kind, key])
    for key in range(1, len(ACCESS_KEYS)):
        for kind in range(len(_KINDS)):
            yield bytes([_MADE, len(_KEYS), 1, key, kind, 20, 21])
    for value in range(len(VALUES)):
        yield bytes([_MADE, value, 0, value, value + 1, 1, value])


def check_file(content: bytes) -> None:
    """Read a file that holds these bytes, without any flag or variable."""
    os.ftruncate(_file, 0)
    os.pwrite(_file, content, 0)
    try:
        settings = settings_from({"config": f"/proc/self/fd/{_file}"}, {})
    except OptionError as error:
        assert str(error).isprintable(), ascii(str(error))
        assert error.status == os.EX_CONFIG, error
    else:
        assert isinstance(settings, Settings)


def made(choices: Choices) -> str:
    """Return TOML with some known keys, and tables of access rules."""
    lines: list[str] = []
    keys = _KEYS
    while choices and len(lines) < LINES_MAX:
        key, kind = choices.byte() % (len(keys) + 1), choices.byte()
        if key < len(keys):
            lines.append(f"{keys[key]} = {_KINDS[kind % len(_KINDS)](choices)}\n")
        else:
            keys = ACCESS_KEYS
            lines.append(f'[[access]]\nname = "{kind}"\n')
    return "".join(lines)


def _word(choices: Choices) -> str:
    return f'"{VALUES[choices.byte() % len(VALUES)]}"'


def _any_text(choices: Choices) -> str:
    text = choices.take(choices.byte() % 40).decode("latin-1")
    return '"' + "".join(f"\\u{ord(each):04x}" for each in text) + '"'


def _integer(choices: Choices) -> str:
    return str(choices.number(choices.byte() % 9))


def _float(choices: Choices) -> str:
    return f"{choices.number(4)}.{choices.byte()}e{choices.byte()}"


def _truth(choices: Choices) -> str:
    return ("true", "false")[choices.byte() % 2]


def _list(choices: Choices) -> str:
    return f"[{_word(choices)}, {_any_text(choices)}]"


def _numbers(choices: Choices) -> str:
    return f"[{choices.byte()}, {choices.number(2)}]"


def _table(choices: Choices) -> str:
    return f"{{domains = {_numbers(choices)}, sources = {_numbers(choices)}}}"


_KINDS = (_word, _any_text, _integer, _float, _truth, _list, _numbers, _table)
_file = os.memfd_create("configuration")
# Each endpoint would look through the directories of plugins anew.
endpoints.getPlugins = lambda interface: iter(_PLUGINS[interface])
