"""``python -m benchmarks.scaling``: how lag, traffic and cost grow with hosts, by simulation.

Writes the results into docs/scaling.md, and the picture beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks import report, scaling_picture
from benchmarks.picture import can_draw
from benchmarks.scaling_lag import Result, series, simulate, simulate_flow
from benchmarks.scaling_model import (
    MESH,
    MOST_HOSTS,
    TOPOLOGIES,
    Scenario,
    most_hosts,
)
from benchmarks.scaling_parameters import Parameters

DOCS = Path(__file__).parents[1] / "docs"
SEED = 1
HOSTS = (2, 8, 32, 128, 512, 2048)
RATES = (1, 10, 100, 1_000, 10_000)
"""Messages per second of each host."""
LOOKED_AT = (10, 100, 1_000)
"""Those of the rates of which the results tell every number of hosts."""
PEERS = (1, 10, 100, 1_000)
BY_PEERS_HOSTS, BY_PEERS_RATE = 32, 10
MATTERING = (
    "bridge_inward_seconds_per_run",
    "bridge_inward_seconds_per_batch",
    "bridge_outward_seconds_per_run",
    "publish_round_trip_seconds",
    "burst_messages",
    "message_bytes",
)
"""The parameters that are halved and doubled, to tell what the limits hang on."""
MATTERING_RATES = (10, 1_000)
RESULT_HEADS = (
    "p50, ms",
    "p99, ms",
    "busiest link, MB/s",
    "cores of a host",
    "cores of a NATS server",
    "NATS servers",
    "fullest part",
)
SHOWN = {"s": ("µs", 1e6), "s/B": ("ns/B", 1e9), "B/s": ("MB/s", 1e-6)}
"""How figures are shown: unit, and how many of them are one."""


@dataclass(frozen=True)
class Grid:
    """A table: its name, the heads of its columns, its rows."""

    name: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(p: Parameters, seed: int) -> list[Grid]:
    """Return all results as tables."""
    return [_most(p, seed), _all(p, seed), _by_peers(p, seed), _mattering(p, seed), _taken(p)]


def _most(p: Parameters, seed: int) -> Grid:
    """Tell how many hosts there can be, and what is full with one more."""
    heads = ["how many hosts, at messages a second of each", *(f"{rate:,}" for rate in RATES)]
    rows = [
        [topology.label, *(_most_cell(Scenario(topology, 1, rate), p, seed) for rate in RATES)]
        for topology in TOPOLOGIES
        if topology.bridged
    ]
    return Grid("How far it goes", heads, rows)


def _most_cell(scenario: Scenario, p: Parameters, seed: int) -> str:
    most, full = most_hosts(scenario, simulate_flow(scenario.topology, scenario.rate, p, seed), p)
    return f"{most:,}: {full}" if most + 1 < MOST_HOSTS else f"> {most:,}"


def _all(p: Parameters, seed: int) -> Grid:
    heads = ["topology", "messages/s of each host", "hosts", *RESULT_HEADS]
    rows = [
        [topology.label, f"{rate:,}", f"{each.scenario.hosts:,}", *_cells(each)]
        for topology in TOPOLOGIES
        for rate in LOOKED_AT
        for each in series(topology, HOSTS, rate, p, seed)
    ]
    return Grid("Lag, traffic and cost", heads, rows)


def _by_peers(p: Parameters, seed: int) -> Grid:
    at = Scenario(MESH, BY_PEERS_HOSTS, BY_PEERS_RATE)
    rows = [
        [f"{peers:,}", *_cells(simulate(scenario, p, seed)), _most_cell(scenario, p, seed)]
        for peers in PEERS
        for scenario in (replace(at, peers=peers),)
    ]
    name = f"Peers: {at.topology.label}, {at.hosts} hosts, {at.rate:g} messages/s of each"
    return Grid(name, ["peers of each host", *RESULT_HEADS, "how many hosts"], rows)


def _cells(result: Result) -> list[str]:
    found, lag = result.load, result.lag
    used = f"{found.fullest}, {found.used[found.fullest]:.0%}"
    link = found.busiest_link
    return [
        *((_number(lag.p50 * 1e3), _number(lag.p99 * 1e3)) if lag else ("-", "-")),
        f"{_number(found.links[link] / 1e6)}, {link}" if link else "-",
        _number(found.host_cores),
        _number(found.server_cores) if found.servers else "-",
        f"{found.servers:,}" if found.servers else "-",
        used if lag else f"**full**: {used}",
    ]


def _number(value: float) -> str:
    """Return a number with three digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else "< 0.001"


def _mattering(p: Parameters, seed: int) -> Grid:
    """Tell how many hosts there could be if a figure were half of what it is, or twice as much."""
    heads = ["figure", *(f"{rate:,} messages/s: half, as it is, twice" for rate in MATTERING_RATES)]
    rows = [
        [f"`{name}`", *(_variants(name, rate, p, seed) for rate in MATTERING_RATES)]
        for name in MATTERING
    ]
    return Grid(f"What it hangs on: how many hosts, {MESH.label}", heads, rows)


def _variants(name: str, rate: float, p: Parameters, seed: int) -> str:
    found = []
    for factor in (0.5, 1, 2):
        other = replace(p, **{name: getattr(p, name) * factor})
        flow = simulate_flow(MESH, rate, other, seed)
        found.append(most_hosts(Scenario(MESH, 1, rate), flow, other)[0])
    return ", ".join(f"{most:,}" for most in found)


def _taken(p: Parameters) -> Grid:
    """Tell what everything takes, and where that is from."""
    rows = []
    for each in fields(p):
        about = each.metadata
        unit, scale = SHOWN.get(about["unit"], (about["unit"], 1))
        value = f"{getattr(p, each.name) * scale:,.7g} {unit}".strip()
        rows.append([f"`{each.name}`", value, about["what"], about["origin"]])
    return Grid("What was taken for it", ["figure", "value", "what it is", "origin"], rows)


def markdown(grids: Sequence[Grid], seed: int) -> str:
    """Return the tables for the page."""
    parts = [f"Simulated with seed {seed}."]
    for grid in grids:
        lines = [grid.heads, ["---"] * len(grid.heads), *grid.rows]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        parts += [f"### {grid.name}", table]
    return "\n\n".join(parts)


def _show(grids: Sequence[Grid], console: Console) -> None:
    for grid in grids:
        table = Table(*grid.heads, title=grid.name)
        for row in grid.rows:
            table.add_row(*(cell.replace("**", "").replace("`", "") for cell in row))
        console.print(table)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=DOCS,
    help="Directory for scaling.md and .svg. Default: docs, whose scaling.md says where the "
    "results go.",
)
@click.option("--seed", type=int, default=SEED, show_default=True, help="Of all randomness.")
def main(output: Path, seed: int) -> None:
    """Simulate how lag, traffic and cost grow with hosts, peers and rate.

    The same seed gives the same results. What single parts take is in
    benchmarks/scaling_parameters.py.
    """
    page = output / "scaling.md"
    if output != DOCS:
        page.parent.mkdir(parents=True, exist_ok=True)
        if not page.exists():
            page.write_text(f"{report.BEGIN}\n{report.END}\n")
    p, console = Parameters(), Console()
    try:
        report.check_page(page)
    except report.ReportError as error:
        raise click.ClickException(str(error)) from None
    grids = tables(p, seed)
    report.update_page(page, markdown(grids, seed))
    if can_draw():
        scaling_picture.draw(page.with_suffix(".svg"), p, seed)
    else:
        console.print("no picture: the Python package matplotlib is not installed")
    _show(grids, console)
    console.print(f"written: {page}", soft_wrap=True)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.scaling")
