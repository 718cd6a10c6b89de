# SPDX-License-Identifier: Apache-2.0
"""Rows of a dataset, as they are sealed: afterwards nobody but the worker can look.

One JSON object per line, UTF-8.  Blank lines are allowed and count as lines, so a row's number is its line's.
`formats.stream` checks whole files; errors name places and reasons, never what a row says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Never

MAX_LINE_BYTES = 4 * 1024 * 1024
SHOWN = 10
"""Bad places that an error names."""
BOM = b"\xef\xbb\xbf"


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their ends, from 1; of one that is too long only its beginning.  Raises OSError."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            last = line
            while len(last) > MAX_LINE_BYTES and not last.endswith(b"\n"):
                last = file.readline(MAX_LINE_BYTES + 1)
            yield number, line


def row_of(line: bytes) -> dict[str, object] | str:
    """The row of a line, or why it is none, in fixed words."""
    if len(line) > MAX_LINE_BYTES:
        return "too large"
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        return "not UTF-8"
    except (ValueError, RecursionError):
        return "not JSON"
    return value if isinstance(value, dict) else "not an object"


def _refuse(_name: str) -> Never:
    raise ValueError("NaN and Infinity are not JSON")
