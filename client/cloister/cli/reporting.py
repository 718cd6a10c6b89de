# SPDX-License-Identifier: Apache-2.0
"""`cloister job report`: the report's folder and headline, or the figures as tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.bars import transfer
from cloister.cli.output import print_fields, print_json, print_table

if TYPE_CHECKING:
    from cloister.client import Client
    from cloister.evidence.figures import Figure
    from cloister.reports import JobReport

_LINES, _LONGEST = 20, 500
"""Of the headline: it is text that was made where the rows were read, shown on a terminal."""


def save_report(
    client: Client, job_id: str, output: Path | None, identity: Path | None, *, show_page: bool, as_json: bool
) -> None:
    """Verify and open the report into a folder; print its verdict and headline."""
    from cloister.local import read_identity
    from cloister.reports import DATA, PAGE

    found = client.jobs.report(job_id)
    folder = output or Path(f"report-{job_id[:8]}")
    key = None if identity is None else read_identity(identity)
    with transfer("report") as progress:
        client.jobs.open_report(found, folder, key, progress)
    headline = _headline(folder / DATA)
    page = folder / PAGE
    if as_json:
        print_json({"job": job_id, "verdict": found.figures.verdict, "page": str(page), "headline": headline})
    else:
        print_fields([("job", job_id), ("verdict", found.figures.verdict), ("page", str(page))])
        for line in headline:
            click.echo(f"  {line}")
    if show_page:
        click.launch(str(page.resolve()))


def _headline(path: Path) -> list[str]:
    """The few sentences on top of the report, without anything that a terminal would act on."""
    try:
        values = json.loads(path.read_bytes())
    except ValueError:
        return []
    lines = values.get("headline") if isinstance(values, dict) else None
    if not isinstance(lines, list):
        return []
    shown = [line[:_LONGEST] for line in lines[:_LINES] if isinstance(line, str)]
    return ["".join(char if char.isprintable() else "?" for char in line) for line in shown]


def print_figures(client: Client, job_id: str, output: Path | None, *, as_json: bool) -> None:
    """Verify the figures against what the host signed, print them, and keep the evidence where a folder is named."""
    from cloister.reports import keep_figures

    found = client.jobs.report(job_id)
    if output is not None:
        keep_figures(found, output)
    if as_json:
        print_json(json.loads(found.payload))
        return
    figures = found.figures
    print_fields(
        [
            ("job", job_id),
            ("verdict", figures.verdict),
            ("other runs", ", ".join(figures.verdicts[1:])),
            ("signed by", f"host {found.result.host}, verified"),
            ("figures sha256", found.result.figures_sha256),
            ("spec sha256", figures.spec_sha256),
            ("policy sha256", figures.policy_sha256),
        ]
    )
    click.echo()
    named = _names(found)
    header = ("RUN", "FIGURE", "AXIS", "GROUP", "ITEMS", "BEFORE", "AFTER", "CHANGE", "P HOLM", "BAR")
    print_table(header, [_figure_row(item, *named(item.kind, item.index, item.axis)) for item in figures.figures])
    click.echo()
    rows = [(str(f.run), f.rule, f.verdict, *named(f.kind, f.index, f.axis)) for f in figures.findings]
    print_table(("RUN", "RULE", "VERDICT", "FIGURE", "AXIS"), rows)


def _names(found: JobReport) -> Callable[[str, int, int], tuple[str, str]]:
    """What a figure is called, and its axis, in the specification that the member signed."""
    from cloister.evidence.figures import name_of

    wanted = found.spec.method.debias
    axes = [*wanted.axes, *wanted.guard_axes]
    lists = {"measure": wanted.measures, "utility": wanted.utilities}

    def named(kind: str, index: int, axis: int) -> tuple[str, str]:
        if kind not in lists:
            return "the job", ""
        return name_of(lists[kind], index), name_of(axes, axis) if kind == "measure" else ""

    return named


def _figure_row(item: Figure, name: str, axis: str) -> tuple[str, ...]:
    group = str(item.group) if item.group else "all"
    places = [_interval(item, when) for when in ("before", "after", "change")]
    return (
        str(item.run),
        name,
        axis,
        group,
        str(item.items),
        *places,
        _short(item.values.get("p_holm")),
        _short(item.values.get("bar")),
    )


def _interval(item: Figure, when: str) -> str:
    low, high = item.values.get(f"{when}_low"), item.values.get(f"{when}_high")
    interval = f" [{_short(low)}, {_short(high)}]" if low is not None and high is not None else ""
    return _short(item.values.get(when)) + interval


def _short(value: str | None) -> str:
    return "" if value is None else f"{float(value):.4g}"
