# SPDX-License-Identifier: Apache-2.0
"""The main job as the control plane sees it, from the push to the release."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.api.v1 import audit_pb2, blobs_pb2, identity_pb2, jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.log import verify_log
from cloister.evidence.manifest import SealedObject
from cloister.evidence.note import NoteVerifier
from cloister.evidence.opening import JobOpening, ReleaseOpening, Resume, verify_job_opening, verify_release_opening
from cloister.evidence.signatures import Statement
from cloister.wire import evidence_from_proto, sealed_from_proto, statement_from_proto, statement_to_proto
from cloister_server.journal import Journal
from postgres_roles import with_roles
from postgres_server import PostgresServer
from served_site import Caller, Founded, ServedSite, served, sqlite_url
from site_objects import (
    Made,
    Signed,
    artifact,
    artifact_request,
    grant,
    policy,
    publish_policy,
    push_dataset,
    push_model,
    release_request,
    sign_job,
    success,
    upload,
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "application role"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    directory: Path = tmp_path_factory.mktemp("site")
    if request.param == "sqlite":
        url = sqlite_url(directory)
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.create_database()
    restricted = request.param == "application role"
    if restricted:
        url = with_roles(url).application
    with served(Founded(directory), url, Journal(io.StringIO()), migrate=not restricted) as site:
        yield site


def lease(host: Caller) -> workers_pb2.LeaseWorkResponse:
    return host.workers.LeaseWork(workers_pb2.LeaseWorkRequest(wait_seconds=0), timeout=30)


def opened_job(live: ServedSite, host: str, job: workers_pb2.JobLease) -> None:
    """The key agent's own check, on what the control plane hands over."""
    answer = live.caller(host).workers.RequestOpening(
        workers_pb2.RequestOpeningRequest(work_id=job.job_id, attempt=job.attempt), timeout=30
    )
    objects: list[SealedObject] = [sealed_from_proto(g.sealed) for g in (job.model, job.training)]
    resume = None
    if job.HasField("resume"):
        resume = Resume(sealed_from_proto(job.resume.object.sealed), statement_from_proto(job.resume.result))
    opening = JobOpening(
        authorisation=statement_from_proto(job.authorisation),
        spec=job.spec,
        policy=statement_from_proto(job.policy),
        attempt=job.attempt,
        objects=tuple(objects),
        resume=resume,
        evidence=evidence_from_proto(answer),
    )
    verify_job_opening(opening, live.founded.roster, None, host_id=host, now=live.founded.now)


def report(host: Caller, job_id: str, attempt: int, *events: workers_pb2.WorkerEvent) -> None:
    host.workers.ReportEvents(
        workers_pb2.ReportEventsRequest(job_id=job_id, attempt=attempt, events=events), timeout=30
    )


def step_event(seq: int, name: str, status: str) -> workers_pb2.WorkerEvent:
    step = jobs_pb2.JobStep(name=name, status=status)
    return workers_pb2.WorkerEvent(stream_seq=seq, type="step", level="info", step=step)


def _release(live: ServedSite, signed: Signed, made: Made, result: Statement) -> None:
    """From the request to the blob in the recipient's hands."""
    alice, host = live.caller("alice"), live.caller("host-1")
    asked = release_request(live.founded, "alice", signed, made, result, "alice")
    alice.models.CreateRelease(models_pb2.CreateReleaseRequest(request=statement_to_proto(asked)), timeout=30)
    work = lease(host).release
    answer = host.workers.RequestOpening(
        workers_pb2.RequestOpeningRequest(work_id=work.release_id, attempt=work.attempt), timeout=30
    )
    opening = ReleaseOpening(
        request=statement_from_proto(work.request),
        approvals=(),
        policy=statement_from_proto(work.policy),
        result=statement_from_proto(work.result),
        authorisation=statement_from_proto(work.authorisation),
        object=sealed_from_proto(work.object.sealed),
        attempt=work.attempt,
        evidence=evidence_from_proto(answer),
    )
    verify_release_opening(opening, live.founded.roster, None, host_id="host-1", now=live.founded.now)
    host.workers.FinishRelease(grant(live.founded, "host-1", work), timeout=30)
    pulled = alice.models.GetRelease(models_pb2.GetReleaseRequest(id=work.release_id), timeout=30).release
    assert (models_pb2.RELEASE_STATE_GRANTED, 1168) == (pulled.state, len(pulled.wrap.wrap))
    read = alice.blobs.ReadBlob(blobs_pb2.ReadBlobRequest(object_id=made.id), timeout=30)
    assert made.ciphertext == b"".join(part.data for part in read)


def test_the_main_path_from_push_to_release(live: ServedSite) -> None:
    """A pushed dataset becomes a released version, and the exported log proves every step."""
    alice, host, carol = live.caller("alice"), live.caller("host-1"), live.caller("carol")
    digest = publish_policy(live, policy(live.founded))
    training, model = push_dataset(live, "alice", size=300_000), push_model(live, "alice")
    signed = sign_job(live.founded, "alice", training, model, digest)
    created = alice.jobs.CreateJob(signed.request(), timeout=30).job
    assert (jobs_pb2.JOB_STATE_QUEUED, 0) == (created.state, created.attempt)

    job = lease(host).job
    assert (signed.id, 1) == (job.job_id, job.attempt)
    opened_job(live, "host-1", job)
    blob = b"".join(
        part.data for part in host.blobs.ReadBlob(blobs_pb2.ReadBlobRequest(object_id=training.id), timeout=30)
    )
    assert training.ciphertext == blob
    report(host, signed.id, 1, step_event(1, "validate", "started"), step_event(2, "validate", "finished"))
    progress = workers_pb2.WorkerEvent(
        stream_seq=3,
        type="progress",
        level="info",
        progress=jobs_pb2.Progress(label="train", current=5, total=10, metrics={"train_loss": 0.5}),
    )
    report(host, signed.id, 1, step_event(2, "validate", "finished"), progress)
    made, result = artifact(live.founded, "host-1", signed, 1)
    host.workers.CreateArtifact(artifact_request(signed, 1, made, result), timeout=30)
    assert upload(host, made, attempt=1).complete
    finished = host.workers.FinishJob(success(signed, 1, made), timeout=30)
    again = host.workers.FinishJob(success(signed, 1, made), timeout=30)
    assert jobs_pb2.JOB_STATE_SUCCEEDED == finished.state == again.state

    watched = list(alice.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=signed.id), timeout=30))
    assert list(range(1, len(watched))) == [m.event.seq for m in watched[:-1]]
    terminal = watched[-1].terminal
    assert (signed.id, 50.0, 1234) == (terminal.fine_tuned_model, terminal.progress.percent, terminal.trained_tokens)
    version = alice.models.GetModelVersion(models_pb2.GetModelVersionRequest(id="helpdesk"), timeout=30).version
    assert (signed.id, model.id, {"eval_accuracy": 0.9}) == (
        version.id,
        version.base,
        dict(version.dossier.metrics_after),
    )

    _release(live, signed, made, result)
    export = list(carol.audit.ExportLog(audit_pb2.ExportLogRequest(), timeout=30))
    verdict = verify_log(
        [part.entry for part in export[1:]], export[0].checkpoint, NoteVerifier.parse(live.founded.roster.log_vkey)
    )
    assert ((), 1, 1) == (verdict.unfinished, verdict.actions["job.open"], verdict.actions["release.end"])


def test_who_am_i_names_the_caller_and_the_transport(live: ServedSite) -> None:
    """The control plane sees a member with the team and roles of the roster, over TLS 1.3."""
    answer = live.caller("alice").identity.WhoAmI(identity_pb2.WhoAmIRequest(), timeout=30)
    assert ("alice", "blue", ["member"]) == (answer.id, answer.team, list(answer.roles))
    assert "TLSv1.3" in answer.transport
