# SPDX-License-Identifier: Apache-2.0
"""Values that a field can hold and nobody means: each is refused for a reason, or changes nothing for others."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from cloister.api.v1 import audit_pb2, datasets_pb2, jobs_pb2, models_pb2, workers_pb2
from cloister_server.journal import Journal
from contract_methods import invoke
from debias_job import METHOD
from debias_site import found
from good_requests import HOST, MEMBER, GoodRequests
from json_strategies import Edit
from served_site import Founded, Refused, served, sqlite_url
from site_objects import success, upload

LARGEST = 2**63 - 1


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def good(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_databases: Callable[[], str],
) -> Iterator[GoodRequests]:
    directory: Path = tmp_path_factory.mktemp("site")
    url = sqlite_url(directory) if request.param == "sqlite" else postgres_databases()
    with served(Founded(directory), url, Journal(io.StringIO())) as live:
        yield GoodRequests(live)


def refused(good: GoodRequests, name: str, request: Message) -> Refused:
    """How a call of whoever may make it was refused."""
    method = f"/cloister.api.v1.{name}"
    outcome = invoke(good.callers(method)[0], method, request)
    assert isinstance(outcome, Refused), outcome
    return outcome


@pytest.mark.parametrize("index", [-1, 2**53, LARGEST])
def test_no_entry_is_at_an_impossible_position(good: GoodRequests, index: int) -> None:
    """A position that no log reaches is not found, like any other behind its end."""
    assert "NOT_FOUND" == refused(good, "AuditService/GetEntry", audit_pb2.GetEntryRequest(index=index)).reason


def test_a_time_of_no_calendar_is_refused(good: GoodRequests) -> None:
    """Entries are asked for between times from year 1 to 9999; others name the field."""
    request = audit_pb2.ListEntriesRequest()
    request.since.seconds = LARGEST
    said = refused(good, "AuditService/ListEntries", request)
    assert ("INVALID_FIELD", "since") == (said.reason, said.metadata["field"])


def test_a_watch_goes_on_after_any_number(good: GoodRequests) -> None:
    """Whoever has seen more events than there are gets the end of a finished job at once."""
    request = jobs_pb2.WatchJobRequest(id=good.finished.id, after_seq=LARGEST)
    last = list(good.live.caller(MEMBER).jobs.WatchJob(request, timeout=20))
    assert ["terminal"] == [message.WhichOneof("kind") for message in last]


def test_a_kind_of_layer_that_the_contract_does_not_list_is_refused(good: GoodRequests) -> None:
    """An unknown number of an enum is a field that is wrong, and the lease stays."""
    request = good.request("/cloister.api.v1.WorkerService/FinishJob")
    request.layer_kind = 1234  # type: ignore[attr-defined]  # a FinishJobRequest
    assert "INVALID_FIELD" == refused(good, "WorkerService/FinishJob", request).reason
    request.layer_kind = models_pb2.LAYER_KIND_ADAPTER  # type: ignore[attr-defined]
    answer = invoke(good.live.caller(HOST), "/cloister.api.v1.WorkerService/FinishJob", request)
    assert [workers_pb2.FinishJobResponse(state=jobs_pb2.JOB_STATE_SUCCEEDED)] == answer


@pytest.mark.parametrize("seconds", [1e300, float("inf"), float("nan"), -1.0])
def test_an_estimate_of_no_length_is_left_out(good: GoodRequests, seconds: float) -> None:
    """A host that estimates for ever does not make its job unreadable."""
    request = good.request("/cloister.api.v1.WorkerService/ReportEvents")
    for event in request.events:  # type: ignore[attr-defined]  # a ReportEventsRequest
        event.progress.eta_seconds = seconds
    assert [workers_pb2.ReportEventsResponse()] == invoke(
        good.live.caller(HOST), "/cloister.api.v1.WorkerService/ReportEvents", request
    )
    job = good.live.caller(MEMBER).jobs.GetJob(jobs_pb2.GetJobRequest(id=request.job_id), timeout=20).job  # type: ignore[attr-defined]
    assert (0.0, False) == (job.progress.eta_seconds, job.HasField("estimated_finish"))


@pytest.mark.parametrize(("written", "meant"), [(7.0, 7), (None, 42), ("8", 8)])
def test_a_seed_is_read_however_it_is_written(good: GoodRequests, written: object, meant: int) -> None:
    """JSON has several ways to write a number: the version of the job is listed with its seed all the same."""
    job, host = good.sign(priority=100, method=METHOD, seed=written), good.live.caller(HOST)
    good.live.caller(MEMBER).jobs.CreateJob(job.request(), timeout=20)
    while host.workers.LeaseWork(workers_pb2.LeaseWorkRequest(), timeout=20).job.job_id != job.id:
        pass
    made = found(good.founded, HOST, job, verdict="PASS")
    for registered, sealed in ((made.report_request, made.report), (made.export_request, made.export)):
        host.workers.CreateArtifact(registered, timeout=20)
        upload(host, sealed, attempt=1)
    host.workers.FinishJob(success(job, 1, made.export), timeout=20)
    asked = models_pb2.GetModelVersionRequest(id=job.id)
    assert meant == good.live.caller(MEMBER).models.GetModelVersion(asked, timeout=20).version.dossier.seed


def test_a_spec_that_is_nested_without_end_is_refused(good: GoodRequests) -> None:
    """A spec that a reader's stack cannot hold is one that cannot be read."""
    request = good.sign_bytes(b"[" * 60_000)
    said = refused(good, "JobService/CreateJob", request)
    assert ("INVALID_FIELD", "spec") == (said.reason, said.metadata["field"])


def test_a_long_name_still_brings_its_reason(good: GoodRequests) -> None:
    """What a refusal quotes is cut, so that the reason arrives with it."""
    method = "/cloister.api.v1.DatasetService/CreateDataset"
    request = good.signed(method, [Edit((0,), "add", "x" * 20_000, "")], [])
    said = refused(good, "DatasetService/CreateDataset", request)
    assert ("EVIDENCE_REJECTED", "BAD_FORMAT") == (said.reason, said.metadata["check"])


def test_a_dataset_expires_in_some_year_of_the_calendar(good: GoodRequests) -> None:
    """A time that cannot be written is refused, so that every list of datasets can be."""
    method = "/cloister.api.v1.DatasetService/CreateDataset"
    names = sorted(json.loads(good.request(method).sealed.manifest))  # type: ignore[attr-defined]
    far = Edit((names.index("expires_at"),), "set", "", 2**53 - 1)
    assert "EVIDENCE_REJECTED" == refused(good, "DatasetService/CreateDataset", good.signed(method, [far], [])).reason
    listed = good.live.caller("carol").datasets.ListDatasets(datasets_pb2.ListDatasetsRequest(), timeout=20)
    assert json_format.MessageToDict(listed)["datasets"]


def test_nothing_is_found_under_a_text_with_a_nul(good: GoodRequests) -> None:
    """A NUL, which one of the databases cannot store, is refused like any other wrong request."""
    said = refused(good, "JobService/GetJob", jobs_pb2.GetJobRequest(id="a\0"))
    assert said.reason in ("INVALID_FIELD", "NOT_FOUND")


def test_a_licence_has_no_nul(good: GoodRequests) -> None:
    """A signed document with a NUL in a text is refused on every database."""
    method = "/cloister.api.v1.ModelService/CreateModelVersion"
    names = sorted(json.loads(good.request(method).sealed.manifest))  # type: ignore[attr-defined]
    inside = Edit((names.index("details"), 1), "set", "", "a\0")
    said = refused(good, "ModelService/CreateModelVersion", good.signed(method, [inside], []))
    assert ("EVIDENCE_REJECTED", "BAD_FORMAT") == (said.reason, said.metadata["check"])
