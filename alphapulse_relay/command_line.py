"""The command line of a plugin of twistd, made from the table of its options.

Knows how twistd is told of options, and how it ends where something is wrong with them; which there
are, and what they are for, it does not know.
"""

import sys
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

from twisted.copyright import version as twisted_version
from twisted.python import usage

from alphapulse_relay import __version__
from alphapulse_relay.option_sources import USAGE_STATUS, OptionError
from alphapulse_relay.option_table import CONFIG, Option, Table


class CommandLine(usage.Options):
    """A command line with the options of ``table``, that of a class which is derived from this one.

    Such a class reads what they come to in ``postOptions``, and raises what is wrong.
    """

    table: ClassVar[Table]
    compData: ClassVar[usage.Completions]  # noqa: N815 (so usage.Options has it)
    optFlags: ClassVar[list[list[str | None]]]  # noqa: N815 (so usage.Options has it)
    optParameters: ClassVar[list[list[str | None]]]
    synopsis = "[options]"

    def __init_subclass__(cls, *, table: Table) -> None:
        cls.table = table
        cls.compData = _completions(table)
        cls.optFlags = [[each.name, each.short, each.help] for each in table.options if each.switch]
        cls.optParameters = [
            [each.name, each.short, None, each.help]
            for each in (*table.options, CONFIG)
            if not each.repeat and not each.switch
        ]
        for option in table.options:
            if option.repeat:
                for name in filter(None, (option.field, option.short)):
                    setattr(cls, f"opt_{name}", _appends(option))

    def opt_version(self) -> NoReturn:
        """Display the version and exit."""
        print(f"{self.table.program} {__version__} (Twisted {twisted_version})")  # noqa: T201
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:  # noqa: N802
        """Refuse arguments: there are only options."""
        if arguments:
            raise OptionError(f"unexpected argument {arguments[0]!r}")

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse ``options``.

        Whatever is wrong ends the process with one line: twistd would print all of the help.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            exit_for(self.table, error)

    @property
    def flags(self) -> dict[str, str | list[str]]:
        """The options that were given on the command line, as :func:`all_given` takes them."""
        switches = {option.name for option in self.table.options if option.switch}
        values = {name: value for name, value in self.items() if name not in switches}
        given = {name: value for name, value in values.items() if value is not None}
        return given | {name: "true" for name in switches if self[name]}


def exit_for(table: Table, error: usage.UsageError) -> NoReturn:
    """End the process with one line that says what is wrong with the program's options."""
    print(f"{table.program}: {error}", file=sys.stderr)  # noqa: T201
    raise SystemExit(error.status if isinstance(error, OptionError) else USAGE_STATUS)


def precedence(table: Table, example: str) -> str:
    """Return how sizes are written and which source wins, for who reads the help.

    ``example`` is the name of an option.
    """
    return (
        "Sizes take K, M and G, powers of 1024. Where an option is given more than once, a flag "
        f"wins over the environment ({table.prefix} and the name in capitals, such as "
        f"{table.variable(table.by_name[example])}), that over the file, and that over the default."
    )


def _appends(option: Option) -> Callable[[Any, str], None]:
    """Return what takes one more of an option's values, as a method of ``usage.Options``."""

    def append(self: usage.Options, text: str) -> None:
        self.setdefault(option.name, []).append(text)

    append.__doc__ = option.help
    return append


def _completions(table: Table) -> usage.Completions:
    """Tell a shell what may follow each option (``twisted.python.usage.Completions``)."""
    actions = {each.name: _completer(each) for each in (*table.options, CONFIG) if not each.switch}
    repeatable = [option.name for option in table.options if option.repeat]
    return usage.Completions(multiUse=repeatable, optActions=actions)


def _completer(option: Option) -> usage.Completer:
    if option.words:
        return usage.CompleteList(option.words)
    return usage.CompleteFiles(option.files) if option.files else usage.Completer()
