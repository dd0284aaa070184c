"""The commands of ``script/soak``."""

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click

from tests.browser.chromium import MISSING, chromium, find_chromium
from tests.soak.bridges import chaos
from tests.soak.kill import JOURNAL, check_replay, kill_round
from tests.soak.load import SIZE
from tests.soak.page import CLICK_MAX, GROWTH_MAX, watch
from tests.soak.reconnects import WAYS, Life
from tests.soak.rounds import BACK_MAX, Break
from tests.soak.rounds import Life as Service
from tests.soak.stalls import KINDS, RATE, load, stall_round
from tests.soak.steady import calibrate, table
from tests.soak.steady import steady as keep_steady
from tests.soak.stopped import stopped as stop_one
from tests.soak.supervised import Supervised
from tests.support import Relay

RATE_LEAST = 100_000
"""Messages a second below which ``stalls`` has not shown what it is to show."""

_rounds = click.option("--rounds", default=100, show_default=True, help="How often.")
_seed = click.option("--seed", type=int, help="Of the chance; a new one if left out.")


def _chance(rounds: int, seed: int | None) -> random.Random:
    click.echo(f"{rounds} rounds")
    return _seeded(seed)


def _seeded(seed: int | None) -> random.Random:
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    click.echo(f"--seed {seed}")
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


_clients = click.option("--clients", default=500, show_default=True, help="How many have a name.")


@main.command()
@_rounds
@_clients
@click.option(
    "--held/--not-held",
    default=True,
    help="Whether a supervisor holds the socket.",
)
@_seed
def restarts(rounds: int, clients: int, held: bool, seed: int | None) -> None:
    """Restart a relay again and again under load, with many named clients.

    It is told to leave by SIGTERM, and started again when it has left. The socket is held
    meanwhile, as systemd does. Nothing that was acknowledged may be lost, nothing may come twice,
    and all must be back within 2 s, from the end of the first one's connection to the answer to the
    last one's Subscribe. With a socket that is not held clients find nobody, and wait; then that is
    only told.
    """
    with Service(clients, held=held, chance=_chance(rounds, seed)) as life:
        _break(life, rounds, Supervised.restart, limited=held)


@main.command()
@_rounds
@_clients
@_seed
def handovers(rounds: int, clients: int, seed: int | None) -> None:
    """Have another relay take over again and again under load, with many named clients.

    Nothing that was acknowledged may be lost, nothing may come twice, and all must be back within
    2 s, from the end of the first one's connection to the answer to the last one's Subscribe: until
    then the old relay serves all of them.
    """
    with Service(clients, held=False, chance=_chance(rounds, seed)) as life:
        _break(life, rounds, Supervised.hand_over, limited=True)


def _break(
    life: Service, rounds: int, way: Callable[[Supervised], float], *, limited: bool
) -> None:
    """Break the service so often; fail if somebody was not back in time."""
    breaks = []
    for number in range(1, rounds + 1):
        breaks.append(life.round(way))
        click.echo(f"round {number}: all back after {breaks[-1]}; {life.messages} messages so far")
    for name, what in Break.WHAT.items():
        times = [getattr(each, name) for each in breaks]
        click.echo(f"{what}: median {median(times):.2f} s, worst {max(times):.2f} s")
    click.echo(f"{life.messages} messages were acknowledged, {life.sent_twice} of them sent twice")
    if life.sent_twice:
        raise click.ClickException("what is sent twice comes twice")
    click.echo(f"0 lost, 0 repeated, 0 reordered for {life.clients} clients")
    if limited and max(each.since_lost for each in breaks) > BACK_MAX:
        raise click.ClickException(f"not all were back within {BACK_MAX:g} s")


@main.command()
@click.option("--seconds", default=3600.0, show_default=True, help="For how long.")
@click.option(
    "--rate", type=float, help="Messages a second; half of the most of this machine if left out."
)
@_seed
def steady(seconds: float, rate: float | None, seed: int | None) -> None:
    """Keep a relay at half load for long while all kinds of clients come and go.

    A consumer that takes everything, two WebSockets, clients with names and bookmarks that leave,
    are killed and stall, and others that come and go, or stop reading until they are cut off. None
    that has a name may miss a message, or get one twice or torn; nothing may grow.
    """
    if rate is None:
        most = calibrate()
        rate = most / 2
        click.echo(f"the relay forwards {most:,.0f} messages/s at most")
    click.echo(f"{rate:,.0f} messages/s of {SIZE} bytes for {seconds:g} s")
    start = time.monotonic()

    def tell(line: str) -> None:
        click.echo(f"after {time.monotonic() - start:.0f} s: {line}")

    result = keep_steady(seconds, rate, _seeded(seed), tell)
    for line in table(result):
        click.echo(line)
    if result.grows:
        raise click.ClickException("the relay's memory grows")
    if not result.is_flat:
        raise click.ClickException("latencies grow")


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


@main.command()
@click.option("--messages", default=1_000_000, show_default=True, help="Of each relay.")
@click.option("--rate", default=20_000.0, show_default=True, help="Messages a second, of each.")
@click.option("--every", default=2.0, show_default=True, help="Seconds between two kills.")
@click.option("--split-by-type", is_flag=True, help="Have the bridges do that.")
@_seed
def bridges(
    messages: int, rate: float, every: float, split_by_type: bool, seed: int | None
) -> None:
    """Kill relays, bridges and NATS servers while three relays publish to each other.

    Everything must arrive everywhere, once and in its relay's order.
    """
    options = ["--split-by-type"] if split_by_type else []
    for line in chaos(messages, rate, every, _seeded(seed), options):
        click.echo(line)


if __name__ == "__main__":
    main()
