"""SIGHUP: what flags, environment and file say by now, while the relay runs.

Knows which settings a running relay can take, finds what is wrong before anything changes, and
tells each part of the relay what it goes by from then on.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from twisted.logger import Logger

from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.journal import Journal
from alphapulse_relay.hub.permission import AccessRules
from alphapulse_relay.logs import FileLog
from alphapulse_relay.option_sources import Given, all_given
from alphapulse_relay.option_table import OPTIONS, RELAY
from alphapulse_relay.options import Settings, check_together, settings_of
from alphapulse_relay.web.access import Access

_OPTION = {option.field: option.name for option in OPTIONS}
_NAMES = {field: f"--{name}" for field, name in _OPTION.items()}
_RESTART = {option.field for option in OPTIONS if not option.reload}

_log = Logger()


class Reload(NamedTuple):
    """What has changed, by the names that people know it by.

    ``settings`` are those that count from now on: of what needs a ``restart`` they are as before.
    """

    settings: Settings
    changed: list[str]
    restart: list[str]


def read_again(
    before: Settings, flags: Mapping[str, str | list[str]], environ: Mapping[str, str]
) -> Reload:
    """Read the settings again; the arguments are as those of :func:`options.settings_from`.

    Raises :class:`OptionError` for the first value that is wrong, be it one that needs a restart:
    the relay would not start by it. So it does for one that does not go with what stays as it is
    until then.
    """
    given, access = all_given(RELAY, flags, environ)
    after = settings_of(given, access)
    different = [
        field.name
        for field in fields(Settings)
        if getattr(before, field.name) != getattr(after, field.name)
    ]
    old = {name: getattr(before, name) for name in different if name in _RESTART}
    mixed = replace(after, **old)
    check_together(mixed, given | {_OPTION[name]: _kept(value) for name, value in old.items()})
    return Reload(
        mixed,
        [_NAMES.get(name, name) for name in different if name not in old],
        [_NAMES[name] for name in old],
    )


def _kept(value: object) -> Given:
    """Return how to speak of a value that stays."""
    return Given(str(value), " (until a restart)", os.EX_CONFIG)


def tell_of(reload: Reload) -> None:
    """Log what changed."""
    if reload.restart:
        _log.warn("SIGHUP: needs a restart: {options}", options=", ".join(reload.restart))
    _log.info(
        "SIGHUP: settings and certificates were read again; changed: {options}",
        options=", ".join(reload.changed) or ("nothing else" if reload.restart else "nothing"),
    )


def for_access(
    settings: Settings,
) -> tuple[tuple[str, ...], str | None, bool, AccessRules | None]:
    """Return what decides who may ask the side port for what, as :class:`Access` takes it."""
    return settings.web_origin, settings.web_token_file, settings.web_publish, settings.access


@dataclass
class Parts:
    """What of a relay can go by other settings while it runs."""

    hub: SignalRelayFactory
    access: Access
    journal: Journal | None
    file_log: FileLog | None = None

    def reopen_log(self) -> None:
        """Write to the file that has the log's name by now."""
        if self.file_log is not None:
            self.file_log.reopen()

    def go_by(self, settings: Settings) -> None:
        """Go by these settings, as far as a relay that runs can."""
        self.hub.pace.patience = settings.hold
        self.hub.log_chunks(settings.log_level == "debug")
        self.access.change(*for_access(settings))
        self.hub.access = settings.access
        if self.journal is not None:
            self.journal.keep_for(settings.journal_age)
        if self.file_log is not None:
            self.file_log.set_level(settings.log_level)
