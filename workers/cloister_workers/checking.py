# SPDX-License-Identifier: Apache-2.0
"""`cloister-worker check-config`: what a host's files say, before the agent is started on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509

from cloister.tls import pair_fault
from cloister_workers.agent.errors import ConfigError
from cloister_workers.config import AgentConfig, HostPaths, load_agent, read_limits

_SECRETS = ("tls.key",)


def run(root: Path, now: datetime) -> int:
    """Print every problem; the exit status is 0 where there is none, or else 1.  `now` is aware."""
    problems = list(check_host(root, now))
    for problem in problems:
        sys.stderr.write(f"cloister-worker: {problem}\n")
    if not problems:
        sys.stdout.write(f"{HostPaths(root).agent}: the configuration is good\n")
    return 1 if problems else 0


def check_host(root: Path, now: datetime) -> Iterator[str]:
    """Everything that is wrong with DIR/agent, with what to do."""
    paths = HostPaths(root)
    try:
        read_limits(paths.agent / "agent.toml")
    except ConfigError as error:
        yield from str(error).splitlines()
    else:
        yield from _check_installed(root, now)
    for name in _SECRETS:
        yield from _check_mode(paths.agent / name)


def _check_installed(root: Path, now: datetime) -> Iterator[str]:
    try:
        config = load_agent(root)
    except ConfigError as error:
        yield str(error)
        return
    if fault := pair_fault(config.certificate_pem, config.key_pem, now):
        yield f"{config.paths.agent / 'tls.crt'}: {fault}"
    yield from _check_authority(config)


def _check_authority(config: AgentConfig) -> Iterator[str]:
    try:
        x509.load_pem_x509_certificate(config.ca_pem)
    except ValueError:
        yield f"{config.paths.agent / 'site.json'}: ca_pem is not a certificate; run 'cloister-worker install' again"


def _check_mode(path: Path) -> Iterator[str]:
    if path.exists() and (mode := path.stat().st_mode & 0o777) & 0o007:
        yield f"{path} has mode {mode:04o}, so that everybody may use the key in it; run: chmod 0600 {path}"
