"""``signal-relay bridge``: the command, with the options that the bridge takes.

Behind what it imports when it runs is Twisted, and the client of NATS if that is there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from alphapulse_relay.cli.findings import report
from alphapulse_relay.cli.table_command import Flags, TableCommand
from alphapulse_relay.cli.words import examples

if TYPE_CHECKING:
    from alphapulse_relay.option_table import Table

_START = 'give --check: the bridge itself is started with "twistd -n signal-relay-bridge".'


class BridgeCommand(TableCommand):
    """A command that takes all of the bridge's options."""

    def table(self) -> Table:
        """Load them."""
        from alphapulse_relay.bridge.option_table import BRIDGE  # noqa: PLC0415

        return BRIDGE


@click.command(
    cls=BridgeCommand,
    epilog=examples(
        "signal-relay bridge --check --nats nats://nats1:4222 --name desk1",
        "sudo -u signal-relay-bridge signal-relay bridge --check --config bridge.toml",
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

    ctx.exit(report(list(examine(flags, os.environ)), as_json=as_json))
