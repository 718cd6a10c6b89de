# SPDX-License-Identifier: Apache-2.0
"""The report's files: `report.html`, which needs nothing but a browser, and `report.json`.

The page holds no script and fetches nothing; its content policy forbids both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import resources

import jinja2

from cloister_workers.trainer.debias.registry import measures
from cloister_workers.trainer.debias.report.document import Document, document_of
from cloister_workers.trainer.debias.report.groups import plots_by_scale, table
from cloister_workers.trainer.debias.report.plots import Row, interval_plot
from cloister_workers.trainer.debias.report.wording import interval, number
from cloister_workers.trainer.debias.results import Estimate, Measured, Outcome

_TEMPLATE = "page.html.j2"


def report_files(outcome: Outcome) -> dict[str, bytes]:
    """The two files of the report by name."""
    document = document_of(outcome)
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    page = _environment().get_template(_TEMPLATE).render(report=document, plots=_plots(outcome, document))
    return {"report.html": page.encode(), "report.json": f"{text}\n".encode()}


def _environment() -> jinja2.Environment:
    folder = resources.files(__package__)
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value: number(math.nan if value is None else value)
    environment.filters["interval"] = _interval
    environment.filters["short"] = lambda value: "–" if value is None else f"{value:.4g}"
    environment.filters["small"] = lambda value: "–" if value is None else f"{value:.2g}"
    return environment


def _interval(estimate: Mapping[str, float | None] | None) -> str:
    """An estimate of the document, whose ends are null where they could not be had."""
    if estimate is None:
        return "–"
    ends = {name: math.nan if end is None else end for name, end in estimate.items()}
    return interval(Estimate(**ends))


def _plots(outcome: Outcome, document: Document) -> list[dict[str, object]]:
    """For each measure a plot over its axes, and for each axis the figures of its parts and groups."""
    found: list[dict[str, object]] = []
    by_measure: dict[str, list[Measured]] = {}
    for entry in outcome.runs[0].measured:
        by_measure.setdefault(entry.measure, []).append(entry)
    for name, entries in by_measure.items():
        rows = [Row(entry.axis, entry.before, entry.after) for entry in entries]
        svg = interval_plot(measures()[name].title, rows, entries[0].ideal, entries[0].bar)
        told = {entry["axis"]: entry for entry in document["measures"] if entry["name"] == name}
        groups = [
            {"axis": entry.axis, "rows": table(told[entry.axis]), "plots": plots_by_scale(entry)}
            for entry in entries
            if entry.groups or entry.parts
        ]
        found.append({"name": name, "svg": svg, "groups": groups})
    return found
