# SPDX-License-Identifier: Apache-2.0
"""The files of a version as a folder that plain libraries load, and back. Names are at most one folder deep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cloister_workers.trainer.bundle import checked_name


def write_folder(files: Mapping[str, bytes], directory: str | Path) -> Path:
    """Write `files` into `directory`, which is made where it is missing.

    Raises ValueError for a name that is not plain or is deeper than one folder, before anything is written.
    """
    root = Path(directory)
    names = [checked_name(name) for name in files]
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
    return root


def read_folder(directory: str | Path) -> dict[str, bytes]:
    """The files of `directory` and of its direct folders by name, in ascending order of names; deeper ones and
    names that a bundle refuses are a ValueError.
    """
    root = Path(directory)
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {checked_name(path.relative_to(root).as_posix()): path.read_bytes() for path in paths}
