# SPDX-License-Identifier: Apache-2.0
"""`cloister-admin log|policy|roster`: keys and signatures."""

from __future__ import annotations

from pathlib import Path

import click

from cloister.admin.options import NEXT, directory_option
from cloister.cli.options import home_option, now, open_client
from cloister.cli.output import print_fields, print_json

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_new = click.Path(dir_okay=False, path_type=Path)


@click.group()
def log() -> None:
    """The audit log's key."""


@log.command("keygen")
@directory_option
@click.option("--origin", required=True, help="Name of the log, for example example.org/cloister.")
@click.option("-o", "--output", type=_new, required=True, help="New key file, for the control plane.")
def log_keygen(directory: Path, origin: str, output: Path) -> None:
    """Make the key that signs checkpoints, and name its public half in the draft."""
    from cloister.admin.custody import Custody
    from cloister.admin.log_key import name_log_key

    click.echo(name_log_key(Custody(directory), origin, output).vkey)
    click.echo(NEXT, err=True)


@log.command("restored")
@click.argument("head", metavar="CHECKPOINT", type=_file)
@directory_option
def log_restored(head: Path, directory: Path) -> None:
    """Accept that the log was restored from a backup and goes on after CHECKPOINT.

    Everybody who saw more of the log gives that part up, once. Sign it only when the site's people agree that the
    restore happened: it is what a control plane that hides entries would ask for.
    """
    from cloister.admin.custody import Custody
    from cloister.admin.draft import add_restoration

    custody = Custody(directory)
    draft = add_restoration(custody.draft(), head.read_bytes())
    custody.save_draft(draft)
    click.echo(f"log restored at {draft.restored_heads()[-1].size} entries")
    click.echo(NEXT, err=True)


@click.group()
def policy() -> None:
    """Release policies and the key that signs them."""


@policy.command("keygen")
@directory_option
@click.option("-o", "--output", type=_new, required=True, help="New key file, for compliance.")
def policy_keygen(directory: Path, output: Path) -> None:
    """Make a policy key and name its public half in the draft."""
    from cloister.admin.custody import Custody
    from cloister.admin.draft import add_policy_key
    from cloister.admin.policy import policy_keygen as make

    custody = Custody(directory)
    draft = custody.draft()
    key = make(output)
    custody.save_draft(add_policy_key(draft, key.public, now=now()))
    click.echo(key.key_id)
    click.echo(NEXT, err=True)


@policy.command("sign")
@click.argument("source", metavar="POLICY.yaml", type=_file)
@click.option("--key", type=_file, required=True, help="The policy key.")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="Days in force.")
@click.option("-o", "--output", type=_new, required=True, help="New file for the signed policy.")
def policy_sign(source: Path, key: Path, days: int, output: Path) -> None:
    """Sign a release policy."""
    from cloister.admin.policy import read_policy, sign_policy
    from cloister.evidence.signatures import SigningKey
    from cloister.files import create_private

    signed = sign_policy(
        SigningKey.parse(key.read_text("ascii")), read_policy(source.read_text("utf-8"), days, now=now())
    )
    create_private(output, signed.to_bytes())
    click.echo(signed.digest)


@policy.command("show")
@click.argument("signed", type=_file)
def policy_show(signed: Path) -> None:
    """Show a signed policy as JSON, with the gate of de-biasing jobs that is in force under it."""
    import json

    from cloister.evidence.policy import Policy
    from cloister.evidence.signatures import Statement
    from cloister.gate import Gate

    payload = Statement.from_bytes(signed.read_bytes()).payload
    gate = Policy.parse(payload).gate or Gate()
    print_json({**json.loads(payload), "gate": gate.to_json()})


@policy.command("publish")
@click.argument("signed", type=_file)
@home_option
def policy_publish(signed: Path, home: Path | None) -> None:
    """Put a signed policy in force (admins and auditors; uses your own home)."""
    from cloister.evidence.signatures import Statement

    with open_client(home) as client:
        click.echo(client.publish_policy(Statement.from_bytes(signed.read_bytes())))


@click.group()
def roster() -> None:
    """The roster: signed by the root, published by an admin."""


@roster.command("sign")
@directory_option
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 366), help="Days in force.")
def roster_sign(directory: Path, days: int) -> None:
    """Sign the draft as the next version of the roster."""
    from cloister.admin.custody import ROSTER, Custody
    from cloister.admin.sign import sign_next
    from cloister.evidence.roster import Roster

    statement = sign_next(Custody(directory), days, now=now())
    print_fields((("version", str(Roster.parse(statement.payload).version)), ("roster", str(directory / ROSTER))))


@roster.command("show")
@click.argument("source", metavar="[ROSTER]", type=_file, required=False)
@click.option("--dir", "directory", type=click.Path(file_okay=False, path_type=Path), envvar="CLOISTER_ROOT")
def roster_show(source: Path | None, directory: Path | None) -> None:
    """Show a signed roster (default: the custodian's last one) as JSON."""
    import json

    from cloister.admin.custody import Custody
    from cloister.evidence.signatures import Statement

    if source is None and directory is None:
        raise click.UsageError("name a ROSTER file, or the custodian's directory with --dir")
    if source is not None:
        statement = Statement.from_bytes(source.read_bytes())
    elif directory is not None:
        statement = Custody(directory).roster()
    print_json(json.loads(statement.payload))


@roster.command("publish")
@click.argument("signed", metavar="ROSTER", type=_file)
@home_option
def roster_publish(signed: Path, home: Path | None) -> None:
    """Put a signed ROSTER in force (admins; uses your own home)."""
    from cloister.evidence.signatures import Statement

    with open_client(home) as client:
        click.echo(f"version {client.publish_roster(Statement.from_bytes(signed.read_bytes()))}")
