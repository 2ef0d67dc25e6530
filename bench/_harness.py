"""What all figures have in common: interleaved blocks, medians with their spread, ratios within the run, bars, the table."""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

BLOCKS: Final = 9
LATENCIES: Final = 1150
"""Requests of a block where a 99th percentile is told: nine blocks have more than 10 000."""

TAIL_SAMPLES: Final = 10_000


@dataclass(frozen=True)
class Bar:
    """What a ratio (or, without a peer, the value itself) must reach, and what is aimed at."""

    limit: float
    aim: float | None = None
    at_least: bool = False
    """The bar is a lower bound: a rate, not a time."""

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def aimed(self, value: float) -> bool | None:
        if self.aim is None:
            return None
        return value >= self.aim if self.at_least else value <= self.aim


@dataclass
class Series:
    """One side of a figure: a value per block, in `unit`, and where they are latencies all samples for the tail."""

    unit: str
    blocks: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        return statistics.median(self.blocks)

    @property
    def p99(self) -> float | None:
        """99th percentile of all samples, where there are enough of them to tell."""
        return statistics.quantiles(self.samples, n=100)[98] if len(self.samples) >= TAIL_SAMPLES else None


@dataclass
class Row:
    """One line of the table. `section` is what `--only` looks for."""

    section: str
    name: str
    ours: Series | None
    against: Series | None = None
    peer: str = ""
    client: str = ""
    bar: Bar | None = None
    note: str = ""
    """Why there is no figure, where `ours` is None."""
    failed: bool = False

    @property
    def ratios(self) -> list[float]:
        if self.ours is None or self.against is None:
            return []
        return [ours / theirs for ours, theirs in zip(self.ours.blocks, self.against.blocks, strict=True)]

    @property
    def judged(self) -> float | None:
        """What the bar is held against."""
        if self.ours is None:
            return None
        return statistics.median(self.ratios) if self.against is not None else self.ours.value

    @property
    def met(self) -> bool | None:
        return None if self.bar is None or self.judged is None else self.bar.met(self.judged)


@dataclass(frozen=True)
class Run:
    """What a section needs: where files go, and how thorough it is to be."""

    folder: Path
    quick: bool

    @property
    def blocks(self) -> int:
        return 3 if self.quick else BLOCKS

    def count(self, full: int) -> int:
        """Scale a number of repetitions."""
        return max(1, full // 5) if self.quick else full


Block = Callable[[], "float | Sequence[float]"]
"""Measures once: a value, or the latencies (seconds) of its requests, of which the median is the block's value."""


def interleaved(run: Run, sides: Mapping[str, tuple[str, Block]]) -> dict[str, Series]:
    """Measure all sides in each block, by turns first; `sides` names each one's unit and how to measure it.

    Latencies become microseconds where the unit is `us`, milliseconds where it is `ms`.
    """
    found = {name: Series(unit) for name, (unit, _) in sides.items()}
    order = list(sides)
    for _ in range(run.blocks):
        for name in order:
            unit, measure = sides[name]
            taken = measure()
            if isinstance(taken, (int, float)):
                found[name].blocks.append(taken)
            else:
                scale = {"us": 1e6, "ms": 1e3}[unit]
                scaled = [each * scale for each in taken]
                found[name].samples += scaled
                found[name].blocks.append(statistics.median(scaled))
        order.reverse()
    return found


# -- the table


def shown(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}".rstrip()


def spread(values: Sequence[float]) -> str:
    """Lowest and highest block."""
    return f"{shown(min(values))}-{shown(max(values))}" if len(values) > 1 else ""


HEAD: Final = ("figure", "ours", "blocks", "p99", "peer", "peer's", "p99", "ratio", "blocks", "bar", "aim", "")
LEFT: Final = {0, 4}


def cells(row: Row) -> tuple[str, ...]:
    if row.ours is None:
        return (row.name, row.note, *[""] * (len(HEAD) - 2))
    ratio = ratios = ""
    if row.against is not None:
        ratio, ratios = shown(row.judged), spread(row.ratios)
    limit = aim = verdict = ""
    if row.bar is not None and row.judged is not None:
        sign = ">=" if row.bar.at_least else "<="
        limit = f"{sign} {row.bar.limit:g}"
        aim = f"{row.bar.aim:g}" if row.bar.aim is not None else ""
        verdict = "MISSED" if not row.met else "aim" if row.bar.aimed(row.judged) else "met"
    return (
        f"{row.name} [{row.client}]" if row.client else row.name,
        shown(row.ours.value, row.ours.unit),
        spread(row.ours.blocks),
        shown(row.ours.p99),
        row.peer,
        shown(row.against.value, row.against.unit) if row.against is not None else "",
        shown(row.against.p99) if row.against is not None else "",
        ratio,
        ratios,
        limit,
        aim,
        verdict,
    )


def table(rows: Sequence[Row]) -> str:
    full = [HEAD, *(cells(row) for row in rows if row.ours is not None)]
    widths = [max(len(line[column]) for line in full) for column in range(len(HEAD))]
    widths[0] = max([widths[0], *(len(row.name) for row in rows)])
    text = []
    for line in (HEAD, *map(cells, rows)):
        if line[1] and not any(line[2:]):
            # A value alone, or the reason why there is none: it has the rest of the line for itself.
            text.append(f"{line[0].ljust(widths[0])}  {line[1].rjust(widths[1])}")
            continue
        padded = [
            cell.ljust(width) if column in LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(padded).rstrip())
    return "\n".join(text)


def plot(title: str, unit: str, points: Mapping[int, float], width: int = 50) -> str:
    """Horizontal bars, one per number of services, to one linear scale."""
    top = max(points.values())
    lines = [f"{title}, {unit}"]
    for services, value in points.items():
        lines.append(f"  {services:5} {'#' * max(1, round(value / top * width)):<{width}} {shown(value)}")
    return "\n".join(lines)


# -- the record


def as_json(rows: Sequence[Row], *, seconds: float, quick: bool) -> dict[str, Any]:
    def series(it: Series | None) -> dict[str, Any] | None:
        if it is None:
            return None
        figures = {"unit": it.unit, "median": it.value, "blocks": it.blocks, "p99": it.p99, "samples": len(it.samples)}
        return {key: value for key, value in figures.items() if value not in (None, 0)}

    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
        "quick": quick,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rows": [
            {
                "section": row.section,
                "figure": row.name,
                "client": row.client,
                "ours": series(row.ours),
                "peer": row.peer,
                "against": series(row.against),
                "ratio": row.judged if row.against is not None else None,
                "ratios": row.ratios,
                "bar": row.bar.limit if row.bar else None,
                "aim": row.bar.aim if row.bar else None,
                "met": row.met,
                "note": row.note,
            }
            for row in rows
        ],
    }


def record(folder: Path, rows: Sequence[Row], *, seconds: float, quick: bool) -> Path:
    """Write the run as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(as_json(rows, seconds=seconds, quick=quick), indent=1) + "\n")
    return path


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
