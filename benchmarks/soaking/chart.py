# SPDX-License-Identifier: Apache-2.0
"""The samples of a soak as a picture (SVG), without a library for it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from soaking.samples import Sample

WIDTH, HEIGHT, LEFT, GAP = 900, 220, 70, 50
COLOURS = ("#1f6f8b", "#b5482a", "#5b7f2b", "#7a4b94")
PANELS = (("memory", "resident memory, MiB"), ("descriptors", "file descriptors"))


def picture(samples: Mapping[str, list[Sample]], warm_up: float) -> str:
    """A panel for each measure, a line for each service; the warm-up is shaded."""
    total = HEIGHT * len(PANELS) + GAP
    panels = [_panel(samples, warm_up, measure, title, n * HEIGHT) for n, (measure, title) in enumerate(PANELS)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" font-family="sans-serif"'
    return f'{head} font-size="12">\n<rect width="{WIDTH}" height="{total}" fill="#fff"/>\n{"".join(panels)}</svg>\n'


def _panel(samples: Mapping[str, list[Sample]], warm_up: float, measure: str, title: str, top: int) -> str:
    end = max((found[-1].seconds for found in samples.values() if found), default=1.0)
    most = 1.1 * max((getattr(s, measure) for found in samples.values() for s in found), default=1.0)
    inner = HEIGHT - GAP

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * seconds / end

    def y(value: float) -> float:
        return top + GAP / 2 + inner * (1 - value / most)

    parts = [f'<rect x="{LEFT}" y="{y(most):.0f}" width="{x(warm_up) - LEFT:.0f}" height="{inner}" fill="#eee"/>\n']
    for share in (0.0, 0.5, 1.0):
        value = most * share
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ccc"/>\n')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0f}</text>\n')
    parts.append(f'<text x="{LEFT}" y="{top + 18}">{escape(title)}; {end / 60:.0f} minutes, warm-up grey</text>\n')
    for number, (name, found) in enumerate(samples.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(f"{x(s.seconds):.1f},{y(getattr(s, measure)):.1f}" for s in found)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>\n')
        parts.append(f'<text x="{WIDTH - 330 + 110 * number}" y="{top + 18}" fill="{colour}">{escape(name)}</text>\n')
    return "".join(parts)
