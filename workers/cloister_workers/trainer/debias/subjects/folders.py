# SPDX-License-Identifier: Apache-2.0
"""The files of a version as a folder that plain libraries load. Names are at most one folder deep."""

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
