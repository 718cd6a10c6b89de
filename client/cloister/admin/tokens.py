# SPDX-License-Identifier: Apache-2.0
"""`cloister-admin token`: one-time enrolment tokens, from an admin to the offline root and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.admin.options import NEXT, days_option, directory_option, endpoint_option, service_option
from cloister.cli.options import home_option, now, open_client
from cloister.cli.output import print_fields, print_table, state_name

if TYPE_CHECKING:
    from cloister.api.v1.enrolment_pb2 import EnrolmentToken
    from cloister.evidence.enrolment import IssuedToken

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_new = click.Path(dir_okay=False, path_type=Path)
_UNITS = {"m": 60, "h": 3600, "d": 86400}


@click.group()
def token() -> None:
    """One-time enrolment tokens.

    create, list, withdraw, fetch and publish use an admin's own home on the site; admit uses the custodian's
    directory, away from it.
    """


@token.command()
@click.option("--person", default="", help="Id that the person will have on the roster.")
@click.option("--team", default="", help="Team on the roster, with --person.")
@click.option("--role", "--roles", "roles", multiple=True, help="member, approver, auditor or admin, with --person.")
@click.option("--host", default="", help="Id that the worker host will have on the roster.")
@click.option("--pool", default="default", show_default=True, help="Pool of the host, with --host.")
@click.option("--expires", default="24h", show_default=True, help="Life of the token, as 30m, 24h or 7d.")
@service_option
@home_option
def create(
    person: str,
    team: str,
    roles: tuple[str, ...],
    host: str,
    pool: str,
    expires: str,
    service: bool,
    home: Path | None,
) -> None:
    """Issue a token for a person or a worker host and print it once: it is stored nowhere.

    Hand it to that person, or whoever sets the host up, alone, on a way that the site does not control.
    """
    if bool(host) == bool(person) or (host and (team or roles or service)) or (person and not (team and roles)):
        raise click.UsageError("give either --person, --team and --role, or --host and --pool")
    lifetime = _seconds(expires)
    with open_client(home) as client:
        if host:
            made = client.tokens.create_for_host(host, pool, lifetime)
        else:
            made = client.tokens.create(person, team, _names(roles), lifetime, service=service)
        endpoint = client.site.pins.endpoint
    command = f"on {host}: cloister-worker enroll DIR" if host else f"{person} runs: cloister enroll"
    click.echo(made.export())
    click.echo(f"id {made.id}, for {host or person}, expires in {expires}", err=True)
    click.echo(f"next: {command} --server {endpoint} --token TOKEN", err=True)


@token.command("list")
@home_option
def list_(home: Path | None) -> None:
    """Show the tokens that can still be claimed, admitted or collected."""
    from datetime import UTC, datetime

    with open_client(home) as client:
        rows = [(message, _issued(message)) for message in client.tokens.list()]
    print_table(
        ("token", "kind", "for", "team or pool", "roles", "state", "expires"),
        [
            (
                message.id,
                issued.kind,
                issued.holder,
                issued.team or issued.pool,
                ", ".join(issued.roles),
                _state(message),
                f"{datetime.fromtimestamp(issued.expires_at, UTC):%Y-%m-%d %H:%M}",
            )
            for message, issued in rows
        ],
    )


@token.command()
@click.argument("identifier", metavar="TOKEN_ID")
@home_option
def withdraw(identifier: str, home: Path | None) -> None:
    """Make a token unusable."""
    with open_client(home) as client:
        click.echo(_state(client.tokens.withdraw(identifier)))


@token.command()
@click.option("-o", "--output", type=_new, required=True, help="New file of claims, for the custodian.")
@home_option
def fetch(output: Path, home: Path | None) -> None:
    """Fetch the claims that wait for the root custodian."""
    from cloister.admin.claims import Claimed, write_claims
    from cloister.api.v1 import enrolment_pb2
    from cloister.files import create_private
    from cloister.wire import statement_from_proto

    with open_client(home) as client:
        waiting = [t for t in client.tokens.list() if t.state == enrolment_pb2.TOKEN_STATE_CLAIMED]
    claims = [Claimed(statement_from_proto(t.token), statement_from_proto(t.claim)) for t in waiting]
    create_private(output, write_claims(claims))
    click.echo(f"{len(claims)} claims in {output}")
    click.echo("next: on the custodian's machine, cloister-admin token admit", err=True)


@token.command()
@click.argument("claims", type=_file)
@directory_option
@endpoint_option
@days_option
@click.option("--yes", is_flag=True, help="Ask nothing: every fingerprint has been compared.")
@click.option("-o", "--output", type=_new, required=True, help="New file of welcomes, for the admin.")
def admit(claims: Path, directory: Path, endpoint: str, days: int, yes: bool, output: Path) -> None:
    """Verify CLAIMS against the roster, put the people and hosts on the draft, and sign their welcomes.

    Compare each fingerprint with its sender over another channel: whoever issued the token could have used it.
    """
    from cloister.admin.claims import admit_candidate, read_claims, verify_candidate, write_welcomes
    from cloister.admin.custody import Custody
    from cloister.errors import UsageError
    from cloister.files import create_private

    if output.exists():
        raise UsageError(f"{output} exists already; name a new file")
    custody, welcomes = Custody(directory), []
    for carried in read_claims(claims.read_bytes()):
        candidate = verify_candidate(custody, carried, now=now())
        issued = candidate.token
        print_fields(
            (
                (issued.kind, issued.holder),
                ("team", issued.team),
                ("pool", issued.pool),
                ("roles", ", ".join(issued.roles)),
                ("service", "yes" if issued.service else ""),
                ("issued by", issued.issuer),
                ("fingerprint", candidate.fingerprint),
            )
        )
        if yes or click.confirm(f"Put this {issued.kind} on the roster?", err=True):
            welcomes.append(admit_candidate(custody, candidate, now=now(), endpoint=endpoint, days=days))
    create_private(output, write_welcomes(welcomes))
    click.echo(f"{len(welcomes)} welcomes in {output}")
    click.echo(f"{NEXT}, then token publish", err=True)


@token.command()
@click.argument("welcomes", type=_file)
@home_option
def publish(welcomes: Path, home: Path | None) -> None:
    """Hand the root's WELCOMES to those who wait for them; publish the roster first."""
    from cloister.admin.claims import read_welcomes

    signed = read_welcomes(welcomes.read_bytes())
    with open_client(home) as client:
        for welcome in signed:
            admitted = client.tokens.admit(welcome)
            click.echo(f"{_issued(admitted).holder} {_state(admitted)}")


def _issued(message: EnrolmentToken) -> IssuedToken:
    from cloister.evidence.enrolment import IssuedToken

    return IssuedToken.parse(message.token.payload)


def _state(message: EnrolmentToken) -> str:
    from cloister.api.v1 import enrolment_pb2

    return state_name(enrolment_pb2.TokenState.DESCRIPTOR, message.state)


def _names(roles: tuple[str, ...]) -> list[str]:
    """`--roles member,approver` and `--role member --role approver` say the same."""
    return [name for given in roles for name in given.split(",") if name]


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)
    if found is None:
        raise click.UsageError(f"--expires {text!r} is not a time such as 30m, 24h or 7d")
    return int(found[1]) * _UNITS[found[2]]
