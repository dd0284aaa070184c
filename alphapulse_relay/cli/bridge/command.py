"""``signal-relay bridge``: the command, with the options that the bridge takes.

Behind what it imports when it runs is Twisted, and the client of NATS if that is there.
"""

from __future__ import annotations

import json
import os
from functools import cache

import click

from alphapulse_relay.cli.doctor.command import WRONG_STATUS, _document, _show
from alphapulse_relay.cli.doctor.finding import Verdict
from alphapulse_relay.cli.relay_options import Flags, _as_flag, _name, _parameter
from alphapulse_relay.cli.words import examples, standard_output

_START = 'give --check: the bridge itself is started with "twistd -n signal-relay-bridge".'


class BridgeCommand(click.Command):
    """A command that takes all of the bridge's options besides its own, as ``flags``."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return its own options, then the bridge's."""
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


@cache
def _parameters() -> tuple[click.Option, ...]:
    from alphapulse_relay.bridge.option_table import BRIDGE  # noqa: PLC0415
    from alphapulse_relay.option_table import CONFIG  # noqa: PLC0415

    return tuple(map(_parameter, (CONFIG, *BRIDGE.options)))


@click.command(
    cls=BridgeCommand,
    epilog=examples(
        "signal-relay bridge --check --nats nats://nats1:4222 --name desk1",
        "sudo -u signal-relay signal-relay bridge --check --config signal-relay-bridge.toml",
        "signal-relay bridge --check --json | jq '.findings[] | select(.verdict == \"wrong\")'",
    ),
)
@click.option("--check", is_flag=True, help="Look, and say what would happen.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def bridge(ctx: click.Context, flags: Flags, check: bool, as_json: bool) -> None:
    """Look at both ends of a bridge, and say what it would do there.

    Give it the options that the bridge has, or is to have; it reads the same environment and file.
    It only looks: no stream and no consumer is made or moved, nothing is published, and the bridge
    may run meanwhile. Run it as the bridge's user, whom the relay's rules and the files' modes are
    for. Whether the relay and NATS take what a bridge publishes shows only when it does.

    The bridge itself is started with "twistd -n signal-relay-bridge".

    Exit status: 0 nothing is wrong, 1 something is, 2 wrong usage.
    """
    if not check:
        raise click.UsageError(_START)
    from alphapulse_relay.cli.bridge.checks import examine  # noqa: PLC0415

    out = standard_output()
    results = list(examine(flags, os.environ))
    if as_json:
        click.echo(json.dumps(_document(results), indent=2), file=out)
    else:
        _show(results, out)
    if any(each.finding.verdict is Verdict.WRONG for each in results):
        ctx.exit(WRONG_STATUS)
