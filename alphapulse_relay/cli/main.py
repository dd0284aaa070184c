"""``signal-relay``: the group of commands, and how any of them ends.

Knows which commands there are and what an interrupt, a closed pipe or a full disk means; what a
command does, it does not know.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from alphapulse_relay import __version__
from alphapulse_relay.cli.bench.command import bench
from alphapulse_relay.cli.bridge.command import bridge
from alphapulse_relay.cli.completion import PROGRAM, completion
from alphapulse_relay.cli.config import config
from alphapulse_relay.cli.doctor.command import doctor
from alphapulse_relay.cli.journal.command import journal
from alphapulse_relay.cli.replay.command import replay
from alphapulse_relay.cli.send import send
from alphapulse_relay.cli.status import status
from alphapulse_relay.cli.tail import tail
from alphapulse_relay.cli.words import Failure, examples

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of SIGINT, as shells have it."""


class Program(click.Group):
    """A group whose commands end without a traceback when they are cut short."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, or print the help or the version."""
        with _ending(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _ending(ctx):
            return super().invoke(ctx)


@contextmanager
def _ending(ctx: click.Context) -> Iterator[None]:
    """End what is done with the exit status, and the line, that are due."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # what cannot be written is told here, not at the very end
    except KeyboardInterrupt:
        ctx.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has enough.
        _discard_output()
        ctx.exit(0)
    except OSError as error:
        _discard_output()
        where = f"{error.filename}: " if error.filename else ""
        raise Failure(f"cannot go on: {where}{error.strerror or error}") from None


def _discard_output() -> None:
    """Let nothing be flushed any more to where it could not be written."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "signal-relay tail                     print what is published, decoded",
        "signal-relay tail --raw > day.v2      record it",
        "signal-relay send day.v2 --rate 100   publish it again, 100 messages a second",
        "signal-relay replay --since 10m       print what came in the last ten minutes",
        "signal-relay status                   who is connected, how much flows",
        "signal-relay bench                    measure its latency and throughput",
        "signal-relay journal list             what it has kept",
        "signal-relay doctor                   what is wrong with it, and how to mend it",
        "signal-relay config --check FILE      whether a relay would take a configuration file",
        "signal-relay bridge --check           what a bridge to NATS finds at both its ends",
    ),
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Watch, feed and inspect a Signal Relay.

    The relay itself is started with "twistd -n signal-relay".

    Exit status: 0 done, 1 no relay, the relay closed the connection, something is wrong with it, or
    the output cannot be written, 2 wrong usage, 78 a wrong configuration file, 130 Ctrl-C.
    """


for command in (tail, replay, send, status, bench, journal, doctor, config, bridge, completion):
    cli.add_command(command)


def main() -> None:
    """Run ``signal-relay`` with the arguments of the process."""
    cli(prog_name=PROGRAM)
