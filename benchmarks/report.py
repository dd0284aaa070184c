"""What a run found, as JSON and as Markdown."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.history import History, check_steady
from benchmarks.loads import Figure
from benchmarks.measure import Measurement
from benchmarks.run import Run
from benchmarks.summary import (
    FLOOR,
    JOURNAL,
    OURS,
    PURE,
    RIVALS,
    Check,
    Key,
    Row,
    check_ceilings,
    check_idle,
    check_pure,
    check_stalled,
)

BEGIN = "<!-- results begin -->"
END = "<!-- results end -->"
COLUMNS = (OURS, JOURNAL, PURE, FLOOR, *RIVALS)
"""The systems of the table, in order."""
FEW_DIGITS = 10
"""Below this a value is shown with two decimals, at and above it with none."""


class ReportError(Exception):
    """The results cannot be put where they belong."""


def checks(run: Run) -> list[Check]:
    """Return what was asked of the relay alone, and of the load generator."""
    found = [
        check_pure(run.results, run.loads),
        check_stalled(run.results, run.fate),
        None if run.idle_bytes is None else check_idle(run.idle_bytes, run.idle_peers),
        *check_ceilings(run.results, run.loads),
    ]
    return [each for each in found if each]


def history_checks(run: Run, history: History) -> list[Check]:
    """Return what was asked of the relay with a journal."""
    return [*check_steady(run.results), *history.checks()]


def document(
    run: Run,
    history: History,
    rows: Sequence[Row],
    machine: Mapping[str, Any],
    systems: Mapping[str, Mapping[str, str | None]],
) -> dict[str, Any]:
    """Return everything that was measured, raw and summarised, for JSON.

    ``systems`` tells of each system its label, its version, and why it is ``missing`` if it is.
    """
    return {
        "machine": machine,
        "systems": systems,
        "settings": {"rounds": run.rounds, "scale": run.scale},
        "complete": all(m and m.complete for rounds in run.results.values() for m in rounds),
        "failures": [*run.failures, *history.failures],
        "rows": [_row_document(row) for row in rows],
        "checks": [asdict(check) for check in checks(run)],
        "idle_peer_bytes": run.idle_bytes,
        "measurements": list(_raw(run.results)),
        "history": {
            "checks": [asdict(check) for check in history_checks(run, history)],
            "rounds": history.results,
        },
    }


def _row_document(row: Row) -> dict[str, Any]:
    return {
        "load": row.load.key,
        "label": row.load.label,
        "figure": row.target.figure,
        "unit": row.target.figure.unit,
        "medians": row.medians,
        "ratios_to_floor": row.ratios,
        "target": str(row.target),
        "met": row.met,
        "behind": row.behind,
        "incomplete": sorted(row.incomplete),
    }


def _raw(results: Mapping[Key, Sequence[Measurement | None]]) -> Iterable[dict[str, Any]]:
    for (load, system), rounds in results.items():
        for number, measurement in enumerate(rounds, 1):
            figures = asdict(measurement) if measurement else None
            yield {"load": load, "system": system, "round": number, "figures": figures}


def markdown(
    found: Mapping[str, Any],
    rows: Sequence[Row],
    all_checks: Sequence[Check],
    of_history: Sequence[Check],
) -> str:
    """Return the results as Markdown; ``found`` is what :func:`document` returned."""
    machine, systems = found["machine"], found["systems"]
    columns = [key for key in COLUMNS if key in systems]
    about = [
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['kernel']}, {machine['distribution']}, {machine['python']}, "
        f"journals on {machine['file_system']}; "
        f"{found['settings']['rounds']} rounds.",
        "",
        *(f"- {_version(systems[key])}" for key in columns),
        "",
    ]
    tables = [
        _systems_table(systems, columns, rows),
        _checks_table("of the relay, and of the load generator", all_checks),
        _checks_table("of the relay with a journal", of_history),
    ]
    return "\n".join([*about, "\n\n".join("\n".join(table) for table in tables if table)])


def _systems_table(
    systems: Mapping[str, Any], columns: Sequence[str], rows: Sequence[Row]
) -> list[str]:
    if not rows:
        return []
    heads = [systems[key]["label"] for key in columns]
    head = ["load", "figure", *heads, "relay / floor", "target", "met", "ahead of the others"]
    marked = any(row.incomplete for row in rows)
    note = ["", "† not every consumer got every message, or a round failed."] if marked else []
    return [*_table(head, (_cells(row, columns) for row in rows)), *note]


def _checks_table(head: str, checks: Sequence[Check]) -> list[str]:
    if not checks:
        return []
    cells = ([c.label, c.measured, c.target, _yes(c.met)] for c in checks)
    return _table([head, "measured", "target", "met"], cells)


def _version(system: Mapping[str, str | None]) -> str:
    if system["missing"]:
        return f"{system['label']}: not measured: {system['missing']}"
    return f"{system['label']}: {system['version']}"


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    figure = row.target.figure
    values = []
    for system in columns:
        mark = "†" if system in row.incomplete else ""
        found = row.medians.get(system)
        values.append("-" if found is None else _number(found) + mark)
    name = figure if figure is Figure.RATE else f"{figure}, {figure.unit}"
    ratio = f"{row.ratios[OURS]:.2f}" if OURS in row.ratios else "-"
    return [row.load.label, name, *values, ratio, str(row.target), _yes(row.met), _ahead(row)]


def _ahead(row: Row) -> str:
    if row.behind is None:
        return "-"
    return f"no: {', '.join(row.behind)}" if row.behind else "yes"


def _number(value: float) -> str:
    return f"{value:,.2f}" if value < FEW_DIGITS else f"{value:,.0f}"


def _yes(met: bool | None) -> str:
    return {True: "met", False: "**not met**", None: "-"}[met]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def check_page(page: Path) -> None:
    """Raise :class:`ReportError` if the page has no place for the results."""
    try:
        text = page.read_text()
    except OSError as error:
        raise ReportError(f"{page}: {error.strerror}: the results belong there") from None
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ReportError(f"{page}: needs one line {BEGIN!r} and, after it, one {END!r}")


def update_page(page: Path, results: str) -> None:
    """Put the results between the page's markers. Raises :class:`ReportError` without them."""
    check_page(page)
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    _write(page, f"{before}{BEGIN}\n\n{results}\n\n{END}{after}")


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Write what :func:`document` returned."""
    _write(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file so that it is never there in part."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)
