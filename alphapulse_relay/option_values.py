"""What the text of an option's value may be.

Each reader takes a text and returns its value, or raises a ``ValueError`` that goes on where the
text ends: what it is not, and so what is accepted. Knows neither the options' names nor where the
text came from.
"""

import math
import os
import re
import socket
from collections.abc import Callable, Iterable
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXServerEndpoint,
    serverFromString,
)

from alphapulse_relay.protocol_v2.framing import Level
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Domain
from alphapulse_relay.small_files import read_small

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PORTS = {"http": 80, "https": 443}
"""Which port a browser leaves out of an origin."""
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?"
)
"""Scheme, host and port as browsers write them (RFC 6454, section 6.2)."""
_TOKEN = re.compile(rb"[A-Za-z0-9._~-]{16,1024}")
"""What can be sent in a header and as a subprotocol, and is long enough not to be guessed."""
TOKEN_FILE_MAX = 2048
"""Bytes of a token's file that are read: more than a token has."""
ABSTRACT = "@"
"""What an abstract name begins with, as a person writes it."""
CORES = frozenset(os.sched_getaffinity(0))
"""Those that this process may run on, as it was started (sched_getaffinity(2)): a relay that
is pinned has one left."""
_PORT = re.compile(r"\b(?:tcp6?|ssl|mtls):(?:port=)?(-?\d+)")


def path(text: str) -> Path:
    """Read a path, made absolute: twistd changes its directory later."""
    if not text or not text.isprintable():
        raise ValueError("is not a path of printable characters")
    return Path(text).absolute()


def socket_path(text: str) -> Path:
    """Read a path, made absolute, or the abstract name of a Unix socket, such as ``@relay``."""
    if not text.startswith(ABSTRACT):
        return path(text)
    name = text.removeprefix(ABSTRACT)
    if not name or not name.isprintable() or "/" in name:
        raise ValueError("is not an abstract name of printable characters, such as @relay, nor /")
    return Path(text)


def mode(text: str) -> int:
    """Read the permission bits of a file, octal, the way chmod(1) takes them."""
    if not re.fullmatch("0?[0-7]{1,3}", text):
        raise ValueError("is not an octal mode from 0 to 777, such as 660")
    return int(text, 8)


def endpoint(text: str) -> str:
    """Check a Twisted server endpoint string (``twisted.internet.endpoints.serverFromString``).

    The endpoint is built for the check, so the files that it names must be readable; nothing
    listens, which is all that an endpoint needs its reactor for.
    """
    try:
        serverFromString(object(), text)
        if "\0" in text:
            raise ValueError("an abstract name can only be a --socket")
        if any(not 0 <= int(port) <= 65535 for port in _PORT.findall(text)):
            raise ValueError("a port is a number from 0 to 65535")
    except OSError as error:  # of a file that it names
        raise ValueError(f"cannot be used: {_reason(error)}") from error
    except Exception as error:  # each kind of endpoint raises what its own parser does
        message = f"is not a Twisted server endpoint such as tcp:9750: {_reason(error)}"
        raise ValueError(message) from error
    return text


@cache
def is_exposed(text: str) -> bool:
    """Tell whether an endpoint, checked before, may be reached from elsewhere without encryption.

    Of kinds that are not known here it is supposed. The first answer counts: what systemd passed in
    is closed once an endpoint listens by it, and its number becomes another file's.
    """
    found = serverFromString(object(), text)
    if isinstance(found, TCP4ServerEndpoint | TCP6ServerEndpoint):
        return not _is_loopback(found._interface)
    if isinstance(found, AdoptedStreamServerEndpoint):
        try:
            with socket.socket(fileno=os.dup(found.fileno)) as passed_in:
                name = passed_in.getsockname()
        except OSError:
            return True
        return found.addressFamily != socket.AF_UNIX and not _is_loopback(name[0])
    return not isinstance(found, SSL4ServerEndpoint | UNIXServerEndpoint)


def _is_loopback(interface: str) -> bool:
    try:
        return ip_address(interface).is_loopback
    except ValueError:
        return interface == "localhost"


def _reason(error: Exception) -> str:
    if isinstance(error, LookupError):
        return "a part is missing, or systemd has passed no such socket"
    reason = re.sub(r"^_?\w+\(\) ", "", str(error)) or type(error).__name__
    # It may quote what was set, and is written to a terminal.
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in reason)


def optional_endpoint(text: str) -> str | None:
    """Check an endpoint; ``none`` is none."""
    return None if text == "none" else endpoint(text)


def origin(text: str) -> str:
    """Read a web origin; return it as browsers write it, without a port that its scheme implies."""
    match = _ORIGIN.fullmatch(text.lower())
    if match is None or int(match[3] or 1) not in range(1, 65536):
        raise ValueError("is not an origin such as https://desk.example:8443: no path, no *")
    implied = match[3] is None or int(match[3]) == _PORTS.get(match[1])
    return f"{match[1]}://{match[2]}" + ("" if implied else f":{int(match[3])}")


def token_file(text: str) -> str | None:
    """Return the token that a file holds; ``none`` is none."""
    if text == "none":
        return None
    try:
        file = read_small(path(text), TOKEN_FILE_MAX)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if file.is_open_to_others:
        raise ValueError(
            f"is open to others than its owner and group (mode {file.mode:o}): chmod 640"
        )
    token = file.content.strip()
    if not _TOKEN.fullmatch(token):
        raise ValueError("does not hold one token: 16 to 1024 characters of A-Z a-z 0-9 . _ ~ -")
    return token.decode()


def truth(text: str) -> bool:
    """Read whether something is so."""
    if text not in ("1", "true", "0", "false"):
        raise ValueError("is not one of 1, true, 0, false")
    return text in ("1", "true")


def size(text: str) -> int:
    """Read a number of bytes; K, M and G are powers of 1024."""
    match = re.fullmatch("([0-9]{1,15})([KMG]?)", text.upper())
    if match is None:
        raise ValueError("is not a size in bytes, or with K, M or G, such as 64M")
    return int(match[1]) * _UNITS[match[2]]


def size_text(number: int) -> str:
    """Write a number of bytes, not 0, as :func:`size` reads it."""
    unit = max((unit for unit in _UNITS if number % _UNITS[unit] == 0), key=_UNITS.__getitem__)
    return f"{number // _UNITS[unit]}{unit}"


def message_size(text: str) -> int:
    """Read the limit of a message's size, in bytes."""
    limit = size(text)
    if limit < HEADER_SIZE:
        raise ValueError(f"is less than the {HEADER_SIZE} bytes of a message's header")
    return limit


def seconds(text: str) -> float:
    """Read a time in seconds: finite, 0 or more."""
    try:
        time = float(text)
    except ValueError:
        time = math.nan
    if not 0 <= time < math.inf:
        raise ValueError("is not a number of seconds, 0 or more")
    return time


def journal(text: str) -> Path | None:
    """Read a directory; ``none`` is none."""
    return None if text == "none" else path(text)


def age(text: str) -> float | None:
    """Read a time in seconds, or with s, m, h or d, more than 0; ``none`` is none."""
    if text == "none":
        return None
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)", text)
    if match is None or not float(match[1]):
        raise ValueError("is not a time such as 90m, 36h or 7d, nor none")
    return float(match[1]) * _TIMES[match[2] or "s"]


def fsync(text: str) -> float | None:
    """Read when to sync: seconds, 0 for ``always``, None for ``never``."""
    if text in ("never", "always"):
        return None if text == "never" else 0.0
    try:
        return seconds(text)
    except ValueError:
        raise ValueError("is not never, always, or a number of seconds") from None


def count(text: str) -> int:
    """Read a whole number, 1 or more."""
    if not re.fullmatch("0*[1-9][0-9]{0,14}", text):
        raise ValueError("is not a whole number, 1 or more")
    return int(text)


def byte_list(text: str) -> frozenset[int]:
    """Read a list such as ``20-39,50`` of numbers that fit a byte."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r" *([0-9]{1,3})(?:-([0-9]{1,3}))? *", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= 255:
            raise ValueError("is not a list of numbers and ranges from 0 to 255, such as 20-39,50")
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def domains(text: str) -> frozenset[int]:
    """Read a list of relay domains; the one of control messages is not for relaying."""
    numbers = byte_list(text)
    if Domain.SYSTEM in numbers:
        raise ValueError(f"contains {Domain.SYSTEM:d}, which is kept for control messages")
    return numbers


def cpu(text: str) -> int | None:
    """Read the number of a core of :data:`CORES`, or none."""
    if text == "none":
        return None
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) not in CORES:
        raise ValueError(f"is not a core that is available here ({_ranges(CORES)}), nor none")
    return int(text)


def _ranges(numbers: Iterable[int]) -> str:
    """Write numbers as :func:`byte_list` reads them."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def choice(words: tuple[str, ...]) -> Callable[[str], str]:
    """Return a reader that takes one of ``words``."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return text

    return read


def level(text: str) -> Level:
    """Read a level of validation."""
    return Level(choice(tuple(Level))(text))
