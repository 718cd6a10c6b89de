# SPDX-License-Identifier: Apache-2.0
"""Interval plots as SVG: before and after on one scale, the bar as a band about the ideal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from cloister_workers.trainer.debias.report.wording import interval, number
from cloister_workers.trainer.debias.results import Estimate

_WIDTH, _LABELS, _ROW, _TOP, _AXIS = 900, 340, 44, 10, 34
_MOST = 46  # characters of a label
_LEFT, _RIGHT = _LABELS, _WIDTH - 24


@dataclass(frozen=True)
class Row:
    """One line of a plot."""

    label: str
    before: Estimate
    after: Estimate


@dataclass(frozen=True)
class Span:
    """What the plot's scale covers, and where it stands in pixels."""

    low: float
    high: float

    def x(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return _LEFT + share * (_RIGHT - _LEFT)


def interval_plot(title: str, rows: Sequence[Row], ideal: float | None, bar: float | None) -> str:
    """An SVG element with the intervals of all rows; empty where no number is finite."""
    span = _span(rows, ideal, bar)
    if span is None:
        return ""
    bottom = _TOP + _ROW * len(rows)
    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {bottom + _AXIS}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        *_band(span, ideal, bar, bottom),
        *(piece for place, row in enumerate(rows) for piece in _row(span, row, _TOP + _ROW * place)),
        *_scale(span, bottom),
        "</svg>",
    ]
    return "\n".join(parts)


def _span(rows: Sequence[Row], ideal: float | None, bar: float | None) -> Span | None:
    values = [end for row in rows for e in (row.before, row.after) for end in (e.low, e.value, e.high)]
    if ideal is not None:
        values += [ideal, ideal + (bar or 0.0)]
        values += [ideal - (bar or 0.0)] if min(filter(math.isfinite, values), default=0.0) < ideal else []
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    room = 0.05 * (high - low) or 0.05 * max(abs(high), 1.0)
    return Span(low - room, high + room)


def _band(span: Span, ideal: float | None, bar: float | None, bottom: int) -> list[str]:
    if ideal is None:
        return []
    found = []
    if bar is not None:
        left, right = span.x(ideal - bar), span.x(ideal + bar)
        height = bottom - _TOP
        found.append(
            f'<rect class="bar" x="{left:.1f}" y="{_TOP}" width="{max(right - left, 1):.1f}" height="{height}"/>'
        )
    x = span.x(ideal)
    return [*found, f'<line class="ideal" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>']


def _row(span: Span, row: Row, top: int) -> list[str]:
    label = row.label if len(row.label) <= _MOST else f"{row.label[: _MOST - 1]}…"
    return [
        f'<text class="label" x="{_LABELS - 12}" y="{top + _ROW / 2 + 4:.0f}" text-anchor="end">{escape(label)}</text>',
        *_mark(span, row.before, top + 14, "before"),
        *_mark(span, row.after, top + 30, "after"),
    ]


def _mark(span: Span, estimate: Estimate, y: int, kind: str) -> list[str]:
    if not math.isfinite(estimate.value):
        return []
    x = span.x(estimate.value)
    whisker = []
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        low, high = span.x(estimate.low), span.x(estimate.high)
        whisker = [f'<line class="{kind}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>']
    words = escape(f"{kind}: {interval(estimate)}")
    return [
        f"<g><title>{words}</title>",
        *whisker,
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="5"/></g>',
    ]


def _scale(span: Span, bottom: int) -> list[str]:
    found = [f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{bottom}" y2="{bottom}"/>']
    for value in _ticks(span):
        x = span.x(value)
        found.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        found.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{number(value)}</text>')
    return found


def _ticks(span: Span) -> list[float]:
    """Round numbers, four to eight of them."""
    rough = (span.high - span.low) / 6
    step = 10 ** math.floor(math.log10(rough))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= rough)
    first = math.ceil(span.low / step)
    return [place * step for place in range(first, math.floor(span.high / step) + 1)]
