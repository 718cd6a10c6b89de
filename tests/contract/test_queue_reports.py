# SPDX-License-Identifier: Apache-2.0
"""Reports and figures of de-biasing jobs, and exceptions to their gate, on SQLite and on PostgreSQL."""

from dataclasses import replace

import pytest

from cloister.api.v1 import jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.entry import Entry
from cloister.evidence.release import Approval, Release
from cloister.evidence.result import Result
from cloister.evidence.signatures import Statement
from cloister.wire import statement_from_proto, statement_to_proto
from cloister_server.database.rows import ReleaseRow
from cloister_server.errors import (
    BlobIncompleteError,
    EvidenceRejectedError,
    InvalidFieldError,
    LeaseLostError,
    NotFoundError,
    PolicyNotMetError,
)
from cloister_server.queue import debias, handover
from cloister_server.registry import access, release_views, releases
from debias_job import METHOD, sha256
from debias_site import Found, found, report_of, report_request
from queue_bench import Bench
from served_site import Founded
from site_objects import Made, Signed, approval, artifact, artifact_request, grant, release_request, success


@pytest.fixture
def job(bench: Bench) -> Signed:
    """A de-biasing job of alice that host-1 has leased as attempt 1."""
    signed = bench.queued(method=METHOD)
    bench.leased_job()
    return signed


def stored(bench: Bench, job: Signed, verdict: str = "FAIL", attempt: int = 1) -> Found:
    """Report and export of an attempt, registered and uploaded."""
    made = found(bench.founded, "host-1", job, attempt, verdict)
    for request, sealed in ((made.report_request, made.report), (made.export_request, made.export)):
        bench.create_artifact(request)
        bench.set_ready(sealed)
    return made


def finished(bench: Bench, job: Signed, verdict: str = "FAIL") -> Found:
    """A job that has succeeded, whatever its gate says."""
    made = stored(bench, job, verdict)
    assert bench.finish(success(job, 1, made.export)) == jobs_pb2.JOB_STATE_SUCCEEDED
    return made


def read(bench: Bench, name: str, job_id: str) -> jobs_pb2.GetJobReportResponse:
    return bench.run(name, lambda tx, call: debias.get(tx, call, job_id))


# ---------------------------------------------------------------- reading
def test_a_member_gets_report_and_figures(bench: Bench, job: Signed) -> None:
    """Members of the team get the sealed report, its wraps, the figures and the signed result that binds them."""
    made = finished(bench, job)
    for name in ("alice", "erin"):
        answer = read(bench, name, job.id)
        assert answer.figures == made.figures
        assert statement_from_proto(answer.result) == made.result
        assert (answer.object_id, answer.size) == (made.report.id, len(made.report.ciphertext))
        assert answer.sealed.manifest == made.report.sealed.manifest
        assert {wrap.recipient_key_id: wrap.wrap for wrap in answer.wraps} == made.report.wraps


def test_an_auditor_gets_the_figures_alone(bench: Bench, job: Signed) -> None:
    """An auditor of another team reads the numbers and the result, and no trace of the sealed report."""
    made = finished(bench, job)
    answer = read(bench, "carol", job.id)
    assert (answer.figures, answer.result.payload) == (made.figures, made.result.payload)
    assert not answer.HasField("sealed")
    assert (answer.object_id, answer.size, list(answer.wraps)) == ("", 0, [])
    assert made.report.id.encode() not in answer.SerializeToString()


@pytest.mark.parametrize("name", ["gina", "gabe", "dana"])
def test_nobody_else_learns_that_there_is_a_report(bench: Bench, job: Signed, name: str) -> None:
    """To people of another team the job does not exist."""
    finished(bench, job)
    with pytest.raises(NotFoundError, match="no such job"):
        read(bench, name, job.id)


def test_reading_leaves_an_entry(bench: Bench, job: Signed) -> None:
    """Each reading is in the log, with whether the sealed report went along."""
    finished(bench, job)
    read(bench, "alice", job.id)
    read(bench, "carol", job.id)
    entries: list[Entry] = bench.entries("report.read", job.id)
    seen = [(entry.event.actor.id, entry.event.detail["sealed"]) for entry in entries]
    assert seen == [("alice", True), ("carol", False)]


def test_a_job_without_a_report_has_none(bench: Bench) -> None:
    """A job of another kind, and one that has not ended, have no report to read."""
    plain = bench.queued()
    bench.leased_job()
    with pytest.raises(NotFoundError, match="no such report"):
        read(bench, "alice", plain.id)
    bench.succeed(plain, 1)
    with pytest.raises(NotFoundError, match="no such report"):
        read(bench, "alice", plain.id)


def test_the_blob_of_a_report_is_its_teams(bench: Bench, job: Signed) -> None:
    """Members read the ciphertext without a release; other teams and hosts do not."""
    made = finished(bench, job)
    for name in ("alice", "erin"):
        assert readable(bench, name, made.report) == ("artifact", made.report.id)
    for name in ("gina", "carol", "host-1", "host-2"):
        with pytest.raises(NotFoundError):
            readable(bench, name, made.report)
    with pytest.raises(NotFoundError):
        readable(bench, "alice", made.export)


def readable(bench: Bench, name: str, made: Made) -> tuple[str, str]:
    """What the log calls an object whose blob somebody may read, and its id."""
    call = bench.call(name)
    row = bench.look(lambda connection: access.readable(connection, call, made.id))
    return call.subject.type, row.id


# ---------------------------------------------------------------- registering
def test_a_job_ends_only_with_the_report_that_its_result_binds(bench: Bench, job: Signed) -> None:
    """A success whose report is missing, or not whole in the store, is not taken; with it, it is."""
    made = found(bench.founded, "host-1", job)
    bench.create_artifact(made.export_request)
    bench.set_ready(made.export)
    with pytest.raises(BlobIncompleteError, match="report"):
        bench.finish(success(job, 1, made.export))
    bench.create_artifact(made.report_request)
    with pytest.raises(BlobIncompleteError, match="report"):
        bench.finish(success(job, 1, made.export))
    bench.set_ready(made.report)
    assert bench.finish(success(job, 1, made.export)) == jobs_pb2.JOB_STATE_SUCCEEDED


def test_registering_twice_is_once(bench: Bench, job: Signed) -> None:
    """A worker whose answers were lost sends report and export again; nothing is doubled."""
    made = stored(bench, job)
    bench.create_artifact(made.report_request)
    bench.create_artifact(made.export_request)
    assert len(bench.entries("artifact.create", made.report.id)) == 1
    assert bench.finish(success(job, 1, made.export)) == jobs_pb2.JOB_STATE_SUCCEEDED
    assert read(bench, "alice", job.id).figures == made.figures


def recipients(founded: Founded, case: str) -> list[str]:
    alice, recovery = founded.people["alice"].key_id, founded.recovery["blue"].recipient.key_id
    return {
        "host": [alice, recovery, founded.hosts["host-1"].key_id],
        "colleague": [alice, recovery, founded.people["erin"].key_id],
        "stranger": [alice, recovery, founded.people["gina"].key_id],
        "no recovery": [alice],
        "other recovery": [alice, founded.recovery["green"].recipient.key_id],
    }[case]


@pytest.mark.parametrize("case", ["host", "colleague", "stranger", "no recovery", "other recovery"])
def test_a_report_has_its_two_recipients(bench: Bench, job: Signed, case: str) -> None:
    """A report for anybody but the member who signed and their team's recovery key is not registered."""
    made = report_of(bench.founded, "host-1", job, recipients=recipients(bench.founded, case))
    with pytest.raises(EvidenceRejectedError, match="recipients"):
        bench.create_artifact(report_request(job, 1, made))


def test_a_report_is_written_under_its_lease(bench: Bench, job: Signed) -> None:
    """A report of another host, attempt or job is not registered."""
    other_host = report_request(job, 1, report_of(bench.founded, "host-2", job))
    with pytest.raises(EvidenceRejectedError, match="host"):
        bench.create_artifact(other_host)
    with pytest.raises(LeaseLostError):
        bench.create_artifact(other_host, "host-2")
    other_attempt = report_request(job, 1, report_of(bench.founded, "host-1", job, attempt=2))
    with pytest.raises(EvidenceRejectedError, match="place"):
        bench.create_artifact(other_attempt)
    export, _ = artifact(bench.founded, "host-1", job, 1)
    with pytest.raises(EvidenceRejectedError, match="kind"):
        bench.create_artifact(report_request(job, 1, export))


def test_a_report_brings_nothing_else(bench: Bench, job: Signed) -> None:
    """A report with a result or figures of its own is refused: the export's result binds both."""
    made = found(bench.founded, "host-1", job)
    for name in ("result", "figures"):
        request = workers_pb2.CreateArtifactRequest()
        request.CopyFrom(made.report_request)
        if name == "result":
            request.result.CopyFrom(statement_to_proto(made.result))
        else:
            request.figures = made.figures
        with pytest.raises(InvalidFieldError):
            bench.create_artifact(request)


def test_figures_are_those_that_the_result_binds(bench: Bench, job: Signed) -> None:
    """Other figures than the signed ones, none at all, and figures that nothing binds are refused."""
    made = found(bench.founded, "host-1", job)
    better = made.figures.replace(b'"verdicts":["FAIL"]', b'"verdicts":["PASS"]')
    for figures in (better, b""):
        made.export_request.figures = figures
        with pytest.raises(EvidenceRejectedError, match="figures"):
            bench.create_artifact(made.export_request)
    plain, result = artifact(bench.founded, "host-1", job, 1)
    unbound = artifact_request(job, 1, plain, result)
    unbound.figures = made.figures
    with pytest.raises(InvalidFieldError, match="binds none"):
        bench.create_artifact(unbound)


def test_figures_hold_no_words(bench: Bench, job: Signed) -> None:
    """Figures with a word of their own are refused even where a host has signed for them."""
    made = found(bench.founded, "host-1", job)
    talking = made.figures.replace(b'"kind":"measure"', b'"kind":"CANARY!"')
    result = replace(Result.parse(made.result.payload), figures_sha256=sha256(talking))
    signed = result.sign(bench.founded.hosts["host-1"].signing)
    made.export_request.result.CopyFrom(statement_to_proto(signed))
    made.export_request.figures = talking
    with pytest.raises(EvidenceRejectedError):
        bench.create_artifact(made.export_request)


def test_only_the_report_that_is_bound_is_read(bench: Bench, job: Signed) -> None:
    """The report of an earlier attempt, which no result binds, is never handed out."""
    earlier = report_of(bench.founded, "host-1", job)
    bench.create_artifact(report_request(job, 1, earlier))
    bench.set_ready(earlier)
    bench.run_out(job.id)
    bench.leased_job()
    made = stored(bench, job, attempt=2)
    bench.finish(success(job, 2, made.export))
    assert read(bench, "alice", job.id).object_id == made.report.id


# ---------------------------------------------------------------- releasing
def ask(bench: Bench, job: Signed, made: Found, *, exception: bool) -> models_pb2.Release:
    asked = release_request(bench.founded, "alice", job, made.export, made.result, "alice", exception=exception)
    request = models_pb2.CreateReleaseRequest(request=statement_to_proto(asked))
    roster, now = bench.founded.roster, bench.founded.now
    return bench.run("alice", lambda tx, call: releases.create(tx, call, request, roster, now))


def approve(bench: Bench, release: models_pb2.Release, statement: Statement) -> models_pb2.Release:
    roster, now = bench.founded.roster, bench.founded.now
    return bench.run("bob", lambda tx, call: releases.approve(tx, call, release.id, statement, roster, now))


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE"])
def test_a_version_that_did_not_pass_is_not_even_asked_for(bench: Bench, job: Signed, verdict: str) -> None:
    """A plain request for a version whose gate was not passed is refused, with the verdict as the rule."""
    made = finished(bench, job, verdict)
    with pytest.raises(PolicyNotMetError, match=verdict) as refused:
        ask(bench, job, made, exception=False)
    assert refused.value.metadata["rule"] == "debias_verdict"


def test_a_version_that_passed_is_released_by_itself(bench: Bench, job: Signed) -> None:
    """Under an automatic policy a passed gate needs nobody."""
    release = ask(bench, job, finished(bench, job, "PASS"), exception=False)
    assert (release.state, release.exception) == (models_pb2.RELEASE_STATE_QUEUED, False)
    assert release.approvals_required == 0


def test_an_exception_waits_for_an_approval(bench: Bench, job: Signed) -> None:
    """Even under an automatic policy an exception is PENDING until an approver signs for it; then a host carries it
    out, and every entry on the way says what it was.
    """
    release = ask(bench, job, finished(bench, job), exception=True)
    assert (release.state, release.exception) == (models_pb2.RELEASE_STATE_PENDING, True)
    assert release.approvals_required == 1
    assert bench.lease("host-1") is None
    given = approval(bench.founded, "bob", statement_from_proto(release.request))
    assert approve(bench, release, given).state == models_pb2.RELEASE_STATE_QUEUED
    taken = bench.lease("host-1")
    assert isinstance(taken, ReleaseRow)
    leased = bench.look(lambda c: handover.release_lease(c, taken, bench.founded.roster))
    granted = grant(bench.founded, "host-1", leased)
    assert bench.finish_release(granted) == models_pb2.RELEASE_STATE_GRANTED
    for action in ("release.request", "release.approve", "release.end"):
        assert [entry.event.detail["exception"] for entry in bench.entries(action, release.id)] == [True]
    assert bench.run("carol", lambda tx, call: release_views.get(tx, call, release.id)).exception


def test_a_plain_approval_does_not_count_for_an_exception(bench: Bench, job: Signed) -> None:
    """An approval that does not say that it approves an exception is refused, and the release goes on waiting."""
    release = ask(bench, job, finished(bench, job), exception=True)
    request = statement_from_proto(release.request)
    with pytest.raises(EvidenceRejectedError, match="exception"):
        approve(bench, release, unmarked(bench.founded, request))
    assert bench.lease("host-1") is None


def unmarked(founded: Founded, request: Statement) -> Statement:
    """An approval of bob's that does not mention the exception."""
    given = Approval.parse(approval(founded, "bob", request).payload)
    return replace(given, exception=False).sign(founded.people["bob"].signing)


def test_a_host_says_whether_it_was_an_exception(bench: Bench, job: Signed) -> None:
    """A statement that passes an exception off as a plain release is not taken."""
    release = ask(bench, job, finished(bench, job), exception=True)
    approve(bench, release, approval(bench.founded, "bob", statement_from_proto(release.request)))
    taken = bench.lease("host-1")
    assert isinstance(taken, ReleaseRow)
    leased = bench.look(lambda c: handover.release_lease(c, taken, bench.founded.roster))
    granted = grant(bench.founded, "host-1", leased)
    plain = replace(Release.parse(granted.statement.payload), exception=False)
    granted.statement.CopyFrom(statement_to_proto(plain.sign(bench.founded.hosts["host-1"].signing)))
    with pytest.raises(EvidenceRejectedError, match="exception"):
        bench.finish_release(granted)


def test_the_stages_of_a_de_biasing_job_are_recorded(bench: Bench, job: Signed) -> None:
    """The stages mitigate and judge are among those that a worker may report."""
    for number, name in enumerate(("mitigate", "judge"), start=1):
        step = jobs_pb2.JobStep(name=name, status="started")
        bench.report(job.id, 1, workers_pb2.WorkerEvent(stream_seq=number, type="step", level="info", step=step))
    assert {"mitigate", "judge"} <= {step.name for step in bench.job(job.id).steps}
