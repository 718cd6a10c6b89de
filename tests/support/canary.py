# SPDX-License-Identifier: Apache-2.0
"""Searching every byte of a process and its files for a planted word, in every form in which it could leak."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

WINDOW = 16 << 20


def forms(word: str) -> dict[str, bytes]:
    """The word raw, in UTF-16, JSON-escaped, in hex, and in base64 at each of the three alignments."""
    raw = word.encode()
    found = {
        "raw": raw,
        "utf-16-le": word.encode("utf-16-le"),
        "utf-16-be": word.encode("utf-16-be"),
        "json": "".join(f"\\u{ord(letter):04x}" for letter in word).encode(),
        "hex": raw.hex().encode(),
    }
    if (escaped := json.dumps(word)[1:-1].encode()) != raw:
        found["json-escaped"] = escaped
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw)
        # The first letters mix with what stands before the word and the last with what follows: leave them out.
        found[f"base64+{shift}"] = encoded[4 if shift else 0 : -4]
    return found


def _needles(words: list[str]) -> list[bytes]:
    return [form for word in words for form in forms(word).values()]


def _has(data: bytes, needles: list[bytes]) -> bool:
    """One plain search after the other: several times as fast as one regular expression of them all."""
    return any(needle in data for needle in needles)


def in_bytes(data: bytes, words: list[str]) -> bool:
    """Whether any form of any word is there."""
    return _has(data, _needles(words))


def in_files(directory: Path, words: list[str]) -> list[str]:
    """Paths (with their names searched too) that hold a form of a word."""
    needles = _needles(words)
    hits = []
    for path in sorted(directory.rglob("*")):
        named = _has(str(path.relative_to(directory)).encode(), needles)
        if named or (path.is_file() and _file_has(path, needles)):
            hits.append(str(path))
    return hits


def _file_has(path: Path, needles: list[bytes]) -> bool:
    overlap = b""
    with path.open("rb") as file:
        while block := file.read(WINDOW):
            if _has(overlap + block, needles):
                return True
            overlap = block[-4096:]
    return False


def in_memory(pid: int, words: list[str]) -> list[str]:
    """Mappings of a live process that hold a form of a word.  Needs the right to read /proc/PID/mem."""
    needles = _needles(words)
    hits = []
    searched = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode, *_ = line.split()
            if not mode.startswith("rw") or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            for at in range(start, end, WINDOW):
                block = _read(memory.fileno(), at, min(WINDOW, end - at) + 4096)
                searched += len(block)
                if _has(block, needles):
                    hits.append(line)
                    break
    if searched < 1 << 20:
        raise RuntimeError(f"only {searched} bytes of process {pid} could be read: nothing was searched")
    return hits


def _read(descriptor: int, at: int, size: int) -> bytes:
    try:
        return os.pread(descriptor, size, at)
    except OSError:
        # A mapping that went away between reading the list and reading it, or guard pages.
        return b""
