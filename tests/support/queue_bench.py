# SPDX-License-Identifier: Apache-2.0
"""The queue without gRPC: domain functions on a real database, called as the services call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, func, select, update

from cloister.api.v1 import datasets_pb2, jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.entry import Entry
from cloister.evidence.signatures import Statement
from cloister.wire import sealed_to_proto, statement_to_proto
from cloister_audit import query
from cloister_audit.ledger import Ledger
from cloister_server.calls import Call, Principal
from cloister_server.database import tables
from cloister_server.database.engine import Database, now_ms
from cloister_server.database.rows import JobRow, ReleaseRow
from cloister_server.database.unit_of_work import Outbox, Transaction, UnitOfWork
from cloister_server.queue import (
    artifacts,
    expiry,
    finish,
    heartbeat,
    jobs,
    lease,
    openings,
    pausing,
    reports,
    submit,
    views,
)
from cloister_server.registry import datasets, objects, policies, releases, versions
from served_site import HOSTS, MEMBERS, POOL, Founded
from site_objects import Made, Signed, artifact, artifact_request, owned, policy, release_request, sign_job, success

T = TypeVar("T")
LEASE_SECONDS = 60


class Bench:
    """A site's queue, its people and hosts."""

    def __init__(self, founded: Founded, database: Database, outbox: Outbox | None = None) -> None:
        self.founded = founded
        self.database = database
        self.unit_of_work = UnitOfWork(database, Ledger(lambda: founded.now * 1_000_000), outbox=outbox)
        self.policy = policy(founded)
        self.run("dana", lambda tx, call: policies.publish(tx, call, self.policy, founded.roster, founded.now))
        self.models = {team: self._ready(owner, "model") for team, owner in (("blue", "alice"), ("green", "gina"))}
        self.rows = {team: self._ready(owner, "dataset") for team, owner in (("blue", "alice"), ("green", "gina"))}

    def call(self, name: str) -> Call:
        """A call by a person or host."""
        if name in HOSTS:
            principal = Principal(name, "host", "", POOL, frozenset({"worker"}), "", "")
        else:
            team, roles = MEMBERS[name]
            principal = Principal(name, "person", team, "", frozenset(roles), "", "")

        async def recheck() -> None:
            return None

        return Call("/test/Method", "corr", principal, recheck)

    def run(self, name: str, work: Callable[[Transaction, Call], T]) -> T:
        call = self.call(name)
        return self.unit_of_work.run("test", lambda tx: work(tx, call))

    def look(self, work: Callable[[Connection], T]) -> T:
        return self.unit_of_work.read(work)

    def _ready(self, owner: str, kind: str) -> Made:
        made = owned(self.founded, owner, kind)
        self.create(owner, made)
        self.set_ready(made)
        return made

    def create(self, owner: str, made: Made) -> None:
        sealed, wraps = sealed_to_proto(made.sealed), made.wrap_messages()
        roster, now = self.founded.roster, self.founded.now
        if made.manifest.kind == "model":
            model = models_pb2.CreateModelVersionRequest(sealed=sealed, wraps=wraps)
            self.run(owner, lambda tx, call: versions.create(tx, call, model, roster, now))
        else:
            dataset = datasets_pb2.CreateDatasetRequest(sealed=sealed, wraps=wraps)
            self.run(owner, lambda tx, call: datasets.create(tx, call, dataset, roster, now))

    def set_ready(self, made: Made) -> None:
        """As if the blob had been uploaded."""
        self.unit_of_work.run("test", lambda tx: objects.set_state(tx.connection, made.id, objects.READY))

    def signed(self, member: str = "alice", **changes: object) -> Signed:
        team = MEMBERS[member][0]
        return sign_job(self.founded, member, self.rows[team], self.models[team], self.policy.digest, **changes)

    def submit(self, signed: Signed) -> jobs_pb2.Job:
        roster, now = self.founded.roster, self.founded.now
        member = signed.authorisation.member
        return self.run(member, lambda tx, call: submit.submit(tx, call, signed.request(), roster, now))

    def queued(self, member: str = "alice", **changes: object) -> Signed:
        """A submitted job."""
        signed = self.signed(member, **changes)
        self.submit(signed)
        return signed

    def lease(self, host: str = "host-1") -> JobRow | ReleaseRow | None:
        roster = self.founded.roster
        return self.run(host, lambda tx, call: lease.take(tx, call, roster, LEASE_SECONDS))

    def leased_job(self, host: str = "host-1") -> JobRow:
        taken = self.lease(host)
        assert isinstance(taken, JobRow)
        return taken

    def heartbeat(self, work_id: str, attempt: int, host: str = "host-1") -> workers_pb2.Directive.ValueType:
        return self.run(host, lambda tx, call: heartbeat.keep(tx, call, work_id, attempt, LEASE_SECONDS))

    def open(self, work_id: str, attempt: int, host: str = "host-1") -> int:
        self.run(host, lambda tx, call: openings.request(tx, call, work_id, attempt))
        return self.look(lambda connection: openings.position(connection, work_id, attempt))

    def report(self, job_id: str, attempt: int, *events: workers_pb2.WorkerEvent, host: str = "host-1") -> None:
        request = workers_pb2.ReportEventsRequest(job_id=job_id, attempt=attempt, events=events)
        self.run(host, lambda tx, call: reports.report(tx, call, request))

    def artifact(
        self, signed: Signed, attempt: int, kind: str = "export", host: str = "host-1", step: int = 10
    ) -> Made:
        """A registered and uploaded artifact."""
        made, _ = self.artifact_with_result(signed, attempt, kind, host, step)
        return made

    def artifact_with_result(
        self, signed: Signed, attempt: int, kind: str = "export", host: str = "host-1", step: int = 10
    ) -> tuple[Made, Statement]:
        made, result = artifact(self.founded, host, signed, attempt, kind, step=step)
        request = artifact_request(signed, attempt, made, result, step=step)
        self.create_artifact(request, host)
        self.set_ready(made)
        return made, result

    def create_artifact(self, request: workers_pb2.CreateArtifactRequest, host: str = "host-1") -> str:
        roster, now = self.founded.roster, self.founded.now
        return self.run(host, lambda tx, call: artifacts.create(tx, call, request, roster, now))

    def finish(self, request: workers_pb2.FinishJobRequest, host: str = "host-1") -> jobs_pb2.JobState.ValueType:
        return self.run(host, lambda tx, call: finish.finish(tx, call, request))

    def succeed(self, signed: Signed, attempt: int, host: str = "host-1") -> jobs_pb2.JobState.ValueType:
        made = self.artifact(signed, attempt, host=host)
        return self.finish(success(signed, attempt, made), host)

    def end(
        self, job_id: str, attempt: int, state: jobs_pb2.JobState.ValueType, code: str = "", host: str = "host-1"
    ) -> jobs_pb2.JobState.ValueType:
        request = workers_pb2.FinishJobRequest(
            job_id=job_id, attempt=attempt, state=state, error=jobs_pb2.JobError(code=code)
        )
        return self.finish(request, host)

    def released(self, signed: Signed, made: Made, result: Statement) -> Statement:
        """A release that waits for a host."""
        asked = release_request(self.founded, "alice", signed, made, result, "alice")
        request = models_pb2.CreateReleaseRequest(request=statement_to_proto(asked))
        roster, now = self.founded.roster, self.founded.now
        self.run("alice", lambda tx, call: releases.create(tx, call, request, roster, now))
        return asked

    def finish_release(
        self, request: workers_pb2.FinishReleaseRequest, host: str = "host-1"
    ) -> models_pb2.ReleaseState.ValueType:
        roster, now = self.founded.roster, self.founded.now
        return self.run(host, lambda tx, call: releases.finish(tx, call, request, roster, now))

    def cancel(self, job_id: str, name: str = "alice") -> jobs_pb2.Job:
        return self.run(name, lambda tx, call: jobs.cancel(tx, call, job_id))

    def pause(self, job_id: str, name: str = "alice") -> jobs_pb2.Job:
        return self.run(name, lambda tx, call: pausing.pause(tx, call, job_id))

    def resume(self, job_id: str, name: str = "alice") -> jobs_pb2.Job:
        return self.run(name, lambda tx, call: pausing.resume(tx, call, job_id))

    def run_out(self, job_id: str) -> None:
        """Let the lease end now."""

        def work(tx: Transaction) -> None:
            until = now_ms(tx.connection)
            tx.connection.execute(update(tables.job).where(tables.job.c.id == job_id).values(lease_until=until))

        self.unit_of_work.run("test", work)

    def sweep(self) -> int:
        return self.unit_of_work.run("test", expiry.sweep)

    def job(self, job_id: str) -> jobs_pb2.Job:
        def read(connection: Connection) -> jobs_pb2.Job:
            row = views.find(connection, job_id)
            assert row is not None
            return views.message(connection, row)

        return self.look(read)

    def event_seqs(self, job_id: str) -> list[int]:
        table = tables.job_event
        chosen = select(table.c.seq).where(table.c.job_id == job_id).order_by(table.c.seq)
        return self.look(lambda connection: list(connection.execute(chosen).scalars()))

    def count(self, table_name: str) -> int:
        table = tables.metadata.tables[table_name]
        counted = select(func.count()).select_from(table)
        return self.look(lambda connection: int(connection.execute(counted).scalar_one()))

    def entries(self, action: str = "", object_id: str = "") -> list[Entry]:
        wanted = query.Filter(action=action, object_id=object_id)
        return [
            Entry.parse(body) for _, body in self.look(lambda connection: query.entries(connection, wanted, -1, 10_000))
        ]
