"""The commands of ``script/soak``."""

import random
import tempfile
import time
from pathlib import Path

import click

from tests.browser.chromium import MISSING, chromium, find_chromium
from tests.soak.kill import JOURNAL, check_replay, kill_round
from tests.soak.page import CLICK_MAX, GROWTH_MAX, watch
from tests.soak.reconnects import WAYS, Life
from tests.soak.stalls import KINDS, RATE, load, stall_round
from tests.soak.stopped import stopped as stop_one
from tests.support import Relay

RATE_LEAST = 100_000
"""Messages a second below which ``stalls`` has not shown what it is to show."""

_rounds = click.option("--rounds", default=100, show_default=True, help="How often.")
_seed = click.option("--seed", type=int, help="Of the chance; a new one if left out.")


def _chance(rounds: int, seed: int | None) -> random.Random:
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    click.echo(f"{rounds} rounds, --seed {seed}")
    return random.Random(seed)


@click.group()
def main() -> None:
    """Try for longer what the tests try.

    Each round is a line. The status is 0 only if all that was promised held.
    """


@main.command()
@_rounds
@_seed
def kill(rounds: int, seed: int | None) -> None:
    """Kill a relay under load again and again: nothing that was delivered may be lost."""
    chance, total = _chance(rounds, seed), 0
    seen: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        for number in range(1, rounds + 1):
            seen = kill_round(Path(directory), chance, seen)
            total += len(seen)
            click.echo(f"round {number}: {len(seen)} messages seen before the kill")
        with Relay(*JOURNAL, directory=Path(directory)) as relay:
            check_replay(relay, seen)
    click.echo(f"{total} messages, none lost in {rounds} kills")


@main.command()
@_rounds
@_seed
def stalls(rounds: int, seed: int | None) -> None:
    """Have peers stall, or begin in the past, under a flood of messages.

    In each round one peer under a name, every second one with a filter, stops reading until it is
    behind and then catches up, or begins at a position, a time, the last N messages or a bookmark.
    It must get each message once and in order, and none of its own.
    """
    chance = _chance(rounds, seed)
    click.echo(f"{RATE} messages of 216 bytes a second are published")
    with load() as flood:
        for number in range(1, rounds + 1):
            told = stall_round(flood, chance, chance.choice(KINDS))
            click.echo(f"round {number}: {told}; {flood.rate:.0f} messages/s so far")
        rate, taken = flood.rate, flood.names_taken
    click.echo(f"{flood.checked} messages to {rounds} peers beside {rate:.0f} messages/s:")
    click.echo("0 missing, 0 repeated, 0 reordered, 0 echoed")
    click.echo(f"a name was still taken {taken} times")
    if rate < RATE_LEAST:
        raise click.ClickException(f"the rate was below {RATE_LEAST} messages/s")


@main.command()
@_rounds
@_seed
def reconnects(rounds: int, seed: int | None) -> None:
    """Have a client that has a name and a bookmark reconnect again and again.

    It closes its connection, is left or killed and started anew, and is cut off, with the relay
    knowing of it or not; and the relay is stopped or killed. It must get each message of the others
    once, and none of its own.
    """
    chance = _chance(rounds, seed)
    with Life(chance) as life:
        for number in range(1, rounds + 1):
            click.echo(f"round {number}: {life.round(chance.choice(tuple(WAYS)))}")
        total = life.check()
    click.echo(f"{total} messages over {rounds} breaks, each once, and none of its own")
    click.echo(f"a new client met its name taken {life.names_taken} times")


@main.command()
@click.option("--seconds", default=60.0, show_default=True, help="For how long one stops.")
@click.option("--consumers", default=200, show_default=True, help="How many there are.")
@click.option("--rate", default=100_000.0, show_default=True, help="Messages a second at most.")
def stopped(seconds: float, consumers: int, rate: float) -> None:
    """Have one of many consumers stop for a while: nobody else and no memory may feel it."""
    start = time.monotonic()

    def tell(line: str) -> None:
        click.echo(f"after {time.monotonic() - start:.0f} s: {line}")

    result = stop_one(consumers, seconds, rate, tell)
    share, grown = result.rate_beside / result.rate_before, result.memory_grown
    click.echo(f"the others' rate: {share:.0%} of what it was without a stopped one")
    click.echo(f"the relay's anonymous memory: {grown / (1 << 20):+.1f} MiB")
    click.echo(f"{result.left_behind} messages were behind, none is missing")


@main.command()
@click.option("--seconds", default=60.0, show_default=True, help="For how long.")
@click.option("--rate", default=50_000, show_default=True, help="Messages a second.")
def page(seconds: float, rate: int) -> None:
    """Have the live page open while a flood goes by: it must answer, and not grow."""
    path = find_chromium()
    if path is None:
        raise click.ClickException(MISSING)
    with Relay() as relay, chromium(path) as browser:
        result = watch(browser.new_page(), relay, rate, seconds)
    click.echo(f"published: {result.rate:.0f} messages/s for {seconds:g} s")
    click.echo(f"a click: {result.median_click:.3f} s, the slowest {result.slowest_click:.3f} s")
    click.echo(f"memory of the page: {result.heap_bytes / (1 << 20):.1f} MiB")
    click.echo(f"of which in the second half: {result.heap_growth / (1 << 20):+.1f} MiB")
    click.echo(f"rows in the table: {result.drawn_rows}, nodes of the document: {result.nodes}")
    if result.slowest_click > CLICK_MAX or result.heap_growth > GROWTH_MAX:
        raise click.ClickException("the page did not answer in time, or it grows")


if __name__ == "__main__":
    main()
