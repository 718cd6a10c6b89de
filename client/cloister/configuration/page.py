# SPDX-License-Identifier: Apache-2.0
"""The table of a configuration class for its reference page."""

from __future__ import annotations

from cloister.configuration.settings import Declared, declared

_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"))


def table(kind: type) -> str:
    """One row for each key."""
    rows = [
        f"| `{_name(one.setting.key)}` | {one.setting.kind.words} | {_default(one)} | {one.setting.meaning} |\n"
        for one in declared(kind)
    ]
    return "| key | value | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _name(key: str) -> str:
    section, dot, name = key.rpartition(".")
    return f"[{section}] {name}" if dot else name


def _default(one: Declared) -> str:
    if one.required:
        return "–"
    if one.default is None:
        return "none"
    if isinstance(one.default, int):
        for size, unit in _UNITS:
            if one.default >= size and one.default % size == 0:
                return f"{one.default} ({one.default // size} {unit})"
        return str(one.default)
    return f"{one.default:g}" if isinstance(one.default, float) else str(one.default)
