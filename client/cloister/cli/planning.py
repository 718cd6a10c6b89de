# SPDX-License-Identifier: Apache-2.0
"""How a dry run is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.output import duration, print_fields, print_json, print_table, size
from cloister.evidence.manifest import VerifiedObject
from cloister.evidence.methods import report_method
from cloister.spec import spec_bytes

if TYPE_CHECKING:
    from cloister.api.v1.spec_pb2 import Debias
    from cloister.dry_run import DryRun, Limit
    from cloister.estimates import Estimate
    from cloister.gate import Gate

_HEADER = ("NAME", "ROLE", "LIMIT", "POLICY", "PASS WITH", "NEVER BELOW", "COUNTED")


def print_plan(run: DryRun, files: Sequence[Path] = (), *, as_json: bool) -> None:
    """To standard output; files of rows, where they are at hand, are checked first.  Raises RowsError."""
    if files:
        from cloister.row_checks import check_rows_for

        checked = check_rows_for(run, files)
        click.echo(f"{checked.rows} rows are good for this method", err=True)
    if as_json:
        print_json(_table(run))
        return
    spec = run.spec
    made_from = f"{run.start.name} ({'adapted version' if run.start.layers else 'base model'})"
    fields = [("model", made_from), ("base", run.start.base.manifest.name), ("layers", _layers(run))]
    if run.auxiliary is not None:
        fields.append(("second model", run.auxiliary.name))
    if not report_method(spec_bytes(spec)):
        fields.append(("new version", spec.suffix))
    fields += [(f"{role} rows", _rows(found)) for role, found in run.data.items()]
    fields += [("policy", f"{run.policy.id} version {run.policy.version}"), ("stages", ", ".join(run.stages))]
    if run.estimate is not None:
        fields += _estimated(run.estimate)
    if run.gate is not None:
        fields += _debias(spec.method.debias, run.gate)
    print_fields(fields)
    if run.limits:
        click.echo("")
        print_table(_HEADER, [_row(limit) for limit in run.limits])
        click.echo("")
        click.echo(
            "PASS WITH: independent items, of each axis, with which a model as good as can be is likely to pass."
        )
        for name, why in sorted({(limit.name, limit.need.why) for limit in run.limits if limit.need}):
            click.echo(f"  {name}: {why}")
    for remark in run.remarks:
        click.echo(f"note: {remark}")
    click.echo("Nothing was signed and nothing was sent.", err=True)


def _layers(run: DryRun) -> str:
    return ", ".join(kind for kind, _ in run.start.stack)


def _estimated(found: Estimate) -> list[tuple[str, str]]:
    costs = [
        (f"about, on a {cost.device}", f"{size(cost.memory)} of memory, {duration(cost.seconds)}")
        for cost in found.costs
    ]
    return [
        ("training rows", f"at most {found.training_rows} after the splits, about {found.tokens} tokens in all passes"),
        ("steps", f"{'about' if found.by_length else 'at most'} {found.steps}"),
        ("weights", f"about {found.parameters}, of which {found.trained} learn"),
        *costs,
        ("estimates", "from signed sizes alone: docs/reference/estimates.md"),
    ]


def _debias(wanted: Debias, gate: Gate) -> list[tuple[str, str]]:
    mitigation = wanted.mitigation
    settings = [f"{name}={value:g}" for name, value in sorted(mitigation.settings.items())]
    settings += [f"{name}={value}" for name, value in sorted(mitigation.options.items())]
    return [
        ("task", wanted.task),
        ("axes", ", ".join(wanted.axes)),
        ("guarded axes", ", ".join(wanted.guard_axes) or "none"),
        ("language", wanted.language),
        ("mitigation", f"{mitigation.name} ({', '.join(settings) or 'no settings'})"),
        ("runs", str(wanted.seeds)),
        ("intervals", f"{100 * (1 - gate.alpha):g} %, {gate.draws} draws"),
        ("harm elsewhere", f"at most {gate.harm:g} of a bar"),
        ("measure on the task", "asked for" if gate.extrinsic else "not asked for"),
    ]


def _rows(found: VerifiedObject) -> str:
    return f"{found.trailer.rows} ({found.manifest.name})"


def _row(limit: Limit) -> tuple[str, ...]:
    need = limit.need
    return (
        limit.name,
        limit.role,
        _number(limit.limit) or "reported only",
        _number(limit.policy),
        "" if need is None else str(need.items),
        "" if need is None else str(need.least),
        "" if need is None else need.unit,
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _table(run: DryRun) -> Mapping[str, object]:
    """Figures as JSON, for programs."""
    return {
        "spec": json.loads(spec_bytes(run.spec)),
        "base": run.start.base.manifest.id,
        "layers": [layer.manifest.id for layer in run.start.layers],
        "rows": {role: found.trailer.rows for role, found in run.data.items()},
        "estimate": None if run.estimate is None else asdict(run.estimate),
        "policy": {"id": run.policy.id, "version": run.policy.version},
        "gate": None if run.gate is None else run.gate.to_json(),
        "limits": [
            {
                "name": limit.name,
                "role": limit.role,
                "limit": limit.limit,
                "policy": limit.policy,
                "items": limit.need.items if limit.need else None,
                "least": limit.need.least if limit.need else None,
                "unit": limit.need.unit if limit.need else None,
                "why": limit.need.why if limit.need else None,
            }
            for limit in run.limits
        ],
        "stages": list(run.stages),
        "remarks": list(run.remarks),
    }
