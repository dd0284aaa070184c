"""``signal-relay``: the group of commands, and how any of them ends.

Knows which commands there are and what an interrupt or a closed pipe means; what a command does,
it does not know.
"""

import os
import sys
from typing import Any

import click

from alphapulse_relay import __version__
from alphapulse_relay.cli.completion import PROGRAM, completion
from alphapulse_relay.cli.send import send
from alphapulse_relay.cli.status import status
from alphapulse_relay.cli.tail import tail
from alphapulse_relay.cli.words import examples

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of SIGINT, as shells have it."""


class Program(click.Group):
    """A group whose commands end without a traceback when they are cut short."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has enough; nothing may be flushed into the pipe any more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "signal-relay tail                     print what is published, decoded",
        "signal-relay tail --raw > day.v2      record it",
        "signal-relay send day.v2 --rate 100   publish it again, 100 messages a second",
        "signal-relay status                   who is connected, how much flows",
    ),
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Watch, feed and inspect a Signal Relay.

    The relay itself is started with "twistd -n signal-relay".

    Exit status: 0 done, 1 no relay or the relay closed the connection, 2 wrong usage, 130 Ctrl-C.
    """


for command in (tail, send, status, completion):
    cli.add_command(command)


def main() -> None:
    """Run ``signal-relay`` with the arguments of the process."""
    cli(prog_name=PROGRAM)
