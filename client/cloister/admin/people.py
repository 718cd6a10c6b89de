# SPDX-License-Identifier: Apache-2.0
"""`cloister-admin team|person|host|server`: who belongs to the site."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.admin.options import (
    NEXT,
    certificate_option,
    days_option,
    directory_option,
    endpoint_option,
    request_argument,
    service_option,
    welcome_option,
)
from cloister.cli.options import now

if TYPE_CHECKING:
    from cloister.enrolment import EnrolmentRequest, Welcome


@click.group()
def team() -> None:
    """Teams."""


@team.command("add")
@click.argument("name")
@directory_option
@click.option("--recovery", default="", help="age1pq… key of the team's offline recovery identity.")
@click.option(
    "--new-recovery",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Make the recovery identity and write it to this new file.",
)
def team_add(name: str, directory: Path, recovery: str, new_recovery: Path | None) -> None:
    """Add a team to the draft.

    The recovery identity opens everything that the team seals: keep it offline, with the team.
    """
    from cloister.admin.custody import Custody
    from cloister.admin.draft import add_team
    from cloister.files import create_private
    from cloister.sealed.keys import Identity

    if bool(recovery) == (new_recovery is not None):
        raise click.UsageError("give either --recovery or --new-recovery")
    custody = Custody(directory)
    identity = Identity.generate() if new_recovery is not None else None
    draft = add_team(custody.draft(), name, recovery if identity is None else str(identity.recipient))
    if new_recovery is not None:
        create_private(new_recovery, f"{identity}\n".encode("ascii"))
    custody.save_draft(draft)
    click.echo(NEXT, err=True)


@click.group()
def person() -> None:
    """People."""


@person.command("add")
@request_argument
@directory_option
@click.option("--id", "identifier", required=True, help="Id on the roster.")
@click.option("--team", "team_name", required=True, help="Team, added before.")
@click.option("--role", "roles", multiple=True, required=True, help="member, approver, auditor or admin; repeatable.")
@service_option
@endpoint_option
@days_option
@welcome_option
def person_add(  # noqa: PLR0913, PLR0917 - click passes each option by its name
    request: Path,
    directory: Path,
    identifier: str,
    team_name: str,
    roles: tuple[str, ...],
    service: bool,
    endpoint: str,
    days: int,
    output: Path,
) -> None:
    """Add the person of an enrolment REQUEST to the draft and write their welcome file."""
    from cloister.admin.admit import admit_person
    from cloister.admin.custody import Custody

    asked = _read(request, output)
    custody = Custody(directory)
    made = admit_person(
        custody, asked, identifier, team_name, roles, now=now(), endpoint=endpoint, days=days, service=service
    )
    _write(output, made, NEXT)


@person.command("certify")
@request_argument
@directory_option
@click.option("--id", "identifier", required=True, help="Id on the roster.")
@endpoint_option
@days_option
@certificate_option
@welcome_option
def person_certify(
    request: Path, directory: Path, identifier: str, endpoint: str, days: int, certificate: Path | None, output: Path
) -> None:
    """Certify the TLS key of a person on the roster again: their REQUEST is the one of the beginning."""
    _recertify("person", request, directory, identifier, endpoint, days, certificate, output)


@person.command("rekey")
@request_argument
@directory_option
@click.option("--id", "identifier", required=True, help="Id on the roster.")
@endpoint_option
@days_option
@welcome_option
def person_rekey(request: Path, directory: Path, identifier: str, endpoint: str, days: int, output: Path) -> None:
    """Give a person on the roster the new keys of a REQUEST; the old ones sign and connect no more."""
    from cloister.admin.admit import rekey_person
    from cloister.admin.custody import Custody

    asked = _read(request, output)
    made = rekey_person(Custody(directory), asked, identifier, now=now(), endpoint=endpoint, days=days)
    _write(output, made, NEXT)


@person.command("retire")
@click.argument("identifier")
@directory_option
def person_retire(identifier: str, directory: Path) -> None:
    """Take a person's roles and keys; what they signed before still verifies."""
    from cloister.admin.custody import Custody
    from cloister.admin.draft import retire_person

    custody = Custody(directory)
    custody.save_draft(retire_person(custody.draft(), identifier, now=now()))
    click.echo(NEXT, err=True)


@click.group()
def host() -> None:
    """Worker hosts."""


@host.command("add")
@request_argument
@directory_option
@click.option("--id", "identifier", required=True, help="Id on the roster.")
@click.option("--pool", default="default", show_default=True, help="Pool that it belongs to.")
@endpoint_option
@days_option
@welcome_option
def host_add(
    request: Path, directory: Path, identifier: str, pool: str, endpoint: str, days: int, output: Path
) -> None:
    """Certify the worker host of an enrolment REQUEST: it will open what is sealed to its pool."""
    from cloister.admin.admit import admit_host
    from cloister.admin.custody import Custody

    asked = _read(request, output)
    made = admit_host(Custody(directory), asked, identifier, pool, now=now(), endpoint=endpoint, days=days)
    _write(output, made, NEXT)


@host.command("certify")
@request_argument
@directory_option
@click.option("--id", "identifier", required=True, help="Id on the roster.")
@endpoint_option
@days_option
@certificate_option
@welcome_option
def host_certify(
    request: Path, directory: Path, identifier: str, endpoint: str, days: int, certificate: Path | None, output: Path
) -> None:
    """Certify the TLS key of a host on the roster again: their REQUEST is the one of the beginning."""
    _recertify("host", request, directory, identifier, endpoint, days, certificate, output)


@host.command("retire")
@click.argument("identifier")
@directory_option
def host_retire(identifier: str, directory: Path) -> None:
    """Take a host out of its pool: nothing new is sealed to it and it opens nothing more."""
    from cloister.admin.custody import Custody
    from cloister.admin.draft import retire_host

    custody = Custody(directory)
    custody.save_draft(retire_host(custody.draft(), identifier, now=now()))
    click.echo(NEXT, err=True)


@click.group()
def server() -> None:
    """The control plane's certificate."""


@server.command()
@request_argument
@directory_option
@click.option("--name", "names", multiple=True, help="Host name or address; repeatable.  [default: loopback]")
@endpoint_option
@days_option
@certificate_option
@welcome_option
def certify(
    request: Path,
    directory: Path,
    names: tuple[str, ...],
    endpoint: str,
    days: int,
    certificate: Path | None,
    output: Path,
) -> None:
    """Certify the control plane's TLS key of an enrolment REQUEST."""
    from cloister.admin.admit import SERVER_NAMES, certify_server
    from cloister.admin.custody import Custody

    asked = _read(request, output)
    pem = b"" if certificate is None else certificate.read_bytes()
    made = certify_server(
        Custody(directory), asked, names or SERVER_NAMES, now=now(), endpoint=endpoint, days=days, certificate=pem
    )
    _write(output, made, "next: give the welcome file to the control plane")


def _recertify(
    kind: str,
    request: Path,
    directory: Path,
    identifier: str,
    endpoint: str,
    days: int,
    certificate: Path | None,
    output: Path,
) -> None:
    from cloister.admin.admit import recertify
    from cloister.admin.custody import Custody
    from cloister.errors import UsageError

    asked = _read(request, output)
    if asked.kind != kind:
        raise UsageError(f"the request is for a {asked.kind}, not for a {kind}")
    pem = b"" if certificate is None else certificate.read_bytes()
    made = recertify(Custody(directory), asked, identifier, now=now(), endpoint=endpoint, days=days, certificate=pem)
    _write(output, made, "next: give the welcome file to whoever sent the request; the roster stays as it is")


def _read(request: Path, output: Path) -> EnrolmentRequest:
    """The request; its fingerprint is shown, for comparison with what the sender says."""
    from cloister.enrolment import EnrolmentRequest
    from cloister.errors import UsageError

    if output.exists():
        raise UsageError(f"{output} exists already; name a new file")
    asked = EnrolmentRequest.from_json(request.read_bytes())
    click.echo(f"fingerprint {hashlib.sha256(asked.to_json().encode()).hexdigest()}", err=True)
    return asked


def _write(output: Path, welcome: Welcome, following: str) -> None:
    from cloister.files import create_private

    create_private(output, welcome.to_json().encode())
    click.echo(str(output))
    click.echo(following, err=True)
