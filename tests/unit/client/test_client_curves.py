# SPDX-License-Identifier: Apache-2.0
"""Loss curves: from events, in dots of Braille, as SVG and as PNG."""

from __future__ import annotations

import struct
import zlib
from xml.etree import ElementTree as ET

from cloister.api.v1 import jobs_pb2
from cloister.curves import Curves, as_png, as_svg, curves_of, in_terminal, spans

FALLING = Curves(tuple((float(n), 2.0 / n) for n in range(1, 41)), ((10.0, 0.4), (30.0, 0.2)))


def event(kind: str, message: str = "", **data: float) -> jobs_pb2.JobEvent:
    return jobs_pb2.JobEvent(type=kind, message=message, data={name.replace("__", "."): v for name, v in data.items()})


def test_curves_come_from_events():
    """Losses of single steps, in order, the last attempt's where a step was taken twice; validation at its steps."""
    events = [
        event("progress", train_loss__1=2.0, train_loss__2=1.5, train_loss=1.5, step=2.0),
        event("evaluation", "evaluation during", step=2.0, eval_loss=1.7),
        event("evaluation", "evaluation before", step=0.0, eval_loss=3.0),
        event("progress", train_loss__2=1.4, train_loss__3=1.2, step=3.0),
    ]
    assert Curves(((1.0, 2.0), (2.0, 1.4), (3.0, 1.2)), ((2.0, 1.7),)) == curves_of(events)
    assert curves_of([]).empty


def test_a_falling_curve_falls_in_the_terminal():
    """The first column's dots stand above the last one's, every line has the width, and the scale falls."""
    lines = in_terminal(FALLING, width=60, height=8)
    assert [60] * 9 == [len(line) for line in lines]
    body = [line[10:] for line in lines[:-1]]
    blank = chr(0x2800)
    tops = [next(row for row, line in enumerate(body) if line[column] != blank) for column in (0, 49)]
    assert tops[0] < tops[1]
    scale = [float(line[:8]) for line in lines[:-1] if line[:8].strip()]
    assert sorted(scale, reverse=True) == scale
    assert lines[-1].split() == ["step", "1", "40"]


def test_a_flat_curve_has_room():
    """Equal losses are drawn in the middle, without a division by nothing."""
    assert in_terminal(Curves(((1.0, 1.0), (2.0, 1.0)), ()), width=40, height=4)


def test_the_picture_is_well_formed_and_needs_nothing():
    """The SVG parses, holds both curves, escapes its title and refers to nothing outside."""
    text = as_svg(FALLING, "a <b> & c")
    root = ET.fromstring(text)  # noqa: S314 - our own text
    names = [child.tag.rpartition("}")[2] for child in root]
    assert (2, 2) == (names.count("polyline"), names.count("circle"))
    assert root[0].text == "a <b> & c"
    assert "href" not in text


def test_the_bitmap_is_a_png():
    """Every chunk's check sum holds, and the picture has the size and the colours that it should."""
    data = as_png(FALLING, 120, 60)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, place = {}, 8
    while place < len(data):
        (size,), kind = struct.unpack_from(">I", data, place), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + size]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", data, place + 8 + size)[0]
        chunks[kind] = body
        place += 12 + size
    assert (120, 60, 8, 2) == struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    raw = zlib.decompress(chunks[b"IDAT"])
    assert 60 * (1 + 3 * 120) == len(raw)
    assert bytes.fromhex("2f6f9f") in raw
    assert bytes.fromhex("c4552d") in raw


def test_spans_tell_first_and_last():
    """What stands below a curve in words: where each began and ended."""
    assert [("training loss", 2.0, 0.05), ("validation loss", 0.4, 0.2)] == list(spans(FALLING))
