# SPDX-License-Identifier: Apache-2.0
"""Every training method by its name: whatever a module of `objectives/` calls `METHOD` is known."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from cloister_workers.errors import SpecError
from cloister_workers.messages import FailureCode, SpecField
from cloister_workers.trainer import objectives
from cloister_workers.trainer.method import TrainingMethod
from cloister_workers.trainer.spec import Method


@cache
def training_methods() -> Mapping[Method, TrainingMethod[Any]]:
    """All of them."""
    names = sorted(entry.name for entry in pkgutil.iter_modules(objectives.__path__))
    modules = [importlib.import_module(f"{objectives.__name__}.{name}") for name in names]
    found = [method for module in modules if (method := getattr(module, "METHOD", None)) is not None]
    return {method.name: method for method in found}


def training_method(name: Method) -> TrainingMethod[Any]:
    """The method of this name. Raises SpecError where none trains under it."""
    method = training_methods().get(name)
    if method is None:
        known = ", ".join(sorted(training_methods()))
        raise SpecError(
            FailureCode.SPEC_INVALID, SpecField.METHOD, f"method {name} trains nothing; give one of {known}"
        )
    return method
