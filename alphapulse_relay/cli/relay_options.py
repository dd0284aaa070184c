"""The relay's own options, for commands that look at how a relay is, or would be, set up.

The one door from the command line to the relay's options. It is opened only by the commands that
need it: behind it is Twisted, which takes longer to load than ``signal-relay tail`` to begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from alphapulse_relay.cli.table_command import Flags, TableCommand

if TYPE_CHECKING:
    from alphapulse_relay.option_sources import OptionError
    from alphapulse_relay.option_table import Table
    from alphapulse_relay.options import Settings


class RelayCommand(TableCommand):
    """A command that takes all of the relay's options."""

    def table(self) -> Table:
        """Load them."""
        from alphapulse_relay.option_table import RELAY  # noqa: PLC0415

        return RELAY


def forgiving_settings(
    flags: Flags, environ: Mapping[str, str]
) -> tuple[Settings, list[OptionError]]:
    """Return the settings, and all that is wrong: what is wrong counts as not given.

    Of the file that is a value, a key or an access rule; all of it only where it cannot be read.
    """
    from alphapulse_relay.option_sources import OptionError, all_given, default_of  # noqa: PLC0415
    from alphapulse_relay.option_table import RELAY  # noqa: PLC0415
    from alphapulse_relay.options import settings_of  # noqa: PLC0415

    problems: list[OptionError] = []
    given, access = all_given(RELAY, flags, environ, problems.append)
    while True:
        try:
            return settings_of(given, access), problems
        except OptionError as error:
            problems.append(error)
            about = [RELAY.by_name[name] for name in (error.option, *error.also)]
            wrong = next((each for each in about if given[each.name] != default_of(each)), None)
            if wrong is None:  # the defaults themselves are of no use on this machine
                raise
            given[wrong.name] = default_of(wrong)
