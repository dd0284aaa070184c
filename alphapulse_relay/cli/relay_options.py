"""The relay's own options, for commands that look at how a relay is, or would be, set up.

The one door from the command line to the relay's options. It is opened only by the commands that
need it: behind it is Twisted, which takes longer to load than ``signal-relay tail`` to begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from alphapulse_relay.option_sources import OptionError
    from alphapulse_relay.option_table import Option
    from alphapulse_relay.options import Settings

Flags = Mapping[str, str | list[str]]
"""What was given on the command line, by the option's name, as the relay takes it."""


class RelayCommand(click.Command):
    """A command that takes all of the relay's options besides its own, as ``flags``."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return its own options, then the relay's."""
        return [*super().get_params(ctx), *_parameters()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        rest = super().parse_args(ctx, args)
        values = {_name(each): ctx.params.pop(str(each.name)) for each in _parameters()}
        ctx.params["flags"] = {
            name: _as_flag(value)
            for name, value in values.items()
            if value not in {None, (), False}
        }
        return rest


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


@cache
def _parameters() -> tuple[click.Option, ...]:
    from alphapulse_relay.option_table import OPTIONS  # noqa: PLC0415

    config = click.Option(
        ["--config"],
        type=click.Path(readable=False),
        help="TOML file of options, whose keys are their names.",
    )
    return (config, *map(_parameter, OPTIONS))


def _parameter(option: Option) -> click.Option:
    names = [f"--{option.name}", *([f"-{option.short}"] if option.short else [])]
    if option.switch:
        return click.Option(names, is_flag=True, help=option.help)
    return click.Option(
        names,
        type=click.Path(readable=False) if option.files else str,
        multiple=option.repeat,
        help=option.help,
        shell_complete=_offer(option.words) if option.words else None,
    )


def _offer(words: tuple[str, ...]) -> Any:
    def offer(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in words if word.startswith(begun)]

    return offer


def _name(parameter: click.Option) -> str:
    return parameter.opts[0].removeprefix("--")


def _as_flag(value: Any) -> str | list[str]:
    if value is True:
        return "true"
    return list(value) if isinstance(value, tuple) else str(value)
