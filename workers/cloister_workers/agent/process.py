# SPDX-License-Identifier: Apache-2.0
"""The agent as a process: ended by SIGTERM or SIGINT, after which a running job is handed back."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import grpc

from cloister.sd_notify import ServiceManager
from cloister.tls import pair_fault
from cloister_workers.agent.control import ControlPlane, Stubs
from cloister_workers.agent.errors import ConfigError
from cloister_workers.agent.host import Host, log_line, steady_clock
from cloister_workers.agent.loop import Loop
from cloister_workers.agent.modelcache import ModelCache
from cloister_workers.agent.recertification import Recertification
from cloister_workers.agent.renewal import Pair, RenewedChannel
from cloister_workers.agent.spool import Spool
from cloister_workers.agent.training import Place
from cloister_workers.config import AgentConfig, load_agent
from cloister_workers.sandbox.launch import launch
from cloister_workers.sandbox.probe import SandboxLaunch, probe
from cloister_workers.sandbox.unit import launch_in_unit
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


def run(root: Path, endpoint: str | None, trainer_socket: Path | None = None, *, once: bool) -> int:
    """Work until told to stop; at `trainer_socket`, systemd makes the sandboxes.  Raises ConfigError, OSError."""
    config = load_agent(root, endpoint)
    check_certificate(config.certificate_pem, config.key_pem, datetime.now(UTC))
    stop = threading.Event()
    manager = ServiceManager(os.environ)

    def told(*_: object) -> None:
        stop.set()
        manager.stopping("handing the work back")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    way = renewed_channel(config)
    try:
        host = make_host(config, ControlPlane(way.stubs, time.sleep, manager.alive), trainer_socket)
        log_line({"event": "ready", "host": config.host_id, "sandboxed": host.sandboxed, "gpus": gpus()})
        manager.ready(f"host {config.host_id}, {gpus()} GPUs")
        recertification = Recertification(config.paths.agent, host.control.renew_certificate, log_line)
        between = recertification.look
        loop = Loop(
            host, gpus(), config.limits.poll_seconds, stop, random.random, manager.status, between, manager.alive
        )
        loop.run(once=once)
    finally:
        way.close()
    log_line({"event": "stopped"})
    return 0


def launcher_of(trainer_socket: Path | None) -> SandboxLaunch:
    """What starts a program in a sandbox on this host."""
    return launch if trainer_socket is None else partial(launch_in_unit, trainer_socket)


def make_host(config: AgentConfig, control: ControlPlane, trainer_socket: Path | None = None) -> Host:
    """Everything that jobs need of this host; removes what a crash left.  Raises ConfigError."""
    limits, paths = config.limits, config.paths
    cache = ModelCache(paths.cache)
    spool = Spool(paths.spool, limits.reserve_bytes, cache.make_room)
    if leftovers := spool.clear():
        log_line({"event": "leftovers_removed", "attempts": leftovers})
    cache.clear_partial()
    launcher = launcher_of(trainer_socket)
    found = probe(launcher)
    if not found.available and trainer_socket is not None:
        # Whoever gives a unit wants it: going on without walls would be no choice of theirs.
        raise ConfigError(f"the trainer's unit at {trainer_socket} is no sandbox: {found.reason}")
    if not found.available:
        log_line({"event": "no_sandbox", "reason": found.reason})
    place = Place(
        launch=launcher if found.available else launch_unsandboxed,
        scratch_bytes=limits.scratch_bytes,
        memory_bytes=limits.memory_bytes or None,
        file_bytes=limits.file_bytes,
        allow_gpu=gpus() > 0,
        threads=limits.threads,
    )
    return Host(
        control=control,
        keyagent=paths.socket,
        spool=spool,
        cache=cache,
        sandboxed=found.available,
        place=place,
        clock=steady_clock,
        log=log_line,
    )


def renewed_channel(config: AgentConfig) -> RenewedChannel:
    """A mutual-TLS channel with this host's key, which follows its certificate."""

    def make(pair: Pair) -> tuple[grpc.Channel, Stubs]:
        credentials = grpc.ssl_channel_credentials(config.ca_pem, pair.key_pem, pair.certificate_pem)
        made = grpc.secure_channel(config.endpoint, credentials, options=_CHANNEL_OPTIONS)
        return made, Stubs.on(made)

    first = Pair(config.certificate_pem, config.key_pem)
    return RenewedChannel(config.paths.agent, first, make, lambda: datetime.now(UTC), log_line)


def check_certificate(pem: bytes, key_pem: bytes, now: datetime) -> None:
    """Say what TLS would only refuse.  Raises ConfigError."""
    if fault := pair_fault(pem, key_pem, now):
        raise ConfigError(f"tls.crt: {fault}; or run 'cloister-worker install' again with the new welcome file")


def gpus() -> int:
    """NVIDIA devices of this host."""
    return sum(1 for name in os.listdir("/dev") if _GPU.fullmatch(name))  # noqa: PTH208
