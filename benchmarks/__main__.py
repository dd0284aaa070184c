"""``python -m benchmarks``: the command line."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import machine, picture, report
from benchmarks.compiled import CompileError, compile_program
from benchmarks.loads import LOADS, Load
from benchmarks.measure import allow_connections
from benchmarks.run import Run, started
from benchmarks.summary import OURS, Row, summarise
from benchmarks.systems import SYSTEMS, System

ROUNDS = 9
"""As many as fit in some ten minutes. Many short rounds tell more than a few long ones: what
differs most is where the kernel happens to put the processes."""
SYSTEM_KEYS = tuple(kind.key for kind in SYSTEMS)
LOAD_KEYS = tuple(load.key for load in LOADS)
QUICK_SCALE = 0.25
"""How long a load lasts in a quick run, as a part of its length."""
DOCS = Path(__file__).parents[1] / "docs"
ROUGH = Path(__file__).parents[1] / "build" / "benchmark"
"""Where the results of a run go that is not the whole: the page has no place for those."""
EPILOG = """\b
Examples:
  script/benchmark                               all of it, some ten minutes
  script/benchmark --quick                       whether it works; figures are rough
  script/benchmark --systems relay,floor --loads through-3
"""


def _keys(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the keys in a list with commas; fail at one that is not known."""
    known = SYSTEM_KEYS if param.name == "systems" else LOAD_KEYS
    keys = tuple(key.strip() for key in value.split(","))
    if unknown := [key for key in keys if key not in known]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(known)}", ctx, param)
    return keys


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.option("--rounds", type=click.IntRange(1), help=f"Default: {ROUNDS}; 1 with --quick.")
@click.option("--quick", is_flag=True, help="One short round, for a look whether all works.")
@click.option(
    "--systems",
    callback=_keys,
    default=",".join(SYSTEM_KEYS),
    metavar="LIST",
    help=f"Some of: {', '.join(SYSTEM_KEYS)}.",
)
@click.option(
    "--loads",
    callback=_keys,
    default=",".join(LOAD_KEYS),
    metavar="LIST",
    help=f"Some of: {', '.join(LOAD_KEYS)}. Then nothing else is asked of the relay.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for performance.md, .json and .svg. Default: docs, whose performance.md says "
    "where the results go; build/benchmark if anything is left out or quick.",
)
def main(
    rounds: int | None,
    quick: bool,
    systems: Sequence[str],
    loads: Sequence[str],
    output: Path | None,
) -> None:
    """Measure the relay beside other hubs, and beside the least that a hub can do.

    All systems are measured in turn, round after round, under each load. Writes performance.json
    (everything that was measured), the results in performance.md, and performance.svg. A system
    that is not installed is left out, and the results say why.
    """
    whole = not quick and set(systems) == set(SYSTEM_KEYS) and set(loads) == set(LOAD_KEYS)
    page = (output or (DOCS if whole else ROUGH)) / "performance.md"
    if page.parent != DOCS:
        _begin_page(page)
    try:
        report.check_page(page)
        compile_program("load")
    except (report.ReportError, CompileError) as error:
        raise click.ClickException(str(error)) from None
    _measure(
        page,
        systems,
        [load for load in LOADS if load.key in loads],
        rounds or (1 if quick else ROUNDS),
        QUICK_SCALE if quick else 1,
    )


def _begin_page(page: Path) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    if not page.exists():
        page.write_text(f"{report.BEGIN}\n{report.END}\n")


def _measure(
    page: Path, chosen: Sequence[str], loads: Sequence[Load], rounds: int, scale: float
) -> None:
    console = Console()
    allow_connections()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        directory = Path(name)
        known = [kind(directory) for kind in SYSTEMS if kind.key in chosen]
        with started(known) as absent:
            there = [system for system in known if system.key not in absent]
            if not there:
                why = "; ".join(f"{key}: {absent[key]}" for key in absent)
                raise click.ClickException(f"there is nothing to measure: {why}")
            alone = OURS in chosen and OURS not in absent and len(loads) == len(LOADS)
            run = Run(there, loads, rounds, scale, alone)
            with _progress(console, len(run.steps()) + alone) as progress:
                run.measure_all(directory, progress)
        described = {system.key: _described(system, absent) for system in known}
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    _write(page, run, described, {"date": when, **machine.describe()}, console)


def _described(system: System, absent: Mapping[str, str]) -> dict[str, str | None]:
    why = absent.get(system.key)
    version = None if why else system.version()
    return {"label": system.label, "version": version, "missing": why}


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[Callable[[str], None]]:
    """Show a bar; yield what is to be called at the beginning of each step."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=steps)
        begun = -1

        def begin(what: str) -> None:
            nonlocal begun
            begun += 1
            bar.update(task, completed=begun, description=what)

        yield begin
        bar.update(task, completed=steps, description="done")


def _write(
    page: Path,
    run: Run,
    described: dict[str, dict[str, str | None]],
    where: dict[str, Any],
    console: Console,
) -> None:
    rows = summarise(run.results, run.loads, list(described))
    found = report.document(run, rows, where, described)
    results = report.markdown(found, rows, report.checks(run))
    report.write_json(page.with_suffix(".json"), found)
    report.update_page(page, results)
    if picture.can_draw():
        picture.draw(page.with_suffix(".svg"), rows)
    else:
        console.print("no picture: the Python package matplotlib is not installed")
    console.print(_overview(rows))
    for failure in run.failures:
        console.print(failure, style="red", markup=False)
    console.print(f"written: {page}", soft_wrap=True)


def _overview(rows: Sequence[Row]) -> Table:
    """Return what a terminal has room for: how the relay stands to the floor."""
    table = Table("load", "figure", "relay / floor", "target", "")
    for row in rows:
        ratio = f"{row.ratios[OURS]:.2f}" if OURS in row.ratios else ""
        verdict = {True: "met", False: "[red]not met[/]", None: ""}[row.met]
        table.add_row(row.load.label, row.target.figure, ratio, str(row.target), verdict)
    return table


if __name__ == "__main__":
    main(prog_name="script/benchmark")
