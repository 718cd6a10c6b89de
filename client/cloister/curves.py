# SPDX-License-Identifier: Apache-2.0
"""Loss curves of a job, from its events: for the terminal in dots of Braille, for a page as SVG, and as PNG.

What is drawn are figures that the control plane holds anyway; nothing of a dataset is in them.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cloister.api.v1 import jobs_pb2

LOSS = "train_loss."
_PLACE = ("step", "max_steps", "eta_seconds", "train_loss")
Points = tuple[tuple[float, float], ...]
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # Unicode 2800: the dots of a cell, by row and column


@dataclass(frozen=True)
class Curves:
    """Points (step, loss) in order of steps: of training at every step, of validation at its evaluations."""

    training: Points
    validation: Points

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return len(self.training) < 2


@dataclass(frozen=True)
class Step:
    """How far a job is, as one report of its worker says."""

    step: int
    total: int
    loss: float
    eta_seconds: float
    metrics: dict[str, float]
    """Such as train_lr, train_grad_norm, tokens_per_second."""


def step_of(event: jobs_pb2.JobEvent) -> Step:
    """Of an event of type progress."""
    data = dict(event.data)
    kept = {name: value for name, value in data.items() if "." not in name and name not in _PLACE}
    return Step(
        int(data.get("step", 0)),
        int(data.get("max_steps", 0)),
        data.get("train_loss", math.nan),
        data.get("eta_seconds", 0.0),
        kept,
    )


def curves_of(events: Iterable[jobs_pb2.JobEvent]) -> Curves:
    """The curves of a job's events; a step that an attempt took again counts as it was taken last."""
    training: dict[float, float] = {}
    validation: dict[float, float] = {}
    for event in events:
        for name, value in event.data.items():
            if name.startswith(LOSS) and name.removeprefix(LOSS).isdigit():
                training[float(name.removeprefix(LOSS))] = value
        if event.type == "evaluation" and event.message == "evaluation during" and "eval_loss" in event.data:
            validation[event.data["step"]] = event.data["eval_loss"]
    return Curves(tuple(sorted(training.items())), tuple(sorted(validation.items())))


@dataclass(frozen=True)
class Frame:
    """From steps and losses to places in a picture of so many columns and rows, row 0 on top."""

    steps: tuple[float, float]
    losses: tuple[float, float]
    columns: int
    rows: int

    @classmethod
    def around(cls, curves: Curves, columns: int, rows: int) -> Frame:
        points = [point for point in (*curves.training, *curves.validation) if math.isfinite(point[1])]
        steps, losses = [step for step, _ in points], [loss for _, loss in points]
        low, high = min(losses), max(losses)
        margin = 0.05 * (high - low) or 0.5
        return cls((min(steps), max(steps)), (low - margin, high + margin), columns, rows)

    def place(self, point: tuple[float, float]) -> tuple[float, float]:
        """Column and row, from 0 to their numbers less one."""
        (first, last), (low, high) = self.steps, self.losses
        across = (point[0] - first) / ((last - first) or 1)
        up = (point[1] - low) / (high - low)
        return across * (self.columns - 1), (1 - up) * (self.rows - 1)


def in_terminal(curves: Curves, width: int = 72, height: int = 12) -> list[str]:
    """Lines of `width` characters: the loss of training, with its scale at the left and the steps below."""
    frame = Frame.around(Curves(curves.training, ()), 2 * (width - 10), 4 * height)
    cells = [[0] * (width - 10) for _ in range(height)]
    for column, row in _traced(frame, curves.training):
        cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
    low, high = frame.losses
    lines = []
    for number, line in enumerate(cells):
        scale = high - (high - low) * number / max(1, height - 1)
        label = f"{scale:8.4g}" if number % 4 == 0 or number == height - 1 else ""
        lines.append(f"{label:>8} ▏" + "".join(chr(0x2800 + cell) for cell in line))
    first, last = frame.steps
    return [*lines, f"{'step':>8}  {first:g}".ljust(width - len(f"{last:g}")) + f"{last:g}"]


def _traced(frame: Frame, points: Points) -> Iterable[tuple[int, int]]:
    """Every dot of the line through the points."""
    places = [frame.place(point) for point in points if math.isfinite(point[1])]
    for (x0, y0), (x1, y1) in pairwise(places):
        count = max(1, math.ceil(max(abs(x1 - x0), abs(y1 - y0))))
        for part in range(count + 1):
            yield round(x0 + (x1 - x0) * part / count), round(y0 + (y1 - y0) * part / count)


WIDTH, HEIGHT, LEFT, BOTTOM = 720, 300, 64, 36
TRAINING, VALIDATION = "#2f6f9f", "#c4552d"


def as_svg(curves: Curves, title: str) -> str:
    """A picture that stands alone: both curves, axes with figures, and a key."""
    frame = Frame.around(curves, WIDTH - LEFT - 16, HEIGHT - BOTTOM - 28)

    def path(points: Points) -> str:
        places = [frame.place(point) for point in points if math.isfinite(point[1])]
        return " ".join(f"{LEFT + x:.1f},{24 + y:.1f}" for x, y in places)

    low, high = frame.losses
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" role="img">',
        f"<title>{_escaped(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for part in range(5):
        y = 24 + (frame.rows - 1) * part / 4
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - 16}" y2="{y:.1f}" stroke="#ddd"/>')
        label = high - (high - low) * part / 4
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label:.4g}</text>')
    for step, anchor, x in ((frame.steps[0], "start", LEFT), (frame.steps[1], "end", WIDTH - 16)):
        parts.append(f'<text x="{x}" y="{HEIGHT - 16}" text-anchor="{anchor}">step {step:g}</text>')
    parts.append(f'<polyline fill="none" stroke="{TRAINING}" stroke-width="1.5" points="{path(curves.training)}"/>')
    if curves.validation:
        parts.append(
            f'<polyline fill="none" stroke="{VALIDATION}" stroke-width="2" points="{path(curves.validation)}"/>'
        )
        parts += [
            f'<circle cx="{LEFT + x:.1f}" cy="{24 + y:.1f}" r="3" fill="{VALIDATION}"/>'
            for x, y in map(frame.place, curves.validation)
        ]
    key = (("training loss", TRAINING, 0), ("validation loss", VALIDATION, 130))
    parts += [f'<text x="{LEFT + x}" y="14" fill="{colour}">{name}</text>' for name, colour, x in key]
    return "".join([*parts, "</svg>\n"])


def as_png(curves: Curves, columns: int = WIDTH, rows: int = HEIGHT) -> bytes:
    """The curves alone, without words, as a true-colour PNG (ISO/IEC 15948)."""
    frame = Frame.around(curves, columns - 16, rows - 16)
    pixels = [bytearray(b"\xff" * 3 * columns) for _ in range(rows)]
    for points, colour, reach in ((curves.training, TRAINING, 0), (curves.validation, VALIDATION, 1)):
        ink = bytes.fromhex(colour.removeprefix("#"))
        for column, row in _traced(frame, points):
            for x in range(column - reach, column + reach + 1):
                for y in range(row - reach, row + reach + 1):
                    start = 3 * min(columns - 1, max(0, x + 8))
                    pixels[min(rows - 1, max(0, y + 8))][start : start + 3] = ink
    raw = b"".join(b"\0" + bytes(line) for line in pixels)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks))


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, data = chunk
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def spans(curves: Curves) -> Sequence[tuple[str, float, float]]:
    """Name, first and last value of each curve that has points."""
    named = (("training loss", curves.training), ("validation loss", curves.validation))
    return [(name, points[0][1], points[-1][1]) for name, points in named if points]
