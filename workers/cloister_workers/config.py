# SPDX-License-Identifier: Apache-2.0
"""The directory of a worker host, and what stands in it.

DIR/keyagent/  signing.key, sealing.key, root.pub, site.json, state.json, keyagent.sock   the key agent's user alone
DIR/agent/     tls.key, tls.crt, site.json, agent.toml (optional), cache/, spool/         the agent's user alone
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from cloister_workers.agent.errors import ConfigError

GIB = 1 << 30


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


@dataclass(frozen=True)
class Limits:
    """`agent.toml`: every key is optional.  Sizes are bytes."""

    scratch_bytes: int = 8 * GIB
    """tmpfs of a trainer."""
    memory_bytes: int = 0
    """Limit for each process of a trainer; 0 for none."""
    file_bytes: int = 64 * GIB
    """Largest checkpoint or result."""
    threads: int = 0
    """Threads with which a trainer computes; 0 for one for each core that the agent may use."""
    reserve_bytes: int = GIB // 4
    """Free space that the spool's file system keeps."""
    poll_seconds: int = 20
    """How long one question for work waits, at most 30."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot work."""
        for name in ("scratch_bytes", "file_bytes", "poll_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"agent.toml: {name} must be above 0")
        if self.memory_bytes < 0 or self.reserve_bytes < 0:
            raise ConfigError("agent.toml: a size is negative")
        if self.threads < 0:
            raise ConfigError(f"agent.toml: threads is {self.threads}; give 0 for all cores, or a number above it")


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
    """Read `agent.toml`; without it the defaults.  Raises ConfigError."""
    if not path.exists():
        return Limits()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    known = {field.name for field in fields(Limits)}
    if unknown := sorted(set(table) - known):
        raise ConfigError(f"{path}: unknown key {unknown[0]}; known are {', '.join(sorted(known))}")
    if any(isinstance(value, bool) or not isinstance(value, int) for value in table.values()):
        raise ConfigError(f"{path}: every value is a whole number")
    return Limits(**table)
