"""The results as a picture, with matplotlib, which is an extra: without it there is none."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.loads import Figure
from benchmarks.summary import OURS, Row

SYSTEMS = {
    "nats": ("nats-server", "#2a78b5", "s"),
    "redis": ("Redis", "#8e6bbf", "^"),
    "zeromq": ("ZeroMQ", "#3f9b57", "D"),
    OURS: ("relay", "#d1262f", "o"),
}
"""Label, colour and marker of each; the relay comes last, so it lies on top."""
FLOOR_COLOUR = "#30343f"
PANELS = (
    (Figure.RATE, "Messages per second (further right is better)"),
    (Figure.P50, "Median latency (further left is better)"),
    (Figure.CPU, "CPU time per delivery (further left is better)"),
)
SCALE = "in multiples of the floor, the least that a hub can do"
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
INCHES_PER_LOAD = 0.3
INCHES_PER_PANEL = 0.7
WIDTH_INCHES = 9.0
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "performance",  # the same figures make the same file
    "font.family": "sans-serif",
    "font.size": 9,
}


def can_draw() -> bool:
    """Return whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Draw the ratios to the floor on a white card, as SVG: a panel for each kind of figure."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    panels = [(title, chosen) for figure, title in PANELS if (chosen := _of(rows, figure))]
    if not panels:
        return
    loads = [len(chosen) for _, chosen in panels]
    size = WIDTH_INCHES, INCHES_PER_LOAD * sum(loads) + INCHES_PER_PANEL * len(loads) + 0.5
    with matplotlib.rc_context(STYLE):
        card, axes = pyplot.subplots(
            len(panels), figsize=size, height_ratios=loads, squeeze=False, layout="constrained"
        )
        for axis, (title, chosen) in zip(axes[:, 0], panels, strict=True):
            _panel(axis, title, chosen)
        axes[-1, 0].set_xlabel(SCALE)
        marks = axes[0, 0].get_legend_handles_labels()
        card.legend(*marks, loc="outside upper center", ncols=len(marks[0]), frameon=False)
        card.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
        pyplot.close(card)


def _of(rows: Sequence[Row], figure: Figure) -> list[Row]:
    return [row for row in rows if row.target.figure is figure and row.ratios]


def _panel(axis: Any, title: str, rows: Sequence[Row]) -> None:
    """Draw a line for each load, the first on top, with a mark for each system."""
    axis.set_title(title, loc="left", fontweight="bold")
    axis.axvline(1, color=FLOOR_COLOUR, linewidth=2, label="floor")
    for system, (label, colour, marker) in SYSTEMS.items():
        marks = [(row.ratios[system], y) for y, row in enumerate(rows) if system in row.ratios]
        if not marks:
            continue
        ours = {"zorder": 3, "s": 90} if system == OURS else {"zorder": 2, "s": 40}
        axis.scatter(*zip(*marks, strict=True), c=colour, marker=marker, label=label, **ours)
    shown = [
        1.0,
        *(row.ratios[system] for row in rows for system in SYSTEMS if system in row.ratios),
    ]
    axis.set_xscale("log")
    axis.set_xlim(min(shown) / 1.5, max(shown) * 1.5)
    ticks = [tick for tick in TICKS if min(shown) / 1.5 <= tick <= max(shown) * 1.5]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_yticks(range(len(rows)), [row.load.label for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(color="#e3e3e3", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0)
