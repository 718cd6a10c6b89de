# SPDX-License-Identifier: Apache-2.0
"""`cloister keygen`, `enroll`, `whoami`: how a person joins a site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.options import home_option, json_option, now, open_client
from cloister.cli.output import print_fields, print_message

if TYPE_CHECKING:
    from cloister.home import Home, SitePins


@click.command()
@home_option
def keygen(home: Path | None) -> None:
    """Make your keys and the request for the root custodian.

    Keys that exist are never overwritten.
    """
    import hashlib

    from cloister.home import Home
    from cloister.home import keygen as make_keys

    place = Home.at(home)
    request = make_keys(place)
    fingerprint = hashlib.sha256(request.to_json().encode()).hexdigest()
    click.echo(f"keys        {place.directory}")
    click.echo(f"request     {place.directory / 'request.json'}")
    click.echo(f"fingerprint {fingerprint}")
    click.echo("next: send the request to the root custodian and tell them the fingerprint in person", err=True)


@click.command()
@click.argument("welcome", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--endpoint", help="HOST:PORT of the control plane, where the file names another.")
@click.option("--server", metavar="HOST:PORT", help="Control plane, with --token.")
@click.option("--token", help="One-time enrolment token of an admin; - reads it from stdin.")
@click.option("--wait", is_flag=True, help="With --token: wait until the root custodian has answered.")
@home_option
def enroll(
    welcome: Path | None, endpoint: str | None, server: str | None, token: str | None, wait: bool, home: Path | None
) -> None:
    """Join a site: with --server and --token, or with the WELCOME file of the root custodian.

    With a token, keys are made on this machine and the request waits at the site for the root custodian; run the
    same command again, or with --wait, to finish.  Either way the site's root is pinned: everything the site says
    later is checked against it.
    """
    from cloister.home import Home

    place = Home.at(home)
    if welcome is not None and server is None and token is None:
        pins = _install(place, welcome, endpoint)
    elif welcome is None and server is not None and token is not None and endpoint is None:
        text = sys.stdin.readline() if token == "-" else token  # noqa: S105 (not a secret)
        joined = _join(place, text, server, wait)
        if joined is None:
            return
        pins = joined
    else:
        raise click.UsageError("give either a WELCOME file, or --server and --token")
    click.echo(f"enrolled as {pins.id} at site {pins.site}; verifying the site", err=True)
    with open_client(home) as client:
        view = client.site.view
        click.echo(f"site     {pins.site}")
        click.echo(f"you      {pins.id}")
        click.echo(f"roster   version {view.roster.version}, verified against the pinned root")
        click.echo(f"log      {view.head.origin}, {view.head.size} entries, signature verified")


def _install(place: Home, welcome: Path, endpoint: str | None) -> SitePins:
    from cloister.enrolment import Welcome
    from cloister.home import install_welcome, set_endpoint

    pins = install_welcome(place, Welcome.from_json(welcome.read_bytes()))
    if endpoint:
        set_endpoint(place, endpoint)
    return pins


def _join(place: Home, text: str, server: str, wait: bool) -> SitePins | None:
    """Claim the token; the pins once it is admitted, None where that is still to come."""
    from cloister.joining import PersonPlace, Waiting, wait_and_join

    def tell(waiting: Waiting) -> None:
        click.echo(f"keys        {place.directory}")
        click.echo(f"fingerprint {waiting.fingerprint}")
        click.echo("next: tell the root custodian the fingerprint; they put you on the roster", err=True)
        if not wait:
            click.echo("then: run the same command again", err=True)

    return wait_and_join(PersonPlace(place), text, server, now, tell, wait=wait)


@click.command()
@home_option
def renew(home: Path | None) -> None:
    """Renew your TLS certificate now; every command does so by itself once half of its life is over."""
    from cloister.client import Client

    with Client.open(home) as client:
        click.echo(f"valid until {client.renew_certificate():%Y-%m-%d %H:%M} UTC")


@click.command()
@json_option
@home_option
def whoami(as_json: bool, home: Path | None) -> None:
    """Show who you are to the site."""
    from cloister.evidence.signatures import key_id

    with open_client(home) as client:
        answer = client.whoami()
        if as_json:
            print_message(answer)
            return
        print_fields(
            (
                ("id", answer.id),
                ("team", answer.team),
                ("roles", ", ".join(answer.roles)),
                ("transport", answer.transport),
                ("site", client.site.pins.site),
                ("root", key_id(client.site.pins.root_public)),
            )
        )
