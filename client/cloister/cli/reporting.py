# SPDX-License-Identifier: Apache-2.0
"""`cloister job report`: the report's folder and headline, or the figures as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
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
    from cloister.reports import PAGE

    found = client.jobs.report(job_id)
    folder = output or Path(f"report-{job_id[:8]}")
    key = None if identity is None else read_identity(identity)
    with transfer("report") as progress:
        client.jobs.open_report(found, folder, key, progress)
    page = folder / PAGE
    if found.figures is None:
        _print_metrics(found, job_id, folder, as_json=as_json)
    else:
        _print_headline(found.figures.verdict, job_id, folder, as_json=as_json)
    if show_page and page.is_file():
        click.launch(str(page.resolve()))


def save_training_report(client: Client, job_id: str, output: Path | None, *, show_page: bool, as_json: bool) -> None:
    """Write the page of a training job, and print where it is and what was measured."""
    from cloister.comparing import figure, metrics_of
    from cloister.training_report import write_report

    found = client.jobs.training_report(job_id)
    page = write_report(found, output or Path(f"report-{job_id[:8]}"))
    after = found.compared.after
    if as_json:
        print_json({"job": job_id, "page": str(page), "metrics": dict(after)})
    else:
        shown = [(name, value) for name in metrics_of([found.compared]) if (value := figure(after, name)) is not None]
        fields = [(name, f"{value.value:.5g}") for name, value in shown]
        print_fields([("job", job_id), ("model", found.compared.name), ("page", str(page)), *fields])
    if show_page:
        click.launch(str(page.resolve()))


def print_curve(client: Client, job_id: str) -> None:
    """The loss of training, in the terminal."""
    from cloister.curves import in_terminal, spans

    curves = client.jobs.curves(job_id)
    if curves.empty:
        click.echo("no step was recorded yet")
        return
    for line in in_terminal(curves):
        click.echo(line)
    for name, first, last in spans(curves):
        click.echo(f"{name}: {first:.4g} to {last:.4g}")


def _print_headline(verdict: str, job_id: str, folder: Path, *, as_json: bool) -> None:
    from cloister.reports import DATA, PAGE

    headline, page = _headline(folder / DATA), folder / PAGE
    if as_json:
        print_json({"job": job_id, "verdict": verdict, "page": str(page), "headline": headline})
        return
    print_fields([("job", job_id), ("verdict", verdict), ("page", str(page))])
    for line in headline:
        click.echo(f"  {line}")


def _print_metrics(found: JobReport, job_id: str, folder: Path | None, *, as_json: bool) -> None:
    """What the host signed of an evaluation or inference job: of the base, and of the whole version."""
    result = found.result
    after = {name: float(value) for name, value in sorted(result.metrics.items())}
    before = {name: float(value) for name, value in sorted(result.metrics_before.items())}
    if as_json:
        place = {} if folder is None else {"folder": str(folder)}
        print_json({"job": job_id, "metrics": after, "metrics_before": before, **place})
        return
    where = [] if folder is None else [("folder", str(folder))]
    print_fields([("job", job_id), ("signed by", f"host {result.host}, verified"), *where])
    rows = [(name, _number(before.get(name)), f"{value:.6g}") for name, value in after.items()]
    if rows:
        print_table(("METRIC", "BASE", "VERSION"), rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


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
    figures = found.figures
    if figures is None:
        _print_metrics(found, job_id, None, as_json=as_json)
        return
    if as_json:
        print_json(json.loads(found.payload))
        return
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
    header = (
        *("RUN", "FIGURE", "AXIS", "GROUP", "ITEMS", "BEFORE", "AFTER", "CHANGE"),
        *("P", "P HOLM", "BAR", "OVERLAP"),
    )
    shown = [item for item in figures.figures if item.kind != "job"]
    print_table(header, [_figure_row(item, *named(item.kind, item.index, item.axis)) for item in shown])
    click.echo()
    _print_rows(figures.figures)
    rows = [(str(f.run), f.rule, f.verdict, *named(f.kind, f.index, f.axis)) for f in figures.findings]
    print_table(("RUN", "RULE", "VERDICT", "FIGURE", "AXIS"), rows)


def _print_rows(figures: Iterable[Figure]) -> None:
    """Of the rows to fit on and to choose by: how many name a word of the test part, and how many were left out."""
    for item in figures:
        if item.kind == "job":
            left_out, crossing = (_short(item.values.get(name)) for name in ("left_out", "crossing"))
            print_fields(
                [
                    ("rows to fit on or choose by", str(item.items)),
                    ("left out, naming a test word", left_out),
                    ("kept, naming a test word", crossing),
                ]
            )
            click.echo()


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
        _short(item.values.get("p")),
        _short(item.values.get("p_holm")),
        _short(item.values.get("bar")),
        _short(item.values.get("overlap")),
    )


def _interval(item: Figure, when: str) -> str:
    low, high = item.values.get(f"{when}_low"), item.values.get(f"{when}_high")
    interval = f" [{_short(low)}, {_short(high)}]" if low is not None and high is not None else ""
    return _short(item.values.get(when)) + interval


def _short(value: str | None) -> str:
    return "" if value is None else f"{float(value):.4g}"
