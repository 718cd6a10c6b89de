# SPDX-License-Identifier: Apache-2.0
"""Find the directories that this interpreter and our packages need, so that the same code runs inside."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGES = ("cloister", "cloister_workers")


def python_paths(packages: tuple[str, ...] = PACKAGES) -> tuple[Path, ...]:
    """Return the interpreter's prefixes and the directories of `packages`, shortest first, none within another.

    Of an editable install only the package's own directory is taken, not the checkout that it lies in: a site's state
    may lie there too. A package that is not installed is left out.
    """
    found: set[Path] = set()
    for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix):
        found |= {Path(prefix), Path(prefix).resolve()}
    found |= _executable_prefixes(Path(sys.executable))
    for package in packages:
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            found |= {Path(location).absolute(), Path(location).resolve()}
    return without_nested(found)


def without_nested(paths: set[Path]) -> tuple[Path, ...]:
    """Return the paths that lie in no other of them, shortest first."""
    kept: list[Path] = []
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return tuple(kept)


def _executable_prefixes(executable: Path) -> set[Path]:
    """Return the prefix (`<prefix>/bin/python`) of each hop of the chain of links that an interpreter often is.

    /bin/python3 on a merged-/usr system has the prefix /usr, so the directory is resolved before its parent is taken.
    """
    prefixes = {executable.parent.resolve().parent}
    while executable.is_symlink():
        executable = executable.parent / executable.readlink()
        prefixes.add(executable.parent.resolve().parent)
    return prefixes
