# SPDX-License-Identifier: Apache-2.0
"""`cloister-admin root`: the beginning of a site, and its root over the years."""

from __future__ import annotations

from pathlib import Path

import click

from cloister.admin.options import directory_option
from cloister.cli.options import now
from cloister.cli.output import print_fields

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_new = click.Path(dir_okay=False, path_type=Path)


@click.group()
def root() -> None:
    """The site's root key and certificate authority."""


@root.command()
@directory_option
@click.option("--site", required=True, help="Name of the site: a-z, 0-9, '.', '_', '-'.")
@click.option("--endpoint", default="", help="HOST:PORT of the control plane, for welcome files.")
@click.option(
    "--log-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Make the log's key too, in this new file, as `log keygen --origin SITE/log` does.",
)
def init(directory: Path, site: str, endpoint: str, log_key: Path | None) -> None:
    """Make root, certificate authority and an empty roster.

    An existing root is never overwritten.
    """
    from cloister.admin.log_key import name_log_key
    from cloister.admin.root import create_root

    custody = create_root(directory, site, endpoint=endpoint)
    if log_key is not None:
        name_log_key(custody, f"{site}/log", log_key)
    print_fields((("site", site), ("directory", str(directory)), ("root", custody.root_public())))


@root.command()
@directory_option
def show(directory: Path) -> None:
    """Show the root's public key and what the next roster will hold."""
    from cloister.admin.custody import Custody

    custody = Custody(directory)
    draft = custody.draft()
    print_fields(
        (
            ("site", draft.site),
            ("root", custody.root_public()),
            ("endpoint", custody.endpoint()),
            ("next roster", f"version {draft.version}"),
            ("log", draft.log_vkey),
            ("teams", ", ".join(team.id for team in draft.teams)),
            ("people", ", ".join(person.id for person in draft.people)),
            ("hosts", ", ".join(host.id for host in draft.hosts)),
        )
    )


@root.command()
@click.argument("authorities", type=_file)
@directory_option
def trust(authorities: Path, directory: Path) -> None:
    """Have TLS certificates of your organisation's own AUTHORITIES (PEM) count, beside those of the site's own.

    Welcomes that are made from now on name both.
    """
    from cloister.admin.custody import Custody
    from cloister.admin.external import trust as trust_them

    count = trust_them(Custody(directory), authorities.read_bytes(), now())
    click.echo(f"{count} authorities trusted for TLS; the roster still says who everybody is")


@root.command()
@directory_option
@click.option("-o", "--output", type=_new, required=True, help="New file.")
@click.option("--passphrase-file", type=_file, help="Read the passphrase from here.  [default: ask]")
def backup(directory: Path, output: Path, passphrase_file: Path | None) -> None:
    """Write an encrypted backup of the whole directory; make one after each change of the root."""
    from cloister.admin.backup import write_backup
    from cloister.admin.custody import Custody
    from cloister.files import create_private

    create_private(output, write_backup(Custody(directory), _passphrase(passphrase_file, confirm=True)))
    click.echo(str(output))


@root.command()
@click.argument("source", metavar="BACKUP", type=_file)
@directory_option
@click.option("--passphrase-file", type=_file, help="Read the passphrase from here.  [default: ask]")
def restore(source: Path, directory: Path, passphrase_file: Path | None) -> None:
    """Make the directory out of a BACKUP, then go on from the roster in force with roster adopt."""
    from cloister.admin.backup import restore_backup

    custody = restore_backup(source.read_bytes(), _passphrase(passphrase_file, confirm=False), directory)
    print_fields((("site", custody.draft().site), ("root", custody.root_public())))
    click.echo("next: cloister-admin roster adopt, with the roster in force: the backup may be older", err=True)


@root.command()
@directory_option
def rotate(directory: Path) -> None:
    """Make a new root that the old one names; the next roster is signed by the new one.

    Clients and key agents that pin the old root follow, and refuse the old one from then on.
    """
    from cloister.admin.custody import Custody
    from cloister.admin.rotation import rotate_root
    from cloister.cli.options import now

    rotated = rotate_root(Custody(directory), now=now())
    print_fields(
        (("old root", rotated.old), ("new root", rotated.new), ("old key", str(directory / rotated.retired_file)))
    )
    click.echo("next: root backup, roster sign, roster publish; then destroy the old key", err=True)


def _passphrase(path: Path | None, *, confirm: bool) -> str:
    if path is not None:
        return path.read_text("utf-8").rstrip("\n")
    asked: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return asked
