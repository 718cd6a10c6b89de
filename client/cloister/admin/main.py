# SPDX-License-Identifier: Apache-2.0
"""Entry point of `cloister-admin`."""

from __future__ import annotations

import sys

import click

from cloister import __version__
from cloister.admin.doctor import doctor
from cloister.admin.people import host, person, server, team
from cloister.admin.signing import log, policy, roster
from cloister.admin.site import root
from cloister.admin.tokens import token
from cloister.cli.exits import run
from cloister.cli.main import CONTEXT


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="cloister-admin", message="%(prog)s %(version)s")
def cli() -> None:
    """Tools of the root custodian, to be used away from the control plane.

    The directory of `root init` holds the root of trust: keep it offline.
    """


for command in (root, team, token, person, host, server, log, policy, roster, doctor):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run("cloister-admin", cli))


if __name__ == "__main__":
    main()
