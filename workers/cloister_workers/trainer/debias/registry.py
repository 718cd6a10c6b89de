# SPDX-License-Identifier: Apache-2.0
"""Finds measures, utilities and mitigations by name: whatever a module of their folder lists is known.

A module of `measures/` has `MEASURES`, one of `utilities/` `UTILITIES`, one of `mitigations/` `MITIGATION`. So a
new one is one new file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from types import ModuleType

from cloister_workers.trainer.debias import measures as measures_package
from cloister_workers.trainer.debias import mitigations as mitigations_package
from cloister_workers.trainer.debias import utilities as utilities_package
from cloister_workers.trainer.debias.measure import Measure, Utility
from cloister_workers.trainer.debias.mitigation import Mitigation


@cache
def measures() -> Mapping[str, Measure]:
    """Every measure of bias by its name."""
    return {entry.name: entry for module in _modules(measures_package) for entry in getattr(module, "MEASURES", ())}


@cache
def utilities() -> Mapping[str, Utility]:
    """Every measure of utility by its name."""
    return {entry.name: entry for module in _modules(utilities_package) for entry in getattr(module, "UTILITIES", ())}


@cache
def mitigations() -> Mapping[str, Mitigation]:
    """Every mitigation by its name."""
    found = (getattr(module, "MITIGATION", None) for module in _modules(mitigations_package))
    return {entry.name: entry for entry in found if entry is not None}


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for entry in sorted(pkgutil.iter_modules(package.__path__), key=lambda entry: entry.name):
        yield importlib.import_module(f"{package.__name__}.{entry.name}")
