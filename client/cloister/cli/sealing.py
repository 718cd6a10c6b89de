# SPDX-License-Identifier: Apache-2.0
"""`cloister seal`, `open`, `inspect`: sealed files without the control plane."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cloister.cli.options import home_option, json_option, now
from cloister.cli.output import print_fields, print_json, size

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_target = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=_file)
@click.option("-o", "--output", type=_target, required=True, help="New sealed file.")
@click.option("--name", required=True, help="Name in the manifest, which anybody can read.")
@click.option("--purpose", "purposes", multiple=True, required=True, help="What it may be used for.")
@click.option("--pool", default="default", show_default=True, help="Pool of hosts that may open it.")
@click.option("--to", "recipients", multiple=True, help="age1pq… key instead of the pool's and your team's.")
@click.option("--expires-days", default=365, show_default=True, type=click.IntRange(1, 3650))
@home_option
def seal(
    file: Path,
    output: Path,
    name: str,
    purposes: tuple[str, ...],
    pool: str,
    recipients: tuple[str, ...],
    expires_days: int,
    home: Path | None,
) -> None:
    """Seal the rows of FILE into a file, for transport or backup.

    Works offline, by the roster that was verified last.
    """
    from cloister.client import new_id
    from cloister.home import Home
    from cloister.local import Terms, seal_file
    from cloister.session import check_name

    terms = Terms(check_name("dataset", name), purposes, pool, expires_days)
    manifest = seal_file(Home.at(home), file, output, terms, recipients, object_id=new_id(), now=now())
    click.echo(manifest.id)


@click.command("open")
@click.argument("file", type=_file)
@click.option("-o", "--output", type=_target, required=True, help="New file for the plaintext.")
@click.option("--identity", type=_file, help="Another secret key, such as the team's recovery key.")
@home_option
def open_(file: Path, output: Path, identity: Path | None, home: Path | None) -> None:
    """Verify a sealed FILE and open it with your key.

    Nothing appears unless the signature and every byte verify.
    """
    from cloister.home import Home
    from cloister.local import open_file, read_identity

    place = Home.at(home)
    secret = read_identity(place.directory / "recipient.key" if identity is None else identity)
    manifest = open_file(place, file, output, secret, now=now())
    click.echo(f"{manifest.kind} {manifest.id} by {manifest.owner}")


@click.command()
@click.argument("file", type=_file)
@json_option
@home_option
def inspect(file: Path, as_json: bool, home: Path | None) -> None:
    """Show what a sealed FILE says of itself; needs no key."""
    from cloister.home import Home
    from cloister.local import inspect_file

    found = inspect_file(Home.at(home), file, now=now())
    if as_json:
        print_json(asdict(found))
        return
    manifest, trailer = found.manifest, found.trailer
    print_fields(
        (
            ("kind", manifest.kind),
            ("id", manifest.id),
            ("name", manifest.name),
            ("owner", f"{manifest.owner} ({manifest.team})"),
            ("pool", manifest.pool),
            ("purposes", ", ".join(manifest.purposes)),
            ("sealed size", size(trailer.ciphertext_size)),
            ("rows", "" if trailer.rows is None else str(trailer.rows)),
            ("sha256", trailer.ciphertext_sha256),
            ("sealed to", ", ".join(found.recipients)),
            ("signature", found.verdict),
        )
    )
