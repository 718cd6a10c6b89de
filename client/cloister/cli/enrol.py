# SPDX-License-Identifier: Apache-2.0
"""`cloister keygen`, `enroll`, `whoami`: how a person joins a site."""

from __future__ import annotations

from pathlib import Path

import click

from cloister.cli.options import home_option, json_option, open_client
from cloister.cli.output import print_fields, print_message


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
@click.argument("welcome", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--endpoint", help="HOST:PORT of the control plane, where the file names another.")
@home_option
def enroll(welcome: Path, endpoint: str | None, home: Path | None) -> None:
    """Install the WELCOME file of the root custodian and verify the site.

    Pins the site's root: everything the site says later is checked against it.
    """
    from cloister.enrolment import Welcome
    from cloister.home import Home, install_welcome, set_endpoint

    place = Home.at(home)
    pins = install_welcome(place, Welcome.from_json(welcome.read_bytes()))
    if endpoint:
        set_endpoint(place, endpoint)
    click.echo(f"enrolled as {pins.id} at site {pins.site}; verifying the site", err=True)
    with open_client(home) as client:
        view = client.site.view
        click.echo(f"site     {pins.site}")
        click.echo(f"you      {pins.id}")
        click.echo(f"roster   version {view.roster.version}, verified against the pinned root")
        click.echo(f"log      {view.head.origin}, {view.head.size} entries, signature verified")


@click.command()
@json_option
@home_option
def whoami(as_json: bool, home: Path | None) -> None:
    """Show who you are to the site."""
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
            )
        )
