# SPDX-License-Identifier: Apache-2.0
"""The directory of a worker host, and what stands in it.

DIR/keyagent/  signing.key, sealing.key, root.pub, site.json, state.json, keyagent.sock   the key agent's user alone
DIR/agent/     tls.key, tls.crt, site.json, agent.toml (optional), cache/, spool/         the agent's user alone
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cloister.configuration.kinds import Whole
from cloister.configuration.settings import Setting, read_settings
from cloister.errors import ConfigurationError
from cloister_workers.agent.errors import ConfigError

GIB = 1 << 30
_SIZE = Whole(1, 1 << 50)
_OPTIONAL_SIZE = Whole(0, 1 << 50)


@dataclass(frozen=True)
class HostPaths:
    """Where things are."""

    root: Path

    @property
    def keyagent(self) -> Path:
        return self.root / "keyagent"

    @property
    def agent(self) -> Path:
        return self.root / "agent"

    @property
    def socket(self) -> Path:
        return self.keyagent / "keyagent.sock"

    @property
    def cache(self) -> Path:
        return self.agent / "cache"

    @property
    def spool(self) -> Path:
        return self.agent / "spool"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`agent.toml`: every key is optional."""

    scratch_bytes: Annotated[int, Setting("scratch_bytes", _SIZE, "size of a trainer's tmpfs, in bytes")] = 8 * GIB
    memory_bytes: Annotated[
        int, Setting("memory_bytes", _OPTIONAL_SIZE, "limit for each process of a trainer, in bytes; 0 for none")
    ] = 0
    file_bytes: Annotated[int, Setting("file_bytes", _SIZE, "largest checkpoint or result, in bytes")] = 64 * GIB
    reserve_bytes: Annotated[
        int, Setting("reserve_bytes", _OPTIONAL_SIZE, "free space that the spool's file system keeps, in bytes")
    ] = GIB // 4
    threads: Annotated[
        int,
        Setting(
            "threads",
            Whole(0, 4096),
            "threads with which a trainer computes; 0 for one for each core that the agent may use. Several trainers "
            "on one machine, or a limit by `CPUQuota=`, need a number here: threads that wait for one another's cores "
            "cost more than they give",
        ),
    ] = 0
    poll_seconds: Annotated[int, Setting("poll_seconds", Whole(1, 30), "how long one question for work waits")] = 20


@dataclass(frozen=True)
class AgentConfig:
    """What the agent starts with."""

    host_id: str
    site: str
    endpoint: str
    ca_pem: bytes
    certificate_pem: bytes
    key_pem: bytes
    paths: HostPaths
    limits: Limits

    def __repr__(self) -> str:
        return f"AgentConfig(host_id={self.host_id!r}, endpoint={self.endpoint!r})"


def load_agent(root: Path, endpoint: str | None = None) -> AgentConfig:
    """Read DIR/agent; `endpoint` overrides the one of the welcome file.  Raises ConfigError."""
    paths = HostPaths(root)
    try:
        site = json.loads((paths.agent / "site.json").read_bytes())
        return AgentConfig(
            host_id=str(site["id"]),
            site=str(site["site"]),
            endpoint=endpoint or str(site["endpoint"]),
            ca_pem=str(site["ca_pem"]).encode(),
            certificate_pem=(paths.agent / "tls.crt").read_bytes(),
            key_pem=(paths.agent / "tls.key").read_bytes(),
            paths=paths,
            limits=read_limits(paths.agent / "agent.toml"),
        )
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; run 'cloister-worker init' and 'install'") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"{paths.agent / 'site.json'} is damaged; run 'cloister-worker install' again") from None


def read_limits(path: Path) -> Limits:
    """The file's limits, or the defaults where there is no file.  Raises ConfigError with every problem."""
    if not path.exists():
        return Limits()
    try:
        return read_settings(Limits, path, {})[0]
    except ConfigurationError as error:
        raise ConfigError(str(error)) from None
