# SPDX-License-Identifier: Apache-2.0
"""On which line of a TOML file a key stands.

Python's TOML reader tells values without their places.  Our files are flat: sections, and one key a line; a key
written in another way (dotted, or in an inline table) is found under the nearest line that names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECTION = re.compile(r"\s*\[\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*\]")
_KEY = re.compile(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*=")
_PLACE = re.compile(r"at line (\d+), column \d+")


def lines_of(text: str) -> Mapping[str, int]:
    """`section`, `section.key` and, above the first section, `key` -> line, counted from 1."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if (header := _SECTION.match(line)) is not None:
            section = header[1]
            found.setdefault(section, number)
        elif (key := _KEY.match(line)) is not None:
            found.setdefault(f"{section}.{key[1]}" if section else key[1], number)
    return found


def line_of(lines: Mapping[str, int], key: str) -> int | None:
    """The key's own line, or that of its section where the key is absent."""
    return lines.get(key, lines.get(key.partition(".")[0]))


def line_of_fault(text: str) -> int | None:
    """The line that a message of the TOML reader names."""
    found = _PLACE.search(text)
    return None if found is None else int(found[1])
