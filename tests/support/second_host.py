# SPDX-License-Identifier: Apache-2.0
"""A second worker host for a live site, admitted by the same steps as the first."""

from __future__ import annotations

import time
from pathlib import Path

from cloister import Client
from cloister.admin.admit import admit_host
from cloister.admin.custody import Custody
from cloister.admin.sign import sign_next
from cloister_dev.layout import POOL
from cloister_dev.processes import Program
from cloister_dev.site import accepts
from cloister_workers import init as worker
from live_site import LiveSite

ROSTER_DAYS = 90


def admit_second_host(site: LiveSite, host: str) -> Path:
    """Make its keys, put it on a new roster, publish that, and let the site start `keyagent-2` and `agent-2`."""
    directory = site.layout.directory / host
    custody = Custody(site.layout.root)
    welcome = admit_host(custody, worker.init_host(directory), host, POOL, now=int(time.time()))
    worker.install_welcome(directory, welcome)
    publish_roster(site)
    add_programs(site, directory)
    return directory


def add_programs(site: LiveSite, directory: Path) -> None:
    """Let the site start `keyagent-2` and `agent-2` of a host."""
    at = ("--dir", str(directory))
    site.add(Program("keyagent-2", "cloister_workers", ("keyagent", *at), lambda: accepts(directory)))
    site.add(Program("agent-2", "cloister_workers", ("agent", *at), lambda: True))


def publish_roster(site: LiveSite) -> None:
    """Sign the custodian's draft and put it in force, as the admin does."""
    statement = sign_next(Custody(site.layout.root), ROSTER_DAYS, now=int(time.time()))
    with Client.open(site.layout.home("dana")) as client:
        client.publish_roster(statement)
