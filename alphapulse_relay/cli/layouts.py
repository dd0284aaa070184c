"""Options that speak of TLV types: a table of the user's own, types by number or name.

Knows the signal table; neither messages nor connections.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from alphapulse_relay.protocol_v2.signals import LayoutError, SignalTable
from alphapulse_relay.protocol_v2.tlv import EXTENDED

Names = dict[str, int]


class TableParameter(click.ParamType[SignalTable]):
    """A TOML file of layouts; its value is the built-in table with these types added."""

    name = "file"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> SignalTable:
        """Read the file."""
        if isinstance(value, SignalTable):
            return value
        try:
            return SignalTable.builtin().extended(Path(value).read_text("utf-8"), str(value))
        except OSError as error:
            self.fail(f"cannot read {value}: {error.strerror}", param, ctx)
        except UnicodeDecodeError:
            self.fail(f"{value}: not UTF-8", param, ctx)
        except LayoutError as error:
            self.fail(str(error), param, ctx)
        except (ValueError, RecursionError):  # more digits, or brackets, than Python takes
            self.fail(f"{value}: a number is too long, or nested too deeply", param, ctx)

    def shell_complete(
        self, _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer files."""
        return [CompletionItem(incomplete, type="file")]


class TypeParameter(click.ParamType[str]):
    """TLV types as they are written; what a name means depends on the table."""

    name = "type"

    def shell_complete(
        self, _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the names of the built-in table."""
        names = type_names(SignalTable.builtin())
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def layouts_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option for a table of the user's own."""
    return click.option(
        "--layouts",
        "table",
        type=TableParameter(),
        default=SignalTable.builtin,
        help="TOML file with names and fields of your own TLV types.",
    )(command)


def type_names(table: SignalTable) -> Names:
    """Return the table's types by name."""
    names = {table.name(number): number for number in range(EXTENDED)}
    return {name: number for name, number in names.items() if name != f"type {number}"}


def type_number(text: str, names: Names) -> int:
    """Return the type that a number or a name, in any case, stands for."""
    if text.isdecimal() and text.isascii() and len(text) <= 3 and int(text) <= EXTENDED:
        return int(text)
    for name, number in names.items():
        if name.casefold() == text.casefold():
            return number
    known = ", ".join(names)
    message = f"{text!r} is neither a number from 0 to {EXTENDED} nor a known name: {known}"
    raise click.BadParameter(message, param_hint="'--type'")


def type_numbers(texts: Sequence[str], table: SignalTable) -> frozenset[int]:
    """Return the types of a repeatable, comma-separated option."""
    names = type_names(table)
    return frozenset(type_number(text.strip(), names) for part in texts for text in part.split(","))


def source_numbers(
    _ctx: click.Context, _param: click.Parameter, texts: Sequence[str]
) -> frozenset[int]:
    """Return the sources of a repeatable, comma-separated option (a click callback)."""
    parts = [text.strip() for part in texts for text in part.split(",")]
    for text in parts:
        if not (text.isdecimal() and text.isascii() and len(text) <= 3 and int(text) <= 255):
            raise click.BadParameter(f"{text!r} is not a number from 0 to 255")
    return frozenset(map(int, parts))
