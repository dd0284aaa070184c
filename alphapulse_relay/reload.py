"""SIGHUP: what flags, environment and file say by now, while the relay runs.

Knows which settings a running relay can take, and finds what is wrong before anything changes. What
a setting does it does not know.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import NamedTuple

from alphapulse_relay.option_table import OPTIONS
from alphapulse_relay.options import Settings, settings_from

_NAMES = {option.field: f"--{option.name}" for option in OPTIONS}
_RESTART = {option.field for option in OPTIONS if not option.reload}


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
    the relay would not start by it.
    """
    after = settings_from(flags, environ)
    different = [
        field.name
        for field in fields(Settings)
        if getattr(before, field.name) != getattr(after, field.name)
    ]
    old = {name: getattr(before, name) for name in different if name in _RESTART}
    return Reload(
        replace(after, **old),
        [_NAMES.get(name, name) for name in different if name not in old],
        [_NAMES[name] for name in old],
    )
