# SPDX-License-Identifier: Apache-2.0
"""Puts a site together, serves it, and stops it in order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2_grpc  # type: ignore[import-untyped]

from cloister.api.v1 import (
    audit_pb2_grpc,
    blobs_pb2_grpc,
    datasets_pb2_grpc,
    enrolment_pb2_grpc,
    grants_pb2_grpc,
    identity_pb2_grpc,
    jobs_pb2_grpc,
    models_pb2_grpc,
    operations_pb2_grpc,
    workers_pb2_grpc,
)
from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Event, Subject
from cloister.evidence.errors import EvidenceError
from cloister.evidence.signatures import Statement
from cloister.sd_notify import ServiceManager
from cloister_audit.ledger import Ledger
from cloister_server.blocking import Blocking
from cloister_server.calls import SYSTEM
from cloister_server.config import Config
from cloister_server.database.engine import Database
from cloister_server.database.hints import Listener
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.enrolment_keys import EnrolmentKeys
from cloister_server.errors import ServerError, StartError
from cloister_server.heads import Heads
from cloister_server.health import Health
from cloister_server.interceptors import Gate
from cloister_server.issuing import Issuer
from cloister_server.journal import Journal
from cloister_server.log_key import read_log_signer
from cloister_server.metrics.exposition import exposed
from cloister_server.metrics.recorder import Recorder
from cloister_server.migrations.schema import require_usable
from cloister_server.notices.sender import Sender
from cloister_server.notices.setup import build_notices
from cloister_server.notifier import Notifier
from cloister_server.policy_table import ROLES
from cloister_server.queue import checkpoints, expiry
from cloister_server.recovery import reconcile
from cloister_server.rosters import Clock, Expected, Rosters
from cloister_server.services.audit import AuditService
from cloister_server.services.blobs import BlobService
from cloister_server.services.datasets import DatasetService
from cloister_server.services.enrolment import EnrolmentService
from cloister_server.services.grants import GrantService
from cloister_server.services.identity import IdentityService
from cloister_server.services.jobs import JobService
from cloister_server.services.models import ModelService
from cloister_server.services.operations import OperationsService
from cloister_server.services.workers import WorkerService
from cloister_server.site import Site
from cloister_server.store import Store
from cloister_server.tls import server_credentials
from cloister_server.uploads import Uploads
from cloister_server.watchdog import keep_alive

UNMANAGED = ServiceManager({})
MESSAGE_LIMIT = 4 << 20
MAX_CONCURRENT_CALLS = 256

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    # A certificate that the roster no longer pins falls off its connection within the hour.
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 600_000),
)


def wall_clock() -> int:
    """Unix seconds."""
    return int(time.time())


def wall_micros() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def build_site(config: Config, database: Database, journal: Journal, clock: Clock = wall_clock) -> Site:
    """Make the parts and load the roster.  Raises StartError, ServerError."""
    signer = read_log_signer(config)
    ledger = Ledger(wall_micros)
    metrics = Recorder()
    notices = build_notices(config, clock)
    store = Store(config.store_directory, config.reserve_bytes)
    unit_of_work = UnitOfWork(database, ledger, metrics, notices.outbox, store)
    expected = Expected(config.site, config.root_public, config.log_origin, signer.vkey)
    rosters = Rosters(unit_of_work, expected, clock)
    unit_of_work.read(require_usable)
    rosters.start(_first_roster(config))
    enrolment_keys = EnrolmentKeys(unit_of_work, clock)
    enrolment_keys.refresh()
    return Site(
        config=config,
        unit_of_work=unit_of_work,
        ledger=ledger,
        heads=Heads(unit_of_work, ledger, signer, wall_micros),
        rosters=rosters,
        enrolment_keys=enrolment_keys,
        issuer=Issuer.load(config),
        store=store,
        uploads=Uploads(unit_of_work, store),
        notifier=Notifier(),
        notices=notices,
        blocking=Blocking(config.pool_size),
        journal=journal,
        metrics=metrics,
        clock=clock,
    )


def _first_roster(config: Config) -> Statement:
    try:
        return Statement.from_bytes(config.roster_file.read_bytes())
    except (OSError, EvidenceError) as error:
        raise StartError(f"[site] roster_file cannot be used: {error}") from error


@contextlib.asynccontextmanager
async def running(site: Site, manager: ServiceManager = UNMANAGED) -> AsyncIterator[int]:
    """Serve the site inside this context; the value is the port.  `manager` hears how it goes."""
    site.notifier.start()
    site.notices.news.start()
    await site.blocking.run(_begin, site)
    services = tuple(sorted({method.split("/")[1] for method in ROLES}))
    health = Health(site, services, manager)
    await health.update()
    server = _grpc_server(site, health)
    port = server.add_secure_port(
        site.config.address, server_credentials(site.config, site.enrolment_keys, site.journal)
    )
    await server.start()
    _write_port(site.config.port_file, port)
    site.journal.write("info", "serving", address=site.config.address, port=port)
    hints = Listener(site.unit_of_work.database.reader, site.notifier.notify, site.journal)
    works = (_maintain(site, health), keep_alive(site, manager), *(sender.run() for sender in _senders(site)))
    tasks = [asyncio.create_task(work) for work in works]
    try:
        hints.start()
        async with exposed(site) as metrics_port:
            if metrics_port is not None:
                site.journal.write("info", "metrics", address=site.config.metrics_address, port=metrics_port)
            manager.ready(f"serving on port {port}")
            yield port
    finally:
        manager.stopping("finishing the open calls")
        await _stop(site, server, health, tasks)
        await asyncio.to_thread(hints.stop)


def _begin(site: Site) -> None:
    recovered = reconcile(site.unit_of_work, site.store, site.uploads)
    detail: dict[str, JSON] = {"recorded": recovered.recorded, "discarded": recovered.discarded}
    started = Event("site.start", SYSTEM, Subject("log", site.config.log_origin), detail=detail)
    site.unit_of_work.run("site.start", lambda tx: tx.record(started))
    site.unit_of_work.run("artifact.delete", checkpoints.discard_of_ended)


def _grpc_server(site: Site, health: Health) -> grpc.aio.Server:
    def stopping() -> bool:
        return site.notifier.stopping

    gate = Gate(
        site.unit_of_work,
        site.rosters,
        site.enrolment_keys,
        site.clock,
        site.blocking,
        site.journal,
        site.metrics,
        stopping,
    )
    server = grpc.aio.server(interceptors=[gate], options=_OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS)
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(IdentityService(site), server)
    enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(EnrolmentService(site), server)
    blobs_pb2_grpc.add_BlobServiceServicer_to_server(BlobService(site), server)
    datasets_pb2_grpc.add_DatasetServiceServicer_to_server(DatasetService(site), server)
    grants_pb2_grpc.add_GrantServiceServicer_to_server(GrantService(site), server)
    jobs_pb2_grpc.add_JobServiceServicer_to_server(JobService(site), server)
    models_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(site), server)
    workers_pb2_grpc.add_WorkerServiceServicer_to_server(WorkerService(site), server)
    operations_pb2_grpc.add_OperationsServiceServicer_to_server(OperationsService(site), server)
    audit_pb2_grpc.add_AuditServiceServicer_to_server(AuditService(site), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    return server


def _senders(site: Site) -> list[Sender]:
    """One for each target of `[notices]`."""
    notices = site.notices
    return [
        Sender(
            site.unit_of_work,
            site.blocking,
            site.journal,
            site.metrics,
            notices.outbox,
            target,
            notices.news,
            notices.pace,
        )
        for target in notices.targets
    ]


async def _maintain(site: Site, health: Health) -> None:
    """Sweep leases, follow the roster and look after health, until the server stops."""
    while True:
        await asyncio.sleep(site.config.sweep_seconds)
        try:
            ended = await site.blocking.run(site.unit_of_work.run, "sweep", expiry.sweep)
            if ended:
                site.notifier.notify()
            await site.blocking.run(site.rosters.refresh)
            await site.blocking.run(site.enrolment_keys.refresh)
            await health.update()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look must come: leases depend on it
            site.journal.failure("maintenance_failed", error)


async def _stop(site: Site, server: grpc.aio.Server, health: Health, tasks: list[asyncio.Task[None]]) -> None:
    """Drain, then say in the log that it was in order.

    (1) New calls are refused, and streams that wait end, both with SERVER_STOPPING, after which callers come back;
    (2) health says NOT_SERVING, so that who balances looks elsewhere; (3) open calls get their grace.
    """
    site.notifier.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await health.stop()
    await server.stop(site.config.stop_grace_seconds)
    subject = Subject("log", site.config.log_origin)
    try:
        await site.record("site.stop", lambda tx: tx.record(Event("site.stop", SYSTEM, subject)))
    except ServerError as error:
        site.journal.failure("stop_not_logged", error)
    site.blocking.close()
    site.journal.write("info", "stopped")


def _write_port(path: Path | None, port: int) -> None:
    if path is not None:
        partial = path.with_name(path.name + ".partial")
        partial.write_text(f"{port}\n", encoding="ascii")
        partial.replace(path)
