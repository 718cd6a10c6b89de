# SPDX-License-Identifier: Apache-2.0
"""The agent as a process: ended by SIGTERM or SIGINT, after which a running job is handed back."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

import grpc

from cloister_workers.agent.control import connect
from cloister_workers.agent.errors import ConfigError
from cloister_workers.agent.host import Host, log_line, steady_clock
from cloister_workers.agent.loop import Loop
from cloister_workers.agent.modelcache import ModelCache
from cloister_workers.agent.renewal import Renewal, asking
from cloister_workers.agent.spool import Spool
from cloister_workers.agent.training import Place
from cloister_workers.config import AgentConfig, load_agent
from cloister_workers.sandbox.launch import launch
from cloister_workers.sandbox.probe import probe
from cloister_workers.sandbox.unsandboxed import launch_unsandboxed

_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
_GPU = re.compile(r"nvidia[0-9]+")


def run(root: Path, endpoint: str | None, *, once: bool) -> int:
    """Work until told to stop.  Raises ConfigError, OSError."""
    config = load_agent(root, endpoint)
    check_certificate(config.certificate_pem, datetime.now(UTC))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while True:
        with channel(config) as connection:
            host = make_host(config, connection)
            log_line({"event": "ready", "host": config.host_id, "sandboxed": host.sandboxed, "gpus": gpus()})
            renewal = Renewal(config.paths.agent, config.certificate_pem, asking(connection), log_line)
            loop = Loop(host, gpus(), config.limits.poll_seconds, stop, random.random, renewal.due)
            if not loop.run(once=once):
                break
        config = load_agent(root, endpoint)
    log_line({"event": "stopped"})
    return 0


def make_host(config: AgentConfig, connection: grpc.Channel) -> Host:
    """Everything that jobs need of this host; removes what a crash left."""
    limits, paths = config.limits, config.paths
    spool, cache = Spool(paths.spool, limits.reserve_bytes), ModelCache(paths.cache)
    if leftovers := spool.clear():
        log_line({"event": "leftovers_removed", "attempts": leftovers})
    cache.clear_partial()
    found = probe()
    if not found.available:
        log_line({"event": "no_sandbox", "reason": found.reason})
    place = Place(
        launch=launch if found.available else launch_unsandboxed,
        scratch_bytes=limits.scratch_bytes,
        memory_bytes=limits.memory_bytes or None,
        file_bytes=limits.file_bytes,
        allow_gpu=gpus() > 0,
        threads=limits.threads,
    )
    return Host(
        control=connect(connection),
        keyagent=paths.socket,
        spool=spool,
        cache=cache,
        sandboxed=found.available,
        place=place,
        clock=steady_clock,
        log=log_line,
    )


def channel(config: AgentConfig) -> grpc.Channel:
    """A mutual-TLS channel with this host's key."""
    credentials = grpc.ssl_channel_credentials(config.ca_pem, config.key_pem, config.certificate_pem)
    return grpc.secure_channel(config.endpoint, credentials, options=_CHANNEL_OPTIONS)


def check_certificate(pem: bytes, now: datetime) -> None:
    """Say what TLS would only refuse.  Raises ConfigError."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise ConfigError("tls.crt is damaged; run 'cloister-worker install' again") from None
    if now >= certificate.not_valid_after_utc:
        raise ConfigError(
            f"this host's certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}; send request.json to the "
            "root custodian, who runs cloister-admin host certify, and install the new welcome file"
        )
    if now < certificate.not_valid_before_utc:
        raise ConfigError("this host's certificate is not valid yet; check the clock of this machine")


def gpus() -> int:
    """NVIDIA devices of this host."""
    return sum(1 for name in os.listdir("/dev") if _GPU.fullmatch(name))  # noqa: PTH208
