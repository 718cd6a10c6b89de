# SPDX-License-Identifier: Apache-2.0
"""Two workers, one job, over real mTLS: the one that lost its lease moves nothing any more."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from cloister.api.v1 import blobs_pb2, jobs_pb2, workers_pb2
from cloister_server.database import tables
from cloister_server.journal import Journal
from cloister_server.recovery import reconcile
from cloister_server.registry import objects
from served_site import Founded, ServedSite, refusal, served, sqlite_url
from site_objects import (
    Made,
    Signed,
    artifact,
    artifact_request,
    policy,
    publish_policy,
    push_dataset,
    push_model,
    sign_job,
    success,
    upload,
)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[ServedSite]:
    with served(Founded(tmp_path), sqlite_url(tmp_path), Journal(io.StringIO())) as site:
        yield site


@pytest.fixture
def job(live: ServedSite) -> Signed:
    """A job that host-1 has leased as attempt 1."""
    digest = publish_policy(live, policy(live.founded))
    signed = sign_job(live.founded, "alice", push_dataset(live, "alice"), push_model(live, "alice"), digest)
    live.caller("alice").jobs.CreateJob(signed.request(), timeout=30)
    assert 1 == lease(live, "host-1").job.attempt
    return signed


def lease(live: ServedSite, host: str) -> workers_pb2.LeaseWorkResponse:
    return live.caller(host).workers.LeaseWork(workers_pb2.LeaseWorkRequest(), timeout=30)


def run_out(live: ServedSite) -> None:
    """Every lease ends now."""
    with live.database.writer.begin() as connection:
        connection.execute(update(tables.job).values(lease_until=1))


def registered(live: ServedSite, host: str, job: Signed, attempt: int, kind: str = "export") -> Made:
    made, result = artifact(live.founded, host, job, attempt, kind)
    live.caller(host).workers.CreateArtifact(artifact_request(job, attempt, made, result), timeout=30)
    return made


def test_a_stale_worker_moves_nothing(live: ServedSite, job: Signed) -> None:
    """After another host took the job, every call of the first one for it is refused and leaves the job alone."""
    host = live.caller("host-1")
    half = registered(live, "host-1", job, 1)
    piece = blobs_pb2.WriteBlobRequest(object_id=half.id, offset=0, data=half.ciphertext[:10], attempt=1)
    host.blobs.WriteBlob(iter([piece]), timeout=30)
    run_out(live)
    assert (job.id, 2) == (lease(live, "host-2").job.job_id, 2)
    late, result = artifact(live.founded, "host-1", job, 1)
    failed = workers_pb2.FinishJobRequest(
        job_id=job.id, attempt=1, state=jobs_pb2.JOB_STATE_FAILED, error=jobs_pb2.JobError(code="late")
    )
    opening = workers_pb2.RequestOpeningRequest(work_id=job.id, attempt=1)
    beat = workers_pb2.HeartbeatRequest(work_id=job.id, attempt=1)
    report = workers_pb2.ReportEventsRequest(job_id=job.id, attempt=1)
    calls: list[Callable[[], object]] = [
        lambda: upload(host, half, attempt=1, start=10),
        lambda: host.workers.Heartbeat(beat, timeout=30),
        lambda: host.workers.RequestOpening(opening, timeout=30),
        lambda: host.workers.ReportEvents(report, timeout=30),
        lambda: host.workers.CreateArtifact(artifact_request(job, 1, late, result), timeout=30),
        lambda: host.workers.FinishJob(failed, timeout=30),
        lambda: host.workers.FinishJob(success(job, 1, half), timeout=30),
    ]
    assert ["LEASE_LOST"] * len(calls) == [refusal(call).reason for call in calls]
    read = blobs_pb2.ReadBlobRequest(object_id=job.authorisation.inputs()[-1].id)
    assert "NOT_FOUND" == refusal(lambda: host.blobs.ReadBlob(read, timeout=30)).reason
    assert b"".join(part.data for part in live.caller("host-2").blobs.ReadBlob(read, timeout=30))
    made = registered(live, "host-2", job, 2)
    assert upload(live.caller("host-2"), made, attempt=2).complete
    done = live.caller("host-2").workers.FinishJob(success(job, 2, made), timeout=30)
    assert jobs_pb2.JOB_STATE_SUCCEEDED == done.state


def test_a_host_reads_only_what_its_lease_grants(live: ServedSite, job: Signed) -> None:
    """With a lease a host reads the job's inputs, and no other object of the same team."""
    other = push_dataset(live, "alice")
    wanted = [job.authorisation.inputs()[-1].id, job.authorisation.model.id]
    host = live.caller("host-1")
    for object_id in wanted:
        assert list(host.blobs.ReadBlob(blobs_pb2.ReadBlobRequest(object_id=object_id), timeout=30))
    read = blobs_pb2.ReadBlobRequest(object_id=other.id)
    assert "NOT_FOUND" == refusal(lambda: host.blobs.ReadBlob(read, timeout=30)).reason


def test_a_host_uploads_only_its_own_artifacts(live: ServedSite, job: Signed) -> None:
    """Another host's artifact is NOT_FOUND, even with the attempt that holds the lease."""
    made = registered(live, "host-1", job, 1)
    assert "NOT_FOUND" == refusal(lambda: upload(live.caller("host-2"), made, attempt=1)).reason
    assert "INVALID_FIELD" == refusal(lambda: upload(live.caller("host-1"), made, attempt=2)).reason


def test_recovery_does_not_finish_for_a_worker_that_lost_its_lease(live: ServedSite, job: Signed) -> None:
    """A result that was renamed before a crash is discarded at the start when its lease is gone."""
    made = registered(live, "host-1", job, 1, "state")
    with live.database.reader.connect() as connection:
        row = objects.find(connection, made.id)
    assert row is not None
    live.site.store.append(objects.declared(row), 0, made.ciphertext, sync=True)
    live.site.store.complete(objects.declared(row))
    run_out(live)
    assert 0 == reconcile(live.site.unit_of_work, live.site.store, live.site.uploads).recorded
    assert not live.site.store.is_complete(objects.declared(row))
    assert [] == live.entries(action="artifact.ready", object_id=made.id)


def test_recovery_leaves_what_another_control_plane_has_recorded(live: ServedSite, job: Signed) -> None:
    """A blob that is READY by the time a start comes to it stays, also when its job has ended meanwhile."""
    made = registered(live, "host-1", job, 1)
    with live.database.reader.connect() as connection:
        listed = objects.find(connection, made.id)
    assert listed is not None
    assert upload(live.caller("host-1"), made, attempt=1).complete
    live.caller("host-1").workers.FinishJob(success(job, 1, made), timeout=30)
    assert live.site.uploads.recover(listed)
    assert 1 == len(live.entries(action="artifact.ready", object_id=made.id))


def test_a_worker_waits_for_work_and_gets_it_at_once(live: ServedSite, job: Signed) -> None:
    """A host that waits is woken by a submission."""
    digest = publish_policy(live, policy(live.founded))
    waiting = live.caller("host-2").workers.LeaseWork.future(workers_pb2.LeaseWorkRequest(wait_seconds=30), timeout=60)
    signed = sign_job(live.founded, "alice", push_dataset(live, "alice"), push_model(live, "alice"), digest)
    live.caller("alice").jobs.CreateJob(signed.request(), timeout=30)
    assert signed.id == waiting.result().job.job_id
