"""``signal-relay config``: which settings a relay would have, and whether its file is in order.

Knows how settings are shown; what they may be, the relay's options know.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alphapulse_relay.cli.relay_options import RelayCommand, forgiving_settings
from alphapulse_relay.cli.table_command import Flags
from alphapulse_relay.cli.words import examples, printable, say, standard_output

if TYPE_CHECKING:
    from alphapulse_relay.option_sources import OptionError
    from alphapulse_relay.options import Settings

WIDTH = 60
"""Columns of the longest settings that the others' sources are put in line with."""


@click.command(
    cls=RelayCommand,
    epilog=examples(
        "signal-relay config --check /etc/signal-relay/signal-relay.toml",
        "signal-relay config --config relay.toml --hold 2",
        "signal-relay config > relay.toml            begin with what is in effect",
    ),
)
@click.option(
    "--check",
    "file",
    type=click.Path(readable=False),
    metavar="FILE",
    help="Look for what is wrong in this configuration file.",
)
@click.pass_context
def config(ctx: click.Context, file: str | None, flags: Flags) -> None:
    """Print the settings that a relay would have, and where each comes from.

    Takes the options that the relay takes, and the environment and the file as it does. What is
    printed is again such a file. What secret files hold is not shown.

    With --check nothing is printed but what is wrong in the file, a line for each, as the relay
    would say it at its start. Flags count as they would there; the environment does not.

    Exit status: 0 all is in order, 78 the file is wrong, 2 a flag or a variable is.
    """
    out = standard_output()
    if file is None:
        problems = _show(flags, os.environ)
    else:
        _, problems = forgiving_settings({**flags, "config": file}, {})
    for problem in problems:
        say(str(problem))
    if problems:
        ctx.exit(max(problem.status for problem in problems))
    if file is not None:
        click.echo(f"{printable(file)} is in order", file=out)


def _show(flags: Flags, environ: Mapping[str, str]) -> list[OptionError]:
    """Print the settings; return what is wrong with them instead."""
    from alphapulse_relay.option_sources import OptionError, config_path  # noqa: PLC0415
    from alphapulse_relay.option_table import RELAY  # noqa: PLC0415
    from alphapulse_relay.options import settings_from  # noqa: PLC0415

    try:
        settings = settings_from(flags, environ)
    except OptionError as error:
        return [error]
    lines = list(_lines(settings, flags, environ))
    width = max(len(line) for line, _ in lines if len(line) <= WIDTH)
    for line, source in lines:
        click.echo(f"{line:{width}}  # {printable(source)}")
    if settings.access is not None:
        for line in _access_lines(config_path(RELAY, flags, environ)):
            click.echo(line)
    return []


def _lines(
    settings: Settings, flags: Flags, environ: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield each option as a line of a file, and where its value is from."""
    from alphapulse_relay.option_sources import sources  # noqa: PLC0415
    from alphapulse_relay.option_table import RELAY  # noqa: PLC0415

    given = sources(RELAY, flags, environ)
    for option in RELAY.options:
        text, source = given[option.name]
        value = getattr(settings, option.field)
        # A path in effect is an absolute one, and the journal's default is no path at all.
        shown = value if option.switch else str(value) if isinstance(value, Path) else text
        yield f"{option.name} = {_toml(shown)}", source


def _access_lines(path: Path | None) -> Iterator[str]:
    """Yield the access rules, which only a file can have."""
    from alphapulse_relay.option_sources import ACCESS  # noqa: PLC0415

    tables = tomllib.loads(path.read_text("utf-8"))[ACCESS] if path else []
    for table in tables:
        yield f"\n[[{ACCESS}]]  # from {printable(str(path))}"
        yield from (f"{key} = {_toml(value)}" for key, value in table.items())


def _toml(value: object) -> str:
    """Return a value as TOML has it: as JSON, but for tables and escaped surrogates."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(each)}' for key, each in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)
