"""The bridge's settings, and the command line that gives them.

Knows which values do not go together, and which reactor they are for.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from twisted.internet import asyncioreactor

from alphapulse_relay.bridge.compression import When
from alphapulse_relay.bridge.option_table import BRIDGE, STATE_BESIDE
from alphapulse_relay.bridge.option_values import ALL
from alphapulse_relay.command_line import CommandLine, precedence
from alphapulse_relay.option_sources import Given, OptionError, all_given, value_of
from alphapulse_relay.pem import PEMError, read_credentials

_OF_NEW_STREAMS = ("replicas", "max-bytes", "max-age")
_REACTOR = "twisted.internet.reactor"


@dataclass(frozen=True)
class BridgeSettings:
    """The options' values. Sizes are in bytes, times in seconds; what may be None may be absent.

    ``relay`` is a text for :func:`~alphapulse_relay.client.address.parse_address`. ``nats`` has at
    least one URL, each with a port and without a user. Of ``types``, ``sources``, ``take_types``,
    ``take_sources`` and ``take_from`` an empty set is all there are. ``password`` and ``token`` are
    what the files hold.
    """

    relay: str
    nats: tuple[str, ...]
    name: str
    stream: str
    subject: str
    create_stream: bool
    replicas: int
    max_bytes: int
    max_age: float | None
    types: frozenset[int]
    sources: frozenset[int]
    take_types: frozenset[int]
    take_sources: frozenset[int]
    take_from: frozenset[str]
    split_by_type: bool
    compress: When
    state: Path
    web: str | None
    nice: int
    credentials: Path | None
    user: str | None
    password: str | None = field(repr=False)
    token: str | None = field(repr=False)
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    log_level: str
    log_format: str


def settings_from(
    flags: Mapping[str, str | list[str]], environ: Mapping[str, str]
) -> BridgeSettings:
    """Return the settings that flags, environment and the file named in one of them give.

    ``flags`` are as :func:`all_given` takes them. Raises :class:`OptionError` for the first value
    that is wrong.
    """
    given, _ = all_given(BRIDGE, flags, environ)
    _check_servers(given["nats"])
    values = {option.field: value_of(option, given[option.name]) for option in BRIDGE.options}
    names = frozenset(values["take_from"])
    values |= {
        "take_from": frozenset() if ALL in names else names,
        "password": values.pop("password_file"),
        "token": values.pop("token_file"),
    }
    settings = BridgeSettings(**values)
    _check_together(settings, given)
    if given["state"].value == STATE_BESIDE:
        settings = replace(settings, state=_state_beside(settings, given["relay"]))
    return settings


def use_asyncio() -> None:
    """Install the reactor of asyncio, which the client of NATS needs, unless it is already.

    Before twistd has read its command line nothing has chosen a reactor, but for its own option.
    Raises :class:`OptionError` if another one is installed.
    """
    installed = sys.modules.get(_REACTOR)
    if installed is None:
        asyncioreactor.install()
    elif not isinstance(installed, asyncioreactor.AsyncioSelectorReactor):
        raise OptionError(
            f"{type(installed).__name__} is installed, and NATS needs the reactor of asyncio: "
            "leave out --reactor of twistd"
        )


def _check_servers(servers: Given) -> None:
    """Refuse no server, and URLs with a secret in them, which are not even shown."""
    if not servers.value:
        raise OptionError(f"--nats{servers.origin}: no server is named", servers.status)
    if any("@" in url for url in servers.value):
        raise OptionError(
            f"--nats{servers.origin}: there is a user or a token in a URL: give --user and "
            "--password-file, or --token-file",
            servers.status,
        )


def _check_together(settings: BridgeSettings, given: Mapping[str, Given]) -> None:
    """Raise :class:`OptionError` for the first of the values that does not go with the others."""
    if settings.name in settings.take_from:
        _refuse("take-from", given, f"{settings.name!r} is this relay itself, by --name")
    if not settings.create_stream:
        _check_old_stream(settings, given)
    _check_user(settings, given)
    _check_certificate(settings, given)


def _check_old_stream(settings: BridgeSettings, given: Mapping[str, Given]) -> None:
    for option in (BRIDGE.by_name[name] for name in _OF_NEW_STREAMS):
        if getattr(settings, option.field) != option.read(option.default):
            _refuse(
                option.name, given, "a stream that there is stays as it is: give --create-stream"
            )


def _check_user(settings: BridgeSettings, given: Mapping[str, Given]) -> None:
    """Refuse half of a user, and more than one way to say who this is."""
    if settings.user is not None and settings.password is None:
        _refuse("user", given, "a password is needed, too: give --password-file")
    if settings.password is not None and settings.user is None:
        _refuse("password-file", given, "whose that is must be known: give --user")
    ways = {
        "credentials": settings.credentials,
        "user": settings.user,
        "token-file": settings.token,
    }
    first, *more = [name for name, value in ways.items() if value is not None] or [""]
    if more:
        _refuse(more[0], given, f"--{first} is given already, and only one of them can count")


def _check_certificate(settings: BridgeSettings, given: Mapping[str, Given]) -> None:
    """Refuse half of a certificate, one that is never shown, and another one's key."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None:
        if key is not None:
            _refuse("tls-key", given, "its certificate is needed, too: give --tls-cert")
        return
    if key is None:
        _refuse("tls-cert", given, "its key is needed, too: give --tls-key")
    if settings.tls_ca is None and not any(url.startswith("tls:") for url in settings.nats):
        _refuse("tls-cert", given, "nothing is encrypted: give a tls:// URL, or --tls-ca")
    try:
        read_credentials(cert, key)
    except PEMError as error:
        _refuse("tls-cert", given, f"cannot be used with --tls-key: {error}")


def _state_beside(settings: BridgeSettings, relay: Given) -> Path:
    """Return the state's file beside the socket, which is to be in a directory itself."""
    if not settings.relay.startswith("/"):
        raise OptionError(
            f"--state: there is no directory beside {settings.relay!r}{relay.origin}: give --state",
            relay.status,
        )
    return Path(settings.relay).parent / f"bridge-{settings.name}.state"


def _refuse(name: str, given: Mapping[str, Given], what: str) -> NoReturn:
    raise OptionError(f"--{name}{given[name].origin}: {what}", given[name].status)


class Options(CommandLine, table=BRIDGE):
    """The command line of ``twistd signal-relay-bridge``. After :meth:`parseOptions`: ``settings``.

    Parsing it installs the reactor that they are for.
    """

    longdesc = (
        "Joins a relay to a stream of NATS JetStream, and so to the relays of other hosts: what is "
        "sent to one of them goes to all. " + precedence(BRIDGE, "take-from")
    )
    settings: BridgeSettings

    def postOptions(self) -> None:
        """Read environment and file, too, into ``settings``."""
        use_asyncio()
        self.settings = settings_from(self.flags, os.environ)
