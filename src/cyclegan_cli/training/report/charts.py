"""Line charts as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

MAX_POINTS = 500  # About the width of a chart in pixels.
WIDTH, HEIGHT = 1000, 300  # Units of the drawing; the page scales it.
TICKS = 5
# Number of smoothing windows along a curve.
SMOOTHING_WINDOWS = 25

Row = Mapping[str, float]


@dataclass(frozen=True)
class Chart:
    """Curves with common axes, which start at zero.

    Attributes:
        title: The title.
        remark: How to read the chart, in one sentence.
        curves: Labels in the legend of one or two columns of the table.
        noisy: Whether to draw a moving mean over the values.
        marked: A reference value, drawn as a horizontal line, or None.
        best: The step of the best value, drawn as a vertical line, or None.
    """

    title: str
    remark: str
    curves: Mapping[str, str]
    noisy: bool = False
    marked: float | None = None
    best: int | None = None


def downsample(rows: Sequence[Row], columns: Sequence[str]) -> list[dict[str, float]]:
    """Average neighboring rows to at most :data:`MAX_POINTS`, each at its last step.

    Args:
        rows: Rows of a table with a column ``step``.
        columns: The columns to average.
    """
    size = math.ceil(len(rows) / MAX_POINTS)
    return [
        {"step": group[-1]["step"]}
        | {name: sum(row[name] for row in group) / len(group) for name in columns}
        for group in (rows[first : first + size] for first in range(0, len(rows), size or 1))
    ]


def draw(chart: Chart, rows: Sequence[Row], last_step: int) -> tuple[str, dict[str, Any]]:
    """Draw a chart.

    Args:
        chart: The chart.
        rows: The table, with the columns of all curves.
        last_step: End of the step axis.

    Returns:
        HTML, and the points for the script of the page: ``steps`` and the ``values`` of each curve
        (null for values that are not finite).
    """
    points = downsample(rows, list(chart.curves))
    steps = [point["step"] for point in points]
    values = [[point[column] for point in points] for column in chart.curves]
    drawn = [moving_mean(ys) if chart.noisy else ys for ys in values]
    top = _top(values, drawn, chart.marked or 0.0)
    scale = _Scale(max(last_step, 1), top)
    lines = _guide_lines(chart, scale)
    for i in range(len(values)):
        if chart.noisy:
            lines.append(f'<path class="raw c{i}" d="{scale.path(steps, values[i])}"/>')
        lines.append(f'<path class="c{i}" d="{scale.path(steps, drawn[i])}"/>')
    html = _figure(chart, scale, "".join(lines), [ys[-1] if ys else math.nan for ys in values])
    return html, {
        "steps": [int(step) for step in steps],
        "values": [[_json_number(value) for value in ys] for ys in values],
    }


def moving_mean(values: Sequence[float]) -> list[float]:
    """Return the mean over a window around each value, ignoring values that are not finite."""
    reach = len(values) // SMOOTHING_WINDOWS // 2
    means = []
    for i in range(len(values)):
        window = [y for y in values[max(0, i - reach) : i + reach + 1] if math.isfinite(y)]
        means.append(sum(window) / len(window) if window else math.nan)
    return means


def ticks(end: float) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten from 0 to at most ``end``."""
    rough = end / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [i * step for i in range(math.floor(end / step * 1.001) + 1)]


def format_number(value: float) -> str:
    """Format a number with three significant digits and thousands separators."""
    if not math.isfinite(value):
        return "not finite"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".").replace("e-0", "e-")


def tick_label(tick: float) -> str:
    """Format a tick: ``200k`` for 200,000."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if tick >= size:
            return f"{tick / size:g}{unit}"
    return f"{tick:g}".replace("e-0", "e-")


@dataclass(frozen=True)
class _Scale:
    """Maps steps and values to units of the drawing."""

    last_step: int
    top: float

    def x(self, step: float) -> str:
        return f"{step / self.last_step * WIDTH:.1f}"

    def y(self, value: float) -> str:
        return f"{HEIGHT - value / self.top * HEIGHT:.1f}"

    def path(self, steps: Sequence[float], values: Sequence[float]) -> str:
        """Return a path through all points, interrupted at values that are not finite."""
        parts, pen = [], "M"
        for step, value in zip(steps, values, strict=True):
            if not math.isfinite(value):
                pen = "M"
                continue
            parts.append(f"{pen}{self.x(step)} {self.y(min(value, 3 * self.top))}")
            pen = "L"
        if len(parts) == 1:
            parts.append("h0.1")  # A single point is drawn as a dot, by the round line caps.
        return "".join(parts)


def _top(
    values: Sequence[Sequence[float]], drawn: Sequence[Sequence[float]], marked: float
) -> float:
    """Return the end of the value axis; isolated spikes may exceed it."""
    raw = sorted(y for ys in values for y in ys if math.isfinite(y))
    means = [y for ys in drawn for y in ys if math.isfinite(y)]
    if not raw:
        return 1.0
    almost_all = raw[math.ceil(len(raw) * 0.98) - 1]
    highest = max(almost_all, *means, marked)
    return highest * 1.08 if highest > 0 else 1.0


def _guide_lines(chart: Chart, scale: _Scale) -> list[str]:
    def level(kind: str, value: float) -> str:
        y = scale.y(value)
        return f'<line class="{kind}" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>'

    lines = [] if chart.marked is None else [level("marked", chart.marked)]
    if chart.best is not None:
        x = scale.x(chart.best)
        lines.append(f'<line class="marked" x1="{x}" x2="{x}" y1="0" y2="{HEIGHT}"/>')
    return lines + [level("grid", tick) for tick in ticks(scale.top)]


def _figure(chart: Chart, scale: _Scale, lines: str, last: Sequence[float]) -> str:
    legend = "".join(
        f'<span class="key c{i}">{escape(label)} <b>{format_number(value)}</b></span>'
        for i, (label, value) in enumerate(zip(chart.curves.values(), last, strict=True))
    )
    y_labels = "".join(
        f'<span style="bottom:{tick / scale.top * 100:.2f}%">{tick_label(tick)}</span>'
        for tick in ticks(scale.top)
    )
    x_labels = "".join(_x_label(tick, tick / scale.last_step) for tick in ticks(scale.last_step))
    described = f"{chart.title}. {chart.remark}"
    return (
        f'<figure class="chart"><figcaption><h3>{escape(chart.title)}</h3>'
        f"<p>{escape(chart.remark)}</p>"
        f'<p class="legend">{legend}<span class="at"></span></p></figcaption>'
        f'<div class="plot"><div class="y" aria-hidden="true">{y_labels}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(described)}">{lines}'
        f'<line class="shown" y1="0" y2="{HEIGHT}"/><line class="pointed" y1="0" y2="{HEIGHT}"/>'
        f'</svg><div class="x" aria-hidden="true">{x_labels}</div></div></figure>'
    )


def _x_label(tick: float, fraction: float) -> str:
    end = ' class="end"' if fraction > 0.97 else ""
    return f'<span{end} style="left:{fraction * 100:.2f}%">{tick_label(tick)}</span>'


def _json_number(value: float) -> float | None:
    """Round to four digits; JSON has neither nan nor infinity."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
