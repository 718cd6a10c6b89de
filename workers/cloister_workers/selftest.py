# SPDX-License-Identifier: Apache-2.0
"""Whether this host can work: each check is one line, and the exit status says whether all hold."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cloister_workers.agent.process import check_certificate, gpus, launcher_of
from cloister_workers.config import AgentConfig, load_agent
from cloister_workers.errors import WorkerError
from cloister_workers.keyagent import client
from cloister_workers.sandbox.probe import probe


def run(root: Path, trainer_socket: Path | None = None) -> int:
    """Check and tell; returns the exit status.  Raises ConfigError where there is nothing to check."""
    config = load_agent(root)
    good = True
    for name, check in _checks(config, trainer_socket):
        try:
            word, text = "ok", check()
        except WorkerError as error:
            word, text, good = "FAILED", str(error), False
        sys.stdout.write(f"{word:7} {name:12} {text}\n")
    return 0 if good else 1


def _checks(config: AgentConfig, trainer_socket: Path | None) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "certificate", lambda: _certificate(config)
    yield "sandbox", lambda: _sandbox(trainer_socket)
    yield "key agent", lambda: _key_agent(config)
    yield "roster", lambda: _roster(config)
    yield "disk", lambda: f"{shutil.disk_usage(config.paths.spool).free >> 20} MiB free for spool and cache"
    yield "device", lambda: f"{gpus()} GPUs" if gpus() else "no GPU: jobs run on the CPU"


def _certificate(config: AgentConfig) -> str:
    check_certificate(config.certificate_pem, config.key_pem, datetime.now(UTC))
    return f"host {config.host_id} of site {config.site}, control plane {config.endpoint}"


def _sandbox(trainer_socket: Path | None) -> str:
    found = probe(launcher_of(trainer_socket))
    if not found.available:
        raise WorkerError(found.reason)
    return "own network, no keys, read-only files"


def _status(config: AgentConfig) -> client.Status:
    connection = client.Connection(config.paths.socket)
    try:
        return client.status(connection)
    finally:
        connection.close()


def _key_agent(config: AgentConfig) -> str:
    status = _status(config)
    if status.host != config.host_id:
        raise WorkerError(f"the key agent is that of host {status.host}, not of {config.host_id}")
    return f"sealing key {status.sealing_key_id}, signing key {status.signing_key_id}"


def _roster(config: AgentConfig) -> str:
    status = _status(config)
    if status.roster_version == 0:
        return "none seen yet; the first job or release brings it"
    if time.time() >= status.roster_expires_at:
        raise WorkerError(f"version {status.roster_version} has expired; the root custodian must sign a newer one")
    return f"version {status.roster_version}, log seen up to entry {status.checkpoint_size}"
