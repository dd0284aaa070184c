"""``python -m benchmarks``: the command line."""

import os
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
from benchmarks.history import PARTS, History
from benchmarks.loads import LOADS
from benchmarks.measure import allow_connections
from benchmarks.run import Run, started
from benchmarks.summary import JOURNAL, OURS, Check, Row, summarise
from benchmarks.systems import SYSTEMS, System

ROUNDS = 9
"""As many as fit in half an hour. Many short rounds tell more than a few long ones: what
differs most is where the kernel happens to put the processes."""
SYSTEM_KEYS = tuple(kind.key for kind in SYSTEMS)
LOAD_KEYS = tuple(load.key for load in LOADS)
PART_KEYS = tuple(part.key for part in PARTS)
QUICK_SCALE = 0.25
"""How long a load lasts in a quick run, and how large a journal is, as a part of the usual."""
DISK = Path(os.environ.get("TMPDIR", "/var/tmp"))  # noqa: S108 - a directory of its own
"""Where the systems work, and keep what they keep: /tmp may be in memory, this is not by custom."""
DOCS = Path(__file__).parents[1] / "docs"
ROUGH = Path(__file__).parents[1] / "build" / "benchmark"
"""Where the results of a run go that is not the whole: the page has no place for those."""
VERDICT = {True: "met", False: "[red]not met[/]", None: ""}
EPILOG = """\b
Examples:
  script/benchmark                               all of it, some half an hour
  script/benchmark --quick                       whether it works; figures are rough
  script/benchmark --systems relay,floor --loads through-3
  script/benchmark --loads replay,cold           only what these ask of the journal
  script/benchmark --loads browsers              only what those at the side port do to others
  script/benchmark --loads handshakes            only what those at a TLS port do to others
  script/benchmark --loads bridges               only what goes to another host, and what that costs

Directories are made in TMPDIR, /var/tmp if it is not set: 6 GB on a disk are needed.
"""


def _keys(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Return the keys in a list with commas; fail at one that is not known."""
    known = SYSTEM_KEYS if param.name == "systems" else (*LOAD_KEYS, *PART_KEYS)
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
    default=",".join((*LOAD_KEYS, *PART_KEYS)),
    metavar="LIST",
    help=f"Some of: {', '.join(LOAD_KEYS)}; or of what is asked of the relay with a journal: "
    f"{', '.join(PART_KEYS)}. Then nothing else is asked of the relay.",
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
    chosen = set(systems), set(loads)
    whole = not quick and chosen == (set(SYSTEM_KEYS), {*LOAD_KEYS, *PART_KEYS})
    page = (output or (DOCS if whole else ROUGH)) / "performance.md"
    if page.parent != DOCS:
        _begin_page(page)
    try:
        report.check_page(page)
        compile_program("load")
    except (report.ReportError, CompileError) as error:
        raise click.ClickException(str(error)) from None
    rounds, scale = rounds or (1 if quick else ROUNDS), QUICK_SCALE if quick else 1
    run = Run([], [load for load in LOADS if load.key in loads], rounds, scale, alone=False)
    parts = [part for part in PARTS if part.key in loads and JOURNAL in systems]
    _measure(page, systems, run, History(parts, rounds, scale))


def _begin_page(page: Path) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    if not page.exists():
        page.write_text(f"{report.BEGIN}\n{report.END}\n")


def _measure(page: Path, chosen: Sequence[str], run: Run, history: History) -> None:
    """Measure what is to be measured, and write it to the page and beside it."""
    console = Console()
    allow_connections()
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=DISK) as name:
        directory = Path(name)
        known = [kind(directory, run.scale) for kind in SYSTEMS if kind.key in chosen]
        absent = _measure_loads(directory, known, run, console) if run.loads else {}
        if history.parts:
            with _progress(console, history.steps) as progress:
                history.measure_all(directory / "history", progress)
        where = machine.describe(directory)
        described = {system.key: _described(system, absent) for system in known}
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    _write(page, run, history, described, {"date": when, **where}, console)


def _measure_loads(
    directory: Path, known: Sequence[System], run: Run, console: Console
) -> Mapping[str, str]:
    """Measure the systems under the loads; return, by key, why some could not be."""
    with started(known) as absent:
        run.systems = [system for system in known if system.key not in absent]
        if not run.systems:
            why = "; ".join(f"{key}: {absent[key]}" for key in absent)
            raise click.ClickException(f"there is nothing to measure: {why}")
        there = {system.key for system in run.systems}
        run.alone = OURS in there and len(run.loads) == len(LOADS)
        with _progress(console, len(run.steps()) + run.alone) as progress:
            run.measure_all(directory, progress)
    return absent


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
    history: History,
    described: dict[str, dict[str, str | None]],
    where: dict[str, Any],
    console: Console,
) -> None:
    rows = summarise(run.results, run.loads, list(described))
    found = report.document(run, history, rows, where, described)
    results = report.markdown(found, rows, report.checks(run), report.history_checks(run, history))
    report.write_json(page.with_suffix(".json"), found)
    report.update_page(page, results)
    if picture.can_draw():
        picture.draw(page.with_suffix(".svg"), rows)
    else:
        console.print("no picture: the Python package matplotlib is not installed")
    console.print(_overview(rows, report.history_checks(run, history)))
    for failure in found["failures"]:
        console.print(failure, style="red", markup=False)
    console.print(f"written: {page}", soft_wrap=True)


def _overview(rows: Sequence[Row], history: Sequence[Check]) -> Table:
    """Return what a terminal has room for: how the relay stands to the floor, and its journal."""
    table = Table("load", "figure", "relay / floor", "target", "")
    for row in rows:
        ratio = f"{row.ratios[OURS]:.2f}" if OURS in row.ratios else ""
        table.add_row(row.load.label, row.target.figure, ratio, str(row.target), VERDICT[row.met])
    for check in history:
        table.add_row(check.label, "", check.measured, check.target, VERDICT[check.met])
    return table


if __name__ == "__main__":
    main(prog_name="script/benchmark")
