"""``signal-relay bench``: how much a running relay forwards, and how fast.

Knows what the options mean, when to ask before a relay's users are disturbed, and the order of
things. Loads are carried out by ``crew``, results are shown by ``report``.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from alphapulse_relay.cli.bench.account import Account
from alphapulse_relay.cli.bench.crew import Crew, MemberFailure, Tick
from alphapulse_relay.cli.bench.load import LEAST_SIZE, MOST_SIZE, NATURE, WARM_UP_PART, Load
from alphapulse_relay.cli.bench.report import (
    Part,
    Settings,
    document,
    latency_report,
    throughput_report,
)
from alphapulse_relay.cli.connection import connect, socket_option
from alphapulse_relay.cli.numbers import FiniteRange, counted
from alphapulse_relay.cli.snapshot import url_option
from alphapulse_relay.cli.words import Failure, examples, say, standard_output

MOST_CONSUMERS = 64
"""Each is a process; with more of them a machine would measure its own scheduler."""
MOST_RATE = 100_000
"""Messages a second: more than a publisher in Python makes one by one."""
LEAST_SECONDS, MOST_SECONDS = 0.1, 3600.0
LEAST_MESSAGES = 10
"""Fewer have no percentiles."""
DIRECT_PART, MOST_DIRECT = 0.2, 1.0
"""Of the seconds through the relay, as many go into the comparison without it; at most a second."""
_NS = 1_000_000_000


@click.command(
    epilog=examples(
        "signal-relay bench",
        "signal-relay bench --rate 20000 --consumers 8 --seconds 30",
        "signal-relay bench --yes --json | jq .latency.latency_seconds",
    ),
)
@socket_option
@url_option("The relay's side port, which tells who else is connected.")
@click.option(
    "--consumers",
    "-c",
    type=click.IntRange(1, MOST_CONSUMERS),
    default=3,
    show_default=True,
    help="How many receive; each is a process.",
)
@click.option(
    "--rate",
    type=click.IntRange(1, MOST_RATE),
    default=1000,
    show_default=True,
    help="Messages a second while latency is measured.",
)
@click.option(
    "--seconds",
    type=FiniteRange(LEAST_SECONDS, MOST_SECONDS),
    default=5.0,
    show_default=True,
    help="How long latency and throughput are measured, each.",
)
@click.option(
    "--size",
    type=click.IntRange(LEAST_SIZE, MOST_SIZE),
    default=216,
    show_default=True,
    help="Bytes of a message.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON document.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask, whatever is disturbed.")
def bench(
    path: str,
    url: str,
    consumers: int,
    rate: int,
    seconds: float,
    size: int,
    as_json: bool,
    yes: bool,
) -> None:
    """Measure the latency and the throughput of a running relay.

    What is published for this goes to every other peer as well: messages of source 255 with a TLV
    of type 39, which is nobody's, and whose value begins with "signal-relay bench". It fills the
    journal, too: gigabytes, which take the place of the oldest messages. If others are connected,
    or that cannot be told, or the journal has messages, it asks first.

    Latency counts from when a message was due, not from when it could be sent: a relay that stops
    for a moment is late for all messages of that moment. It is measured at each consumer.

    Throughput is what one publisher gets through to all consumers; each compares every byte.

    Both are measured without a relay, too, from the publisher directly to the consumers: what the
    measuring itself takes. All processes run on this machine and share its processors.

    Ends with status 1 if a consumer missed a message or lost its connection.
    """
    settings = _settings(consumers, rate, seconds, size)
    console = Console(file=standard_output(), highlight=False, quiet=as_json)
    with connect(path) as connection:
        account = Account(path, url, connection, size)
    if not yes:
        _ask(account)
    parts = _measure(path, settings, account, console)
    if as_json:
        results = document(*parts, settings) | {"published": account.document()}
        click.echo(json.dumps(results, indent=2))
    else:
        click.echo("\n".join(account.lines()))


def _measure(
    path: str, settings: Settings, account: Account, console: Console
) -> tuple[Part, Part]:
    """Measure and show latency, then throughput; give account in any case."""
    crew = Crew(settings.consumers)
    try:
        with crew:
            latency = _part(crew, "latency", path, settings, settings.rate)
            console.print(latency_report(latency, settings))
            throughput = _part(crew, "throughput", path, settings, None)
            console.print(throughput_report(throughput, settings))
    except BaseException as error:
        account.close(crew)
        say("; ".join(account.lines()))
        if isinstance(error, MemberFailure):
            raise account.explained(error) from None
        raise
    account.close(crew)
    return latency, throughput


def _settings(consumers: int, rate: int, seconds: float, size: int) -> Settings:
    if rate * seconds < LEAST_MESSAGES:
        raise click.BadParameter(
            f"{rate} a second for {seconds:g} s are fewer than {LEAST_MESSAGES} messages.",
            param_hint="'--rate'",
        )
    return Settings(consumers, rate, seconds, size)


def _ask(account: Account) -> None:
    """Return if nobody is disturbed or a person agrees; else raise :class:`Failure`."""
    effects = [*_on_others(account), *_on_the_journal(account)]
    if not effects:
        return
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Failure(f"{'; '.join(effects)}: to do it, give --yes")
    for effect in effects:
        say(effect)
    say(f"it is {NATURE}; who cannot keep up is disconnected")
    sys.stderr.write("Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Failure("nothing was published")


def _on_others(account: Account) -> Iterator[str]:
    if account.others == 0:
        return
    if account.others is None:
        known = f"it cannot be told whether other peers are connected ({account.unknown})"
    else:
        are = "peer is" if account.others == 1 else "peers are"
        known = f"{account.others} other {are} connected"
    yield f"{known}, and would get all that is published here"


def _on_the_journal(account: Account) -> Iterator[str]:
    if account.kept:
        yield (
            f"the relay's journal keeps {counted(account.kept, 'byte', ',')} of messages, and what "
            "is published here, gigabytes in seconds, takes the place of the oldest"
        )


def _part(crew: Crew, name: str, path: str, settings: Settings, rate: int | None) -> Part:
    """Measure without a relay and through it."""
    direct_seconds = min(settings.seconds * DIRECT_PART, MOST_DIRECT)
    expected = (settings.seconds + direct_seconds) * (1 + WARM_UP_PART)
    with _progress(name, expected) as tick:
        direct = crew.run(_load(crew.direct_path, False, settings, direct_seconds, rate), tick)
        relayed = crew.run(_load(path, True, settings, settings.seconds, rate), tick)
        return Part(relayed, direct)


def _load(path: str, relayed: bool, settings: Settings, seconds: float, rate: int | None) -> Load:
    # Ready-made messages claim to be from its end: no metric of the relay's takes them for old.
    timestamp = time.time_ns() + int(seconds * (1 + WARM_UP_PART) * _NS)
    return Load(path, relayed, settings.consumers, settings.size, seconds, rate, timestamp)


@contextmanager
def _progress(name: str, expected: float) -> Iterator[Tick]:
    """Show on a terminal's standard error how much of the expected seconds is over."""
    console = Console(stderr=True)
    columns = (TextColumn(f"measuring {name}"), BarColumn(), TimeRemainingColumn())
    shown = console.is_terminal
    with Progress(*columns, console=console, disable=not shown, transient=True) as progress:
        task, start = progress.add_task(name, total=expected), time.monotonic()
        yield lambda: progress.update(task, completed=time.monotonic() - start)
