# SPDX-License-Identifier: Apache-2.0
"""`cloister-worker enroll`: a worker host joins a site with a one-time token.

The steps are those of a person (`cloister.joining`); what differs is where the keys lie and what is installed.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cloister.enrolment import EnrolmentRequest, Welcome
from cloister.errors import HomeError
from cloister.evidence.enrolment import HOST
from cloister.joining import Waiting, wait_and_join
from cloister_workers.config import HostPaths
from cloister_workers.init import REQUEST, init_host, install_welcome


@dataclass(frozen=True)
class HostPlace:
    """A worker host's directory, with the keys in the folders of its two services."""

    directory: Path

    @property
    def kind(self) -> str:
        return HOST

    def require_free(self) -> None:
        found = HostPaths(self.directory).agent / "site.json"
        if found.exists():
            site = json.loads(found.read_bytes()).get("site", "unknown")
            raise HomeError(f"{self.directory} is a host of site {site} already; name another directory")

    def seen_version(self) -> int:
        return 0  # a key agent that has not been installed has seen none

    def request(self) -> EnrolmentRequest:
        stored = self.directory / REQUEST
        return EnrolmentRequest.from_json(stored.read_bytes()) if stored.exists() else init_host(self.directory)

    def install(self, welcome: Welcome) -> Welcome:
        install_welcome(self.directory, welcome)
        return welcome


def run(directory: Path, endpoint: str, token: str, *, wait: bool) -> int:
    """Join, or say what is still to come; `token` is its text, - for stdin.  Raises CloisterError, EvidenceError."""

    def tell(waiting: Waiting) -> None:
        sys.stdout.write(f"keys        {directory}\nfingerprint {waiting.fingerprint}\n")
        sys.stderr.write("next: tell the root custodian the fingerprint; they put this host on the roster\n")
        if not wait:
            sys.stderr.write("then: run the same command again\n")

    text = sys.stdin.readline() if token == "-" else token  # noqa: S105 (not a secret)
    joined = wait_and_join(HostPlace(directory), text, endpoint, lambda: int(time.time()), tell, wait=wait)
    if joined is not None:
        sys.stdout.write(f"host        {joined.id}, of site {joined.site}\n")
        sys.stderr.write("next: start key agent and agent; data that was sealed before needs a re-wrap by its owners\n")
    return 0
