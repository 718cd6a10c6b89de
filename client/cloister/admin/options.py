# SPDX-License-Identifier: Apache-2.0
"""Options that the custodian's commands share."""

from __future__ import annotations

from pathlib import Path

import click

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="CLOISTER_ROOT",
    required=True,
    help="The custodian's directory.  [env: CLOISTER_ROOT]",
)
endpoint_option = click.option("--endpoint", default="", help="HOST:PORT for the welcome file.  [default: the site's]")
welcome_option = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="New welcome file.",
)
days_option = click.option(
    "--days", default=90, show_default=True, type=click.IntRange(1, 3650), help="Validity of the certificate."
)
certificate_option = click.option(
    "--certificate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificate of your own authority (PEM, intermediate ones after it), instead of issuing one.",
)
service_option = click.option("--service", is_flag=True, help="An account of a pipeline: it approves nothing.")
request_argument = click.argument("request", type=click.Path(exists=True, dir_okay=False, path_type=Path))
NEXT = "next: cloister-admin roster sign, then roster publish"
