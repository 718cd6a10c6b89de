# SPDX-License-Identifier: Apache-2.0
"""Where the embedded site keeps what.

root/        the throw-away root: on a real site this never lies beside the rest
policy/      the key that signs release policies, and the policy in force
server/      the control plane: configuration, TLS key, log key, database, blobs
worker/      one worker host: keyagent/ (its keys) and agent/
people/NAME/ one home for each person
log/         what the processes say
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SITE = "dev.cloister"
LOG_ORIGIN = f"{SITE}/log"
TEAM = "helpdesk"
POOL = "default"
HOST = "worker-1"
PEOPLE: dict[str, tuple[str, ...]] = {
    "alice": ("member",),
    "bob": ("approver",),
    "carol": ("auditor",),
    "dana": ("admin",),
}


@dataclass(frozen=True)
class Layout:
    """Paths below the site's directory."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def policy(self) -> Path:
        return self.directory / "policy"

    @property
    def server(self) -> Path:
        return self.directory / "server"

    @property
    def server_config(self) -> Path:
        return self.server / "config.toml"

    @property
    def worker(self) -> Path:
        return self.directory / "worker"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def recovery(self) -> Path:
        return self.root / f"{TEAM}-recovery.key"

    def home(self, person: str) -> Path:
        return self.directory / "people" / person
