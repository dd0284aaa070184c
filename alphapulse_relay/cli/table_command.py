"""Commands that take the options of a program: the relay's, or the bridge's.

Knows how an option of a table becomes one of click's. The tables are loaded only when a command
needs its own: behind them may be Twisted, which takes longer to load than ``signal-relay tail`` to
begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from alphapulse_relay.option_table import Option, Table

Flags = Mapping[str, str | list[str]]
"""What was given on the command line, by the option's name, as the program takes it."""


class TableCommand(click.Command):
    """A command that takes all options of a table besides its own, as ``flags``."""

    def table(self) -> Table:
        """Load the table."""
        raise NotImplementedError

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return its own options, then the table's."""
        return [*super().get_params(ctx), *self._parameters]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        rest = super().parse_args(ctx, args)
        values = {_name(each): ctx.params.pop(str(each.name)) for each in self._parameters}
        ctx.params["flags"] = {
            name: _as_flag(value)
            for name, value in values.items()
            if value not in {None, (), False}
        }
        return rest

    @cached_property
    def _parameters(self) -> tuple[click.Option, ...]:
        from alphapulse_relay.option_table import CONFIG  # noqa: PLC0415

        return tuple(map(_parameter, (CONFIG, *self.table().options)))


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
