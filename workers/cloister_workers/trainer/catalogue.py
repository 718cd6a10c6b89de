# SPDX-License-Identifier: Apache-2.0
"""Every method by its name: whatever a module of `objectives/` calls `METHOD`, or one of `steps/` calls `STEP`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from cloister_workers.errors import SpecError
from cloister_workers.messages import FailureCode, SpecField
from cloister_workers.trainer import objectives, steps
from cloister_workers.trainer.method import TrainingMethod
from cloister_workers.trainer.spec import Method
from cloister_workers.trainer.steps import JobStep


@cache
def training_methods() -> Mapping[Method, TrainingMethod[Any]]:
    """All of them."""
    return {method.name: method for method in _found(objectives, "METHOD")}


@cache
def job_steps() -> Mapping[Method, JobStep]:
    """Every kind of job that the loop has no part in."""
    return {step.name: step for step in _found(steps, "STEP")}


def _found(package: ModuleType, attribute: str) -> list[Any]:
    names = sorted(entry.name for entry in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    return [found for module in modules if (found := getattr(module, attribute, None)) is not None]


def training_method(name: Method) -> TrainingMethod[Any]:
    """The method of this name. Raises SpecError where none trains under it."""
    method = training_methods().get(name)
    if method is None:
        known = ", ".join(sorted(training_methods()))
        raise SpecError(
            FailureCode.SPEC_INVALID, SpecField.METHOD, f"method {name} trains nothing; give one of {known}"
        )
    return method
