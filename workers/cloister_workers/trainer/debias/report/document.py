# SPDX-License-Identifier: Apache-2.0
"""The report as data: what was asked, what was found, what was refused, and what it does and does not show.

`report.json` is this document. It names axes and groups, so it is sealed like the page; the auditors' numeric twin
holds the same figures by index. Figures are rounded nowhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cloister.gate import Gate
from cloister_workers.trainer.debias.registry import measures, utilities
from cloister_workers.trainer.debias.report import wording
from cloister_workers.trainer.debias.results import Estimate, Finding, Kept, Measured, Outcome, Run
from cloister_workers.trainer.debias.spec import DebiasSpec

FORMAT = 1
Document = dict[str, Any]


def describe_job(spec: DebiasSpec, gate: Gate) -> Mapping[str, str]:
    """What was asked, in strings for the page."""
    settings = [f"{name} {value:g}" for name, value in sorted(spec.settings.items())]
    options = [f"{name} {value}" for name, value in sorted(spec.options.items())]
    wanted = spec.hyperparameters
    training = (
        f"{wanted.n_epochs} epochs, batch {wanted.batch_size}, learning rate {wanted.learning_rate:g}, "
        f"adapter rank {spec.lora.rank}"
    )
    return {
        "version": spec.name,
        "started_from": spec.model,
        "task": spec.task.value,
        "axes": ", ".join(spec.axes),
        "guarded_axes": ", ".join(spec.guard_axes) or "none",
        "language": spec.language,
        "mitigation": spec.mitigation.title,
        "mitigation_settings": ", ".join([*settings, *options]) or "none",
        "mitigation_source": spec.mitigation.source,
        "training": training if spec.mitigation.trained else "none: a closed form",
        "seed": str(spec.seed),
        "confidence": f"{100 * (1 - gate.alpha):g} %",
        "bootstrap": f"{gate.draws} draws of whole clusters",
    }


def document_of(outcome: Outcome) -> Document:
    """The report of a job as JSON values."""
    first = outcome.runs[0]
    return {
        "format": FORMAT,
        "verdict": first.judgement.verdict.value,
        "headline": wording.headline(first),
        "job": dict(outcome.job),
        "measures": [_measured(entry) for entry in first.measured],
        "utilities": [_kept(entry) for entry in first.kept],
        "findings": [_finding(entry, outcome) for entry in first.judgement.findings],
        "not_measured": [{"name": entry.name, "axis": entry.axis, "why": entry.why} for entry in outcome.not_measured],
        "robustness": [_robustness(run) for run in outcome.runs],
        "mitigation_notes": dict(outcome.notes),
        "counts": dict(outcome.counts),
        "shows": wording.shows(outcome),
        "permutation_test": wording.PERMUTATION,
        "does_not_show": wording.does_not_show(outcome),
    }


def _estimate(estimate: Estimate | None) -> Document | None:
    """Null where there is no figure, for example of a utility that has no level of one model."""
    if estimate is None or not math.isfinite(estimate.value):
        return None
    return {"value": _number(estimate.value), "low": _number(estimate.low), "high": _number(estimate.high)}


def _number(value: float) -> float | None:
    """JSON has no infinities and no NaN: an end that could not be had is null."""
    return value if math.isfinite(value) else None


def _measured(entry: Measured) -> Document:
    known = measures()[entry.measure]
    return {
        "name": entry.measure,
        "title": known.title,
        "axis": entry.axis,
        "source": known.source,
        "scale": known.scale.value,
        "ideal": entry.ideal,
        "direction": wording.direction(known.signed, entry.ideal),
        "extrinsic": known.extrinsic,
        "primary": entry.primary,
        "bar": entry.bar,
        "before": _estimate(entry.before),
        "after": _estimate(entry.after),
        "bias_before": _estimate(entry.bias_before),
        "bias_after": _estimate(entry.bias_after),
        "change": _estimate(entry.change),
        "p": _number(entry.p),
        "p_holm": _number(entry.p_holm) if entry.primary else None,
        "items": entry.items,
        "clusters": entry.clusters,
        "overlap": entry.overlap,
        "groups": [
            {
                "group": group.group,
                "items": group.items,
                "scale": group.scale,
                "ideal": group.ideal,
                "direction": wording.direction(group.signed, group.ideal),
                "before": _estimate(group.before),
                "after": _estimate(group.after),
            }
            for group in entry.groups
        ],
        "permutation": [
            {
                "number": number,
                "test": permuted.test,
                "items": permuted.items,
                "p_before": _number(permuted.before),
                "p_after": _number(permuted.after),
            }
            for number, permuted in enumerate(entry.permuted, start=len(entry.groups) + 1)
        ],
        "parts": [
            {
                "part": part.part,
                "before": _estimate(part.before),
                "after": _estimate(part.after),
                "change": _estimate(part.change),
                "clusters": part.clusters,
            }
            for part in entry.parts
        ],
    }


def _kept(entry: Kept) -> Document:
    known = utilities()[entry.utility]
    return {
        "name": entry.utility,
        "title": known.title,
        "source": known.source,
        "scale": known.scale.value,
        "direction": "higher is better" if known.higher_is_better else "lower is better",
        "margin": entry.margin,
        "before": _estimate(entry.before),
        "after": _estimate(entry.after),
        "loss": _estimate(entry.loss),
        "items": entry.items,
        "clusters": entry.clusters,
    }


def _finding(entry: Finding, outcome: Outcome) -> Document:
    return {
        "rule": entry.rule.value,
        "verdict": entry.verdict.value,
        "measure": entry.measure,
        "axis": entry.axis,
        "part": entry.part,
        "estimate": _estimate(entry.estimate),
        "bar": entry.bar,
        "cause": entry.cause,
        "words": wording.finding(entry, outcome.not_measured),
    }


def _robustness(run: Run) -> Document:
    open_rules: Sequence[str] = [
        finding.rule.value for finding in run.judgement.findings if finding.verdict.value != "PASS"
    ]
    return {
        "seed": run.seed,
        "verdict": run.judgement.verdict.value,
        "not_passed": dict(Counter(open_rules)),
        "primary": [
            {
                "measure": entry.measure,
                "axis": entry.axis,
                "after": _estimate(entry.after),
                "direction": wording.direction(entry.signed, entry.ideal),
            }
            for entry in run.measured
            if entry.primary
        ],
    }
