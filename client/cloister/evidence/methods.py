# SPDX-License-Identifier: Apache-2.0
"""What a signed specification's method means for what its job may bring."""

from __future__ import annotations

import json

EVALUATION, INFERENCE = "evaluation", "inference"
REPORT_METHODS = (EVALUATION, INFERENCE)
"""Their jobs make no version: they end with a sealed report and a result of kind "report"."""


def report_method(spec: bytes) -> str:
    """Which of `REPORT_METHODS` a specification asks for; empty for every other method.

    Whatever is not exactly one method counts as a method that makes a version, whose release is bound to rules.
    """
    try:
        values = json.loads(spec)
    except (ValueError, RecursionError):
        return ""
    method = values.get("method") if isinstance(values, dict) else None
    names = list(method) if isinstance(method, dict) else []
    return names[0] if len(names) == 1 and names[0] in REPORT_METHODS else ""
