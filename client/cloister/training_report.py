# SPDX-License-Identifier: Apache-2.0
"""The report of a training job: a page with its curves and figures, made here from what the site shows and the host
signed.

Nothing was sealed for it: curves are figures of the job's events, metrics those of the signed result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from cloister.comparing import Compared, figure, metrics_of
from cloister.curves import Curves, as_png, as_svg
from cloister.lineage import Lineage
from cloister.pull import check_free

PAGE, PICTURE, BITMAP, DATA = "report.html", "curve.svg", "curve.png", "report.json"
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left}"
    "th{border-bottom:1px solid #999}svg{width:100%;height:auto}code{font-size:.9em}"
)


@dataclass(frozen=True)
class TrainingReport:
    """What is written."""

    compared: Compared
    curves: Curves
    provenance: Mapping[str, str]
    """Name to digest or id: what the model was made from."""


def provenance_of(lineage: Lineage) -> dict[str, str]:
    """What a model was made from, by the documents that its member and its host signed."""
    made = lineage.authorisation
    data = (
        ("training", made.training),
        ("validation", made.validation),
        ("evaluation", made.evaluation),
        ("replay", made.replay),
    )
    return {
        "base model": made.model.trailer_sha256,
        **{f"layer {number}": layer.trailer_sha256 for number, layer in enumerate(made.model_layers, start=1)},
        **{f"{role} rows": reference.trailer_sha256 for role, reference in data if reference is not None},
        "specification": made.spec_sha256,
        "release policy": made.policy_sha256,
        "asked for by": made.member,
        "run on": lineage.result.host,
        "in a sandbox": "yes" if lineage.result.sandboxed else "no",
    }


def write_report(report: TrainingReport, folder: Path) -> Path:
    """Page, pictures and data into a new folder; returns the page.  Raises UsageError where the folder exists."""
    check_free(folder)
    folder.mkdir(mode=0o700)
    (folder / DATA).write_text(json.dumps(_data(report), indent=2) + "\n", "utf-8")
    if not report.curves.empty:
        (folder / PICTURE).write_text(as_svg(report.curves, report.compared.name), "utf-8")
        (folder / BITMAP).write_bytes(as_png(report.curves))
    page = folder / PAGE
    page.write_text(_page(report), "utf-8")
    return page


def _data(report: TrainingReport) -> object:
    compared = report.compared
    return {
        "job": compared.job.id,
        "model": compared.name,
        "spec": json.loads(compared.job.spec),
        "seconds": compared.seconds,
        "trained_tokens": compared.job.trained_tokens,
        "signed": compared.signed,
        "metrics": dict(compared.after),
        "metrics_before": dict(compared.before),
        "provenance": dict(report.provenance),
        "training_loss": report.curves.training,
        "validation_loss": report.curves.validation,
    }


def _page(report: TrainingReport) -> str:
    compared = report.compared
    whose = "signed by the worker host, verified" if compared.signed else "as the control plane shows them"
    rows = "".join(_row(compared, name) for name in metrics_of([compared]))
    made = "".join(
        f"<tr><td>{escape(name)}</td><td><code>{escape(value)}</code></td></tr>"
        for name, value in report.provenance.items()
    )
    picture = "<p>No step was recorded.</p>" if report.curves.empty else as_svg(report.curves, "Loss by step")
    asked = escape(json.dumps(json.loads(compared.job.spec), indent=2, sort_keys=True))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(compared.name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(compared.name)}</h1>\n<p>Job <code>{escape(compared.job.id)}</code>, {compared.seconds} s, "
        f"{compared.job.trained_tokens} tokens.</p>\n<h2>Loss</h2>\n{picture}\n"
        f"<h2>On held-out rows</h2>\n<p>Figures {whose}; intervals are 95 %.</p>\n"
        f"<table><tr><th>metric</th><th>before</th><th>after</th></tr>{rows}</table>\n"
        f"<h2>Made from</h2>\n<table>{made}</table>\n<h2>Specification</h2>\n<pre>{asked}</pre>\n</body>\n</html>\n"
    )


def _row(compared: Compared, name: str) -> str:
    cells = []
    for metrics in (compared.before, compared.after):
        found = figure(metrics, name)
        text = "" if found is None else f"{found.value:.5g}"
        if found is not None and found.low is not None and found.high is not None:
            text += f" [{found.low:.4g}, {found.high:.4g}]"
        cells.append(f"<td>{text}</td>")
    return f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>"
