# SPDX-License-Identifier: Apache-2.0
"""`cloister audit`: the log, read and verified from outside."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.exits import evidence_exit
from cloister.cli.options import home_option, json_option, limit_option, now, open_client
from cloister.cli.output import print_fields, print_json, print_table

if TYPE_CHECKING:
    from cloister.evidence.entry import Entry


@click.group()
def audit() -> None:
    """Read, verify and export the audit log."""


@audit.command("list")
@click.option("--action", default="", help="For example job.submit.")
@click.option("--actor", default="", help="Person or host.")
@click.option("--object", "object_id", default="", help="Dataset, job, model version or release.")
@click.option("--since", type=click.DateTime(), help="Not before, UTC.")
@click.option("--until", type=click.DateTime(), help="Before, UTC.")
@limit_option
@json_option
@home_option
def list_(
    action: str,
    actor: str,
    object_id: str,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    as_json: bool,
    home: Path | None,
) -> None:
    """List entries, oldest first (auditors)."""
    from cloister.audit import Query

    query = Query(action, actor, object_id, _utc(since), _utc(until))
    with open_client(home) as client:
        entries = list(client.audit.list(query, limit))
    if as_json:
        print_json([json.loads(entry.to_bytes()) for entry in entries])
        return
    print_table(("SEQ", "TIME", "ACTOR", "ACTION", "OBJECT", "OUTCOME"), [_row(entry) for entry in entries])


@audit.command()
@click.argument("export", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--since",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Remembered checkpoint (signed note) instead of the one your home keeps.",
)
@json_option
@home_option
def verify(export: Path | None, since: Path | None, as_json: bool, home: Path | None) -> None:
    """Verify an EXPORT offline, or without one the live log against the head that your home keeps."""
    if export is None and since is not None:
        raise click.UsageError("--since belongs to an EXPORT; the live log is held against your home's own head")
    evidence_exit(lambda: _live(home, as_json) if export is None else _offline(home, export, since, as_json))


@audit.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@home_option
def export(output: Path, as_json: bool, home: Path | None) -> None:
    """Write the whole log into OUTPUT (a tar file) and verify it (auditors)."""
    if output.exists():
        raise click.UsageError(f"{output} exists already")

    def make() -> None:
        from cloister.audit import as_dict

        with open_client(home) as client:
            verdict = client.audit.export(output)
        if as_json:
            print_json(as_dict(verdict))
        else:
            click.echo(f"exported and verified {verdict.size} entries of {verdict.origin}: {output}")

    evidence_exit(make)


def _live(home: Path | None, as_json: bool) -> None:
    from cloister.audit import as_dict

    with open_client(home) as client:
        first = client.site.view
        verdict = client.audit.verify()
    # Opening the client has already held the head against the kept one: report from there on.
    values = {**as_dict(verdict), "extends": first.extends}
    if as_json:
        print_json(values)
        return
    proof = f"extends the head of {first.extends} entries kept before" if first.extends else "first head kept"
    print_fields(
        (("verified", f"{verdict.size} entries of {verdict.origin}"), ("root", verdict.root.hex()), ("", proof))
    )


def _offline(home: Path | None, path: Path, since: Path | None, as_json: bool) -> None:
    from cloister.audit import as_dict, verify_offline
    from cloister.evidence_export import describe
    from cloister.home import Home

    verdict = verify_offline(Home.at(home), path, now(), since)
    if as_json:
        print_json(as_dict(verdict))
    else:
        click.echo(describe(verdict))


def _row(entry: Entry) -> tuple[str, ...]:
    event = entry.event
    time = datetime.fromtimestamp(entry.ts / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    outcome = event.outcome if not event.reason else f"{event.outcome} ({event.reason})"
    return (str(entry.seq), time, event.actor.id, event.action, f"{event.object.type} {event.object.id}", outcome)


def _utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.replace(tzinfo=UTC)
