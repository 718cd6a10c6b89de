# SPDX-License-Identifier: Apache-2.0
"""The figures of a finished job: time, tokens, and metrics before and after, with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cloister.evidence.figures import verdict_of

if TYPE_CHECKING:
    from cloister.api.v1.jobs_pb2 import Job
    from cloister.client import Client

_LOW, _HIGH, _ROWS = "_ci_low", "_ci_high", "eval_rows"


def figures(client: Client, final: Job) -> list[tuple[str, str]]:
    """Names and values to print; metrics are those that the host signed, not what the control plane shows."""
    seconds = final.finished_at.seconds - final.started_at.seconds if final.started_at.seconds else 0
    fields = [("ran for", f"{seconds} s" if seconds > 0 else ""), ("tokens", str(final.trained_tokens or ""))]
    if not final.fine_tuned_model:
        return fields
    if final.team != client.site.me().team:
        return [*fields, ("result", final.fine_tuned_model)]
    lineage = client.models.lineage(final.fine_tuned_model)
    fields.append(("result", f"{lineage.spec.suffix} ({final.fine_tuned_model})"))
    before = {name: float(value) for name, value in lineage.result.metrics_before.items()}
    after = {name: float(value) for name, value in lineage.result.metrics.items()}
    verdict = verdict_of(lineage.result.metrics)
    if verdict is not None:
        fields.append(("gate", f"{verdict}; read: cloister job report {final.id}"))
    names = [name for name in sorted(set(before) & set(after)) if not name.endswith((_LOW, _HIGH, _ROWS))]
    fields += [(name, f"{_figure(name, before)} before, {_figure(name, after)} after") for name in names]
    return [*fields, ("measured on", f"{after[_ROWS]:.0f} held-out rows" if _ROWS in after else "")]


def _figure(name: str, metrics: Mapping[str, float]) -> str:
    """A figure with its 95 % interval where the trainer gives one."""
    if name not in metrics:
        return "-"
    low, high = metrics.get(name + _LOW), metrics.get(name + _HIGH)
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"{metrics[name]:.4g}{interval}"
