"""What the text of a value may be that only the bridge's options have.

As in :mod:`alphapulse_relay.option_values`, each reader takes a text and returns its value, or
raises a ``ValueError`` that goes on where the text ends.
"""

import os
import re
import socket
from pathlib import Path

from alphapulse_relay import option_values as read
from alphapulse_relay.bridge.compression import When
from alphapulse_relay.client.address import TLSAddress, UnixAddress, parse_address
from alphapulse_relay.client.endpoint import read_options
from alphapulse_relay.pem import PEMError, read_certificates
from alphapulse_relay.small_files import read_small

ALL = "all"
"""What stands for every type, source or relay."""
HOST_NAME = "host name"
"""What the default of ``--name`` is called."""
NAME_MAX = 64
"""Characters of a relay's name: it is a label of metrics, and the name of a consumer in NATS."""
REPLICAS_MAX = 5
"""Servers that can keep a stream, each as a whole (nats-server, ``StreamMaxReplicas``)."""
NICENESS_MAX = 19
"""Of a process (setpriority(2))."""
SECRET_FILE_MAX = 64 * 1024
"""Bytes of a secret's file that are read: the credentials of NATS have some thousand."""
NATS_PORT = 4222
"""Where a server listens whose URL names no port."""
_NATS_URL = re.compile(r"(?:nats|tls)://(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_STREAM = re.compile(r"[^.*>/\\]{1,255}")
"""As nats-server has it (``JSMaxNameLen``, ``isValidName``), but for blanks and the like."""
_LEVEL = r"[^.*>$]+"
_SUBJECT = re.compile(rf"{_LEVEL}(?:\.{_LEVEL})*")
"""Levels; ``*`` and ``>`` stand for others, and ``$`` begins what NATS keeps for itself."""


def relay_address(text: str) -> str:
    """Check a relay's address, see :mod:`~alphapulse_relay.client.address`; make a path absolute.

    The files that it names must be readable, also from another directory: twistd changes its own
    later.
    """
    try:
        place = parse_address(text)
        if isinstance(place, TLSAddress):
            if not all(os.path.isabs(each) for each in (place.ca, place.cert, place.key) if each):
                raise ValueError("its files are to be absolute paths")
            read_options(place)
    except ValueError as error:
        raise ValueError(f"is not the address of a relay: {error}") from error
    except OSError as error:
        raise ValueError(f"cannot be used: {error}") from error
    if isinstance(place, UnixAddress):
        return str(read.socket_path(place.path.replace("\0", read.ABSTRACT, 1)))
    return text


def relay_name(text: str) -> str:
    """Read the name of a relay.

    :data:`HOST_NAME` is this host's, with ``-`` for the characters that may not be in it.
    """
    if text == HOST_NAME:
        text = re.sub("[^A-Za-z0-9_-]", "-", socket.gethostname())[:NAME_MAX]
    if not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{NAME_MAX}}}", text) or text == ALL:
        raise ValueError(
            f"is not a name of 1 to {NAME_MAX} of the characters A-Z a-z 0-9 _ -, other than {ALL}"
        )
    return text


def relay_or_all(text: str) -> str:
    """Read the name of a relay, or :data:`ALL`."""
    return text if text == ALL else relay_name(text)


def nats_url(text: str) -> str:
    """Read the URL of a server; return it with its port."""
    match = _NATS_URL.fullmatch(text)
    if match is None or int(match[1] or NATS_PORT) not in range(1, 65536):
        raise ValueError(
            "is not a URL such as nats://nats.example:4222, or tls:// for an encrypted one"
        )
    return text if match[1] else f"{text}:{NATS_PORT}"


def stream_name(text: str) -> str:
    """Read the name of a stream."""
    if not _STREAM.fullmatch(text) or not _is_plain(text):
        raise ValueError(
            "is not the name of a stream: up to 255 characters, no blank nor any of .*>/\\"
        )
    return text


def subject(text: str) -> str:
    """Read what subjects begin with."""
    if not _SUBJECT.fullmatch(text) or not _is_plain(text):
        raise ValueError("is not a subject such as signals or desk.signals: no blank, no *, > or $")
    return text


def replicas(text: str) -> int:
    """Read how many servers keep a stream."""
    if not re.fullmatch(f"[1-{REPLICAS_MAX}]", text):
        raise ValueError(f"is not a number from 1 to {REPLICAS_MAX}")
    return int(text)


def when_to_compress(text: str) -> When:
    """Read when payloads are compressed."""
    return When(read.choice(tuple(When))(text))


def niceness(text: str) -> int:
    """Read a nice value that needs no rights (nice(2))."""
    if not re.fullmatch("[0-9]{1,2}", text) or int(text) > NICENESS_MAX:
        raise ValueError(f"is not a number from 0 to {NICENESS_MAX}")
    return int(text)


def stream_size(text: str) -> int:
    """Read the size of a stream: 0 would be without a limit."""
    size = read.size(text)
    if not size:
        raise ValueError("leaves no room")
    return size


def byte_list_or_all(text: str) -> frozenset[int]:
    """Read a list as :func:`option_values.byte_list` does; :data:`ALL` is an empty one."""
    return frozenset() if text == ALL else read.byte_list(text)


def user(text: str) -> str | None:
    """Read the name of a user; ``none`` is none."""
    if not text or not text.isprintable():
        raise ValueError("is not a name of printable characters")
    return None if text == "none" else text


def secret_file(text: str) -> str | None:
    """Return the one line that a file holds, a password or a token; ``none`` is none."""
    if text == "none":
        return None
    try:
        secret = _read_secret(read.path(text)).decode().strip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    if not secret or not secret.isprintable():
        raise ValueError("does not hold one line of printable characters")
    return secret


def credentials_file(text: str) -> Path | None:
    """Read where a user's credentials are (``.creds`` of NATS); ``none`` is nowhere."""
    if text == "none":
        return None
    path = read.path(text)
    if b"-----BEGIN NATS USER JWT-----" not in _read_secret(path):
        raise ValueError("does not hold the credentials of a user of NATS")
    return path


def certificates_file(text: str) -> Path | None:
    """Read where certificates are, in PEM; ``none`` is nowhere."""
    if text == "none":
        return None
    path = read.path(text)
    try:
        read_certificates(path)
    except PEMError as error:
        raise ValueError(f"cannot be used: {error}") from error
    return path


def key_file(text: str) -> Path | None:
    """Read where a key is, which is looked at with its certificate only; ``none`` is nowhere."""
    return None if text == "none" else read.path(text)


def _is_plain(text: str) -> bool:
    return text.isprintable() and " " not in text and text.isascii()


def _read_secret(path: Path) -> bytes:
    try:
        file = read_small(path, SECRET_FILE_MAX)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if file.is_open_to_others:
        raise ValueError(
            f"is open to others than its owner and group (mode {file.mode:o}): chmod 640"
        )
    return file.content
