"""How things grow with hosts, as a picture: a panel for each figure, a line for each topology."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scaling_lag import Result, series, simulate_flow
from benchmarks.scaling_model import TOPOLOGIES, Scenario, Topology, most_hosts
from benchmarks.scaling_parameters import Parameters

LOOKS = {
    "mesh": ("#d1262f", "o", 4),
    "split": ("#2a78b5", "s", 1.5),
    "leaf": ("#3f9b57", "^", 2.5),
    "regions": ("#8e6bbf", "D", 1),
}
"""Colour, marker and width of each topology that is drawn: what is equal lies above each other."""
RATE = 10
"""Messages per second of each host, in all panels but the last."""
HOSTS = tuple(2**power for power in range(1, 13))
RATES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
SIZE_INCHES = 10.0, 6.5
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "scaling",  # the same figures make the same file
    "font.family": "sans-serif",
    "font.size": 9,
}


PANELS: tuple[tuple[str, Callable[[Result], float]], ...] = (
    ("Lag, median, ms", lambda result: result.lag.p50 * 1e3 if result.lag else 0.0),
    ("Lag, 99th percentile, ms", lambda result: result.lag.p99 * 1e3 if result.lag else 0.0),
    ("Busiest link, MB/s", lambda result: max(result.load.links.values()) / 1e6),
    ("Cores of each host", lambda result: result.load.host_cores),
    ("NATS servers", lambda result: result.load.servers),
)


def draw(path: Path, p: Parameters, seed: int) -> None:
    """Draw the panels on a white card, as SVG; a line ends where something is full."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    drawn = [topology for topology in TOPOLOGIES if topology.key in LOOKS]
    with matplotlib.rc_context(STYLE):
        card, axes = pyplot.subplots(2, 3, figsize=SIZE_INCHES, layout="constrained")
        *panels, last = axes.flat
        for topology in drawn:
            found = [each for each in series(topology, HOSTS, RATE, p, seed) if each.lag]
            _lines(panels, topology, found)
            most = [_most(topology, rate, p, seed) for rate in RATES]
            _line(last, topology, RATES, most)
        for axis, (title, _) in zip(panels, PANELS, strict=True):
            _frame(axis, title, f"hosts, {RATE} messages/s of each")
        _frame(last, "How many hosts", "messages/s of each host")
        marks = panels[0].get_legend_handles_labels()
        card.legend(*marks, loc="outside upper center", ncols=len(drawn), frameon=False)
        card.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
        pyplot.close(card)


def _most(topology: Topology, rate: float, p: Parameters, seed: int) -> int:
    flow = simulate_flow(topology, rate, p, seed)
    return most_hosts(Scenario(topology, 1, rate), flow, p)[0]


def _lines(panels: Sequence[Any], topology: Topology, found: Sequence[Result]) -> None:
    hosts = [result.scenario.hosts for result in found]
    for axis, (_, value) in zip(panels, PANELS, strict=True):
        _line(axis, topology, hosts, [value(result) for result in found])


def _line(axis: Any, topology: Topology, x: Sequence[float], y: Sequence[float]) -> None:
    colour, marker, width = LOOKS[topology.key]
    axis.plot(
        x, y, color=colour, marker=marker, markersize=4, linewidth=width, label=topology.label
    )


def _frame(axis: Any, title: str, below: str) -> None:
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set_xlabel(below)
    ticker = importlib.import_module("matplotlib.ticker")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter("{x:,g}")
        scale.set_minor_formatter("")
    axis.grid(color="#e3e3e3", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
