# SPDX-License-Identifier: Apache-2.0
"""`cloister dataset`: sealed datasets of your team."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.bars import transfer
from cloister.cli.options import home_option, json_option, limit_option, open_client
from cloister.cli.output import moment, print_fields, print_message, print_messages, print_table, size, state_name
from cloister.cli.reading import Reading, reading_options

if TYPE_CHECKING:
    from cloister.api.v1.datasets_pb2 import Dataset
    from cloister.client import Client
    from cloister.formats.stream import StreamSummary


@click.group()
def dataset() -> None:
    """Seal, push and look after datasets."""


@dataset.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="Shown to the control plane; the file's own name is not.")
@click.option("--purpose", "purposes", multiple=True, help="What it may be used for; may be repeated.")
@click.option("--appends", metavar="DATASET", help="These are new rows of it: push them as its next revision.")
@reading_options
@click.option("--pool", help="Pool of hosts that may open it.  [default: default]")
@click.option("--expires-days", default=365, show_default=True, help="Afterwards no host opens it.")
@json_option
@home_option
def push(  # noqa: PLR0913, PLR0917 - click passes each option by its name
    files: tuple[Path, ...],
    name: str | None,
    purposes: tuple[str, ...],
    appends: str | None,
    reading: Reading,
    pool: str | None,
    expires_days: int,
    as_json: bool,
    home: Path | None,
) -> None:
    """Check, seal and send the rows of FILES, in order, as one dataset.

    A file is JSONL whose rows are those of a training method, of which a wrong one is refused by its number, or in a
    format that is converted (docs/how-to/bring-your-data.md): Alpaca, ShareGPT, OpenAI's preferences, tables of
    labelled texts, and test sets for bias.  Run it again after an interruption: it continues where it stood.

    With --appends the rows become an object of their own, which names the dataset as the one before it and has its
    name, pool and, unless others are given, purposes (docs/how-to/keep-learning.md).
    """
    if appends and (name or pool):
        raise click.UsageError("--appends takes name and pool from the dataset; leave --name and --pool out")
    if not appends and not (name and purposes):
        raise click.UsageError("--name and --purpose say what the dataset is, or --appends which one it goes on")
    rows = reading.stream(files)
    _tell(rows.check())
    with open_client(home) as client, transfer("push") as progress:
        datasets = client.datasets
        if appends:
            pushed = datasets.append(rows, appends, purposes, expires_days=expires_days, progress=progress)
        else:
            pushed = datasets.push(
                rows, name or "", purposes, pool=pool or "default", expires_days=expires_days, progress=progress
            )
    if as_json:
        print_message(pushed)
    else:
        click.echo(pushed.id)


def _tell(summary: StreamSummary) -> None:
    """Which rows of the dataset came from which file, where that is not plain."""
    first = 1
    for part in summary.parts:
        if len(summary.parts) > 1 or part.format != "rows":
            axes = ", ".join(f"{axis} {count}" for axis, count in sorted(part.axes.items()))
            lacking = f"; {part.without_target} without a target" if part.without_target else ""
            where = f"rows {first} to {first + part.rows - 1}"
            click.echo(f"{part.name}: {part.format}, {where}{f': {axes}' if axes else ''}{lacking}", err=True)
        first += part.rows


@dataset.command("list")
@limit_option
@json_option
@home_option
def list_(limit: int | None, as_json: bool, home: Path | None) -> None:
    """List datasets, newest first."""
    with open_client(home) as client:
        found = list(client.datasets.list(limit))
    if as_json:
        print_messages(found)
        return
    header = ("ID", "NAME", "STATE", "SIZE", "EXPIRES")
    rows = [(d.id, _name(d), _state(d), size(d.size), moment(d.expires_at)) for d in found]
    print_table(header, rows)


@dataset.command()
@click.argument("name_or_id")
@json_option
@home_option
def show(name_or_id: str, as_json: bool, home: Path | None) -> None:
    """Show one dataset, by name (the newest that is ready), NAME@REVISION or id."""
    with open_client(home) as client:
        found = client.datasets.get(name_or_id)
        builds_on = _builds_on(client, found)
    if as_json:
        print_message(found)
        return
    print_fields(
        (
            ("id", found.id),
            ("name", _name(found)),
            ("state", _state(found)),
            ("owner", f"{found.owner} ({found.team})"),
            ("purposes", ", ".join(found.purposes)),
            ("created", moment(found.created_at)),
            ("expires", moment(found.expires_at)),
            ("sealed size", size(found.size)),
            ("sha256", found.ciphertext_sha256),
            ("sealed to", ", ".join(found.recipient_key_ids)),
            *builds_on,
        )
    )


@dataset.command()
@click.argument("name_or_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@home_option
def delete(name_or_id: str, yes: bool, as_json: bool, home: Path | None) -> None:
    """Destroy a dataset's keys and its blob, for ever."""
    with open_client(home) as client:
        found = client.datasets.get(name_or_id)
        if not yes:
            click.confirm(f"Nobody will ever open {_name(found)} ({found.id}) again. Go on?", abort=True, err=True)
        deleted = client.datasets.delete(found.id)
    if as_json:
        print_message(deleted)
    else:
        click.echo(f"{deleted.id} {_state(deleted)}")


def _builds_on(client: Client, found: Dataset) -> list[tuple[str, str]]:
    """The revisions before this one, newest first; nothing where it is not this team's to use."""
    from cloister.api.v1.datasets_pb2 import DATASET_STATE_READY
    from cloister.evidence.revisions import revision_of

    if found.state != DATASET_STATE_READY or found.team != client.site.me().team:
        return []
    earlier = client.datasets.revisions(found.id)[1:]
    return [
        (f"builds on @{revision_of(d.manifest).number}", f"{d.manifest.id} ({d.trailer.rows} rows)") for d in earlier
    ]


def _name(found: Dataset) -> str:
    from cloister.evidence.manifest import Manifest
    from cloister.revisions import shown_name

    return shown_name(Manifest.parse(found.sealed.manifest))


def _state(found: Dataset) -> str:
    from cloister.api.v1.datasets_pb2 import DatasetState

    return state_name(DatasetState.DESCRIPTOR, found.state)
