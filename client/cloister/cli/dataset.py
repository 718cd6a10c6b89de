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
    from cloister.formats.stream import StreamSummary


@click.group()
def dataset() -> None:
    """Seal, push and look after datasets."""


@dataset.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="Shown to the control plane; the file's own name is not.")
@click.option("--purpose", "purposes", multiple=True, required=True, help="What it may be used for; may be repeated.")
@reading_options
@click.option("--pool", default="default", show_default=True, help="Pool of hosts that may open it.")
@click.option("--expires-days", default=365, show_default=True, help="Afterwards no host opens it.")
@json_option
@home_option
def push(
    files: tuple[Path, ...],
    name: str,
    purposes: tuple[str, ...],
    reading: Reading,
    pool: str,
    expires_days: int,
    as_json: bool,
    home: Path | None,
) -> None:
    """Check, seal and send the rows of FILES, in order, as one dataset.

    A file is JSONL whose rows are those of a training method, of which a wrong one is refused by its number, or in a
    format that is converted (docs/how-to/bring-your-data.md): Alpaca, ShareGPT, OpenAI's preferences, tables of
    labelled texts, and test sets for bias.  Run it again after an interruption: it continues where it stood.
    """
    rows = reading.stream(files)
    _tell(rows.check())
    with open_client(home) as client, transfer("push") as progress:
        pushed = client.datasets.push(rows, name, purposes, pool=pool, expires_days=expires_days, progress=progress)
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
    """Show one dataset, by name (the newest that is ready) or id."""
    with open_client(home) as client:
        found = client.datasets.get(name_or_id)
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


def _name(found: Dataset) -> str:
    from cloister.evidence.manifest import Manifest

    return Manifest.parse(found.sealed.manifest).name


def _state(found: Dataset) -> str:
    from cloister.api.v1.datasets_pb2 import DatasetState

    return state_name(DatasetState.DESCRIPTOR, found.state)
