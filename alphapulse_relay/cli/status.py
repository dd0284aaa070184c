"""``signal-relay status``: how a relay is doing, once or as a live board.

Knows when to ask and what to do without an answer; the document is ``snapshot``'s, the look is
``board``'s.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from alphapulse_relay.cli.board import DEPARTED_SHOWN, board, flow
from alphapulse_relay.cli.numbers import FiniteRange
from alphapulse_relay.cli.snapshot import Snapshot, fetch, look, not_a_status, url_option
from alphapulse_relay.cli.words import Failure, examples, standard_output

OTHER_LINES = 17 + DEPARTED_SHOWN
"""Lines of the board that are not rows of peers, with some to spare where the head wraps."""
LEAST_ROWS = 3
LEAST_INTERVAL, MOST_INTERVAL = 0.1, 86_400.0
"""Seconds."""


@click.command(
    epilog=examples(
        "signal-relay status",
        "signal-relay status --json | jq .counters.dropped",
        "signal-relay status --url http://10.0.0.5:9750 --token-file relay.token",
    ),
)
@url_option("The relay's side port.")
@click.option(
    "--token-file",
    "token",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=lambda _ctx, _param, path: None if path is None else _token(path),
    envvar="SIGNAL_RELAY_TOKEN_FILE",
    show_envvar=True,
    help="A file with the token that the side port wants (--web-token-file of the relay).",
)
@click.option("--once", is_flag=True, help="Print one board and exit, as when piped.")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON and exit.")
@click.option(
    "--interval",
    "-i",
    type=FiniteRange(LEAST_INTERVAL, MOST_INTERVAL),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
def status(url: str, token: str | None, once: bool, as_json: bool, interval: float) -> None:
    """Show who is connected to a relay and how much flows.

    On a terminal the board is live until Ctrl-C, and goes on when the relay comes back. Rates are
    messages a second since the last look, so a single look shows totals only. A peer goes by the
    name that it gave itself, or else that of its program. It is "live", "behind" (its socket is
    full; "behind" tells how many bytes wait for it), "replaying" (it is sent older messages first)
    or "muted" (it publishes and never reads: nothing is sent to it).
    """
    out = standard_output()
    if as_json:
        document = fetch(url, token)
        try:
            text = json.dumps(document, indent=2)
        except RecursionError:
            raise not_a_status(url) from None
        click.echo(text)
        return
    console = Console(file=out, highlight=False)
    if once or not console.is_terminal:
        console.print(board(look(url, token), None, console.width))
    else:
        _watch(partial(look, url, token), interval, console)


def _token(path: Path) -> str:
    token = path.read_text("utf-8", errors="replace").strip()
    if not token.isascii() or not token.isprintable() or not token:
        raise click.BadParameter(f"{str(path)!r} does not hold one token")
    return token


def _watch(glance: Callable[[], Snapshot], interval: float, console: Console) -> None:
    """Show the board until interrupted. A relay that goes away is waited for."""
    before: Snapshot | None = None
    now = glance()
    note = ""
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            rows = max(console.height - OTHER_LINES, LEAST_ROWS)
            live.update(board(now, flow(before, now), console.width, rows, note), refresh=True)
            time.sleep(interval)
            try:
                before, now, note = now, glance(), ""
            except Failure as failure:
                note = f"{failure.message}; trying again, this is what was last seen"
