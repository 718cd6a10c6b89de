# SPDX-License-Identifier: Apache-2.0
"""Entry point of `cloister`."""

from __future__ import annotations

import sys

import click

from cloister import __version__
from cloister.cli.audit import audit
from cloister.cli.dataset import dataset
from cloister.cli.enrol import enroll, keygen, renew, whoami
from cloister.cli.exits import run
from cloister.cli.job import job
from cloister.cli.maintenance import maintenance
from cloister.cli.model import model
from cloister.cli.quota import quota
from cloister.cli.recovery import recovery
from cloister.cli.sealing import inspect, open_, seal
from cloister.cli.tune import tune
from cloister.cli.worker import worker

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="cloister", message="%(prog)s %(version)s")
def cli() -> None:
    """Adapt language models inside your own walls.

    Data are sealed on this machine, jobs are signed on it, and what the site says is believed only as far as
    signatures prove it.  Exit codes: docs/reference/cli.md.
    """


for command in (
    keygen,
    enroll,
    renew,
    whoami,
    dataset,
    job,
    tune,
    model,
    worker,
    maintenance,
    quota,
    audit,
    recovery,
    seal,
    open_,
    inspect,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run("cloister", cli))


if __name__ == "__main__":
    main()
