# SPDX-License-Identifier: Apache-2.0
"""`cloister job compare`: jobs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cloister.cli.output import print_json, print_table

if TYPE_CHECKING:
    from cloister.client import Client
    from cloister.comparing import Compared, Figure


def print_comparison(client: Client, job_ids: Sequence[str], *, as_json: bool) -> None:
    """Metrics with their intervals, and what was asked for differently."""
    from cloister.comparing import differences, figure, metrics_of

    jobs = [client.jobs.compared(job_id) for job_id in job_ids]
    names, differing = metrics_of(jobs), differences(jobs)
    if as_json:
        print_json(_table(jobs, names, differing))
        return
    header = ("", *(compared.name for compared in jobs))
    rows = [("took", *(f"{compared.seconds} s" if compared.seconds else "" for compared in jobs))]
    for name in names:
        rows.append((name, *(_shown(figure(compared.after, name)) for compared in jobs)))
        befores = [_shown(figure(compared.before, name)) for compared in jobs]
        if any(befores):
            rows.append(("  before", *befores))
    print_table(header, rows)
    if differing:
        click.echo("")
        print_table(("DIFFERS", *(compared.job.id[:8] for compared in jobs)), [(path, *v) for path, v in differing])
    unsigned = [compared.job.id for compared in jobs if not compared.signed]
    if unsigned:
        click.echo(f"note: no host has signed figures of {', '.join(unsigned)}; they are the control plane's")


def _shown(found: Figure | None) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.value:.4g}"
    return f"{found.value:.4g} [{found.low:.3g}, {found.high:.3g}]"


def _table(jobs: Sequence[Compared], names: list[str], differing: list[tuple[str, list[str]]]) -> object:
    return {
        "jobs": [
            {
                "id": compared.job.id,
                "name": compared.name,
                "seconds": compared.seconds,
                "signed": compared.signed,
                "metrics": dict(compared.after),
                "metrics_before": dict(compared.before),
            }
            for compared in jobs
        ],
        "metrics": names,
        "differences": dict(differing),
    }
