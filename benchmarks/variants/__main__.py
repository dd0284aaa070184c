"""``python -m benchmarks.variants``: the command line."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from benchmarks import machine
from benchmarks.loads import LOADS, Figure, Load
from benchmarks.measure import allow_connections
from benchmarks.run import Run, started
from benchmarks.summary import FLOOR, Results, ratio, value
from benchmarks.systems import System
from benchmarks.variants import VARIANTS, kept_for_readers

ROUNDS = 7
FEW = 1_000
"""Above this a value is shown without decimals and unit."""
LOAD_KEYS = ("through-1", "through-3", "through-10", "single-3", "timed-1", "timed-3")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), default=ROUNDS, show_default=True)
@click.option("--scale", type=float, default=1, help="A part of each load's length.")
@click.option("--only", default="", metavar="LIST", help="Keys of variants; the floor is always.")
def main(rounds: int, scale: float, only: str) -> None:
    """Measure other ways to do what the floor does, and print a table in Markdown."""
    loads = [load for load in LOADS if load.key in LOAD_KEYS]
    keys = {FLOOR, *only.split(",")} if only else {kind.key for kind in VARIANTS}
    allow_connections()
    with tempfile.TemporaryDirectory(prefix="variants-") as name:
        known = [kind(Path(name)) for kind in VARIANTS if kind.key in keys]
        with started(known) as absent:
            systems = [system for system in known if system.key not in absent]
            run = Run(systems, loads, rounds, scale, alone=False)
            steps = iter(track(run.steps(), "measuring", console=Console(stderr=True)))

            def begin(_: str) -> None:
                next(steps, None)

            run.measure_all(Path(name), begin)
    where = machine.describe(Path.cwd())
    click.echo(f"{where['cpu']}, {where['cores']} cores, {where['kernel']}; {rounds} rounds.\n")
    for line in _table(run.results, loads, systems):
        click.echo(line)
    kept = "; ".join(f"{way}: {what}" for way, what in kept_for_readers().items())
    click.echo(f"\nSent, then written over before it is read: {kept}.")
    for key, why in absent.items():
        click.echo(f"{key} {why}", err=True)
    for failure in run.failures:
        click.echo(failure, err=True)


def _table(results: Results, loads: Sequence[Load], systems: Sequence[System]) -> Iterator[str]:
    """Yield the floor's medians, and below them the others' ratios to the floor."""
    heads = ("", *(f"{load.label}: {', '.join(_figures(load))}" for load in loads))
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for system in systems:
        cells = (_cell(results, load, system.key) for load in loads)
        yield f"| {system.label} | {' | '.join(cells)} |"


def _figures(load: Load) -> tuple[Figure, Figure]:
    return (Figure.P50 if load.rate else Figure.RATE), Figure.CPU


def _cell(results: Results, load: Load, system: str) -> str:
    """Return both figures; with a mark if not every consumer got every message."""
    which, floor = (load.key, system), (load.key, FLOOR)
    texts = []
    for figure in _figures(load):
        if system == FLOOR:
            found = value(results, figure, which) or 0
            texts.append(f"{found:,.0f}" if found > FEW else f"{found:.2f} {figure.unit}")
        else:
            texts.append(f"{ratio(results, figure, which, floor) or 0:.2f}")
    lost = any(not (each and each.complete) for each in results.get(which, ()))
    return ", ".join(texts) + ("†" if lost else "")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.variants")
