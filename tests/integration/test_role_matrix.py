# SPDX-License-Identifier: Apache-2.0
"""Every RPC by every kind of caller, on objects of another team: generated from the descriptors.

A call that the table allows must get past the gate: its outcome is then an answer, or a refusal about what the
(foreign) request says, never about the role.  A call that it does not allow is PERMISSION_DENIED or
UNAUTHENTICATED, and in the log.  Whoever calls, nothing of the foreign team comes back.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from cloister.api.v1 import (
    blobs_pb2,
    datasets_pb2,
    identity_pb2,
    jobs_pb2,
    models_pb2,
    workers_pb2,
)
from cloister.wire import statement_to_proto
from cloister_server.journal import Journal
from cloister_server.policy_table import ROLES
from contract_methods import METHODS, empty_request
from contract_methods import invoke as call_method
from debias_job import METHOD
from debias_site import found
from served_site import Caller, Founded, Keys, Refused, ServedSite, served, sqlite_url
from site_objects import (
    policy,
    publish_policy,
    push_dataset,
    push_model,
    release_request,
    sign_job,
    success,
    upload,
)

ROLE_OF = {
    "alice": "member",
    "bob": "approver",
    "carol": "auditor",
    "dana": "admin",
    "host-1": "worker",
    "stranger": "",
    "pinned-out": "",
    "impostor": "",
}


@dataclass(frozen=True)
class Foreign:
    """What team green owns."""

    dataset: str
    model: str
    job: str
    version: str
    export: str
    report: str
    release: str

    def id_for(self, method: str) -> str:
        service, _, name = method.rpartition("/")
        if "Dataset" in service or "Blob" in service:
            return self.dataset
        if name in ("ApproveRelease", "GetRelease", "FinishRelease"):
            return self.release
        return self.version if "Model" in service else self.job

    def all(self) -> tuple[str, ...]:
        return (self.dataset, self.model, self.job, self.version, self.export, self.report, self.release)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    directory: Path = tmp_path_factory.mktemp("site")
    with served(Founded(directory), sqlite_url(directory), Journal(io.StringIO())) as site:
        yield site


@pytest.fixture(scope="module")
def foreign(live: ServedSite) -> Foreign:
    """A whole finished de-biasing job of team green, worked on by host-2, with a release that waits."""
    gina, host = live.caller("gina"), live.caller("host-2")
    digest = publish_policy(live, policy(live.founded, approvals=1))
    training, model = push_dataset(live, "gina"), push_model(live, "gina")
    signed = sign_job(live.founded, "gina", training, model, digest, suffix="green-secret-name", method=METHOD)
    gina.jobs.CreateJob(signed.request(), timeout=30)
    host.workers.LeaseWork(workers_pb2.LeaseWorkRequest(), timeout=30)
    made = found(live.founded, "host-2", signed)
    for registered, sealed in ((made.report_request, made.report), (made.export_request, made.export)):
        host.workers.CreateArtifact(registered, timeout=30)
        upload(host, sealed, attempt=1)
    host.workers.FinishJob(success(signed, 1, made.export), timeout=30)
    asked = release_request(live.founded, "gina", signed, made.export, made.result, "gina", exception=True)
    request = models_pb2.CreateReleaseRequest(request=statement_to_proto(asked))
    release = gina.models.CreateRelease(request, timeout=30).release
    return Foreign(training.id, model.id, signed.id, signed.id, made.export.id, made.report.id, release.id)


@pytest.fixture(scope="module")
def callers(live: ServedSite) -> dict[str, Caller]:
    founded = live.founded
    found = {name: live.caller(name) for name in ROLE_OF if name not in ("stranger", "pinned-out", "impostor")}
    stranger, other_key = Keys(), Keys()
    cases = {
        # A certificate of the site's CA for a name that the roster does not have.
        "stranger": (stranger, founded.certificate(founded.uri("person", "zoe"), stranger)),
        # A member's name with another TLS key than the roster pins.
        "pinned-out": (other_key, founded.certificate(founded.uri("person", "alice"), other_key)),
        # A host's name with a person's key.
        "impostor": (
            founded.people["alice"],
            founded.certificate(founded.uri("host", "host-1"), founded.people["alice"]),
        ),
    }
    return found | {name: live.with_certificate(name, keys, pem) for name, (keys, pem) in cases.items()}


def request_for(method: str, foreign: Foreign) -> Message:
    """A request that names the other team's object wherever it can name one."""
    message = empty_request(method)
    for field in message.DESCRIPTOR.fields:
        if field.name in ("id", "object_id", "work_id", "job_id", "release_id") and field.type == field.TYPE_STRING:
            setattr(message, field.name, foreign.id_for(method))
        elif field.name == "attempt":
            setattr(message, field.name, 1)
    if isinstance(message, workers_pb2.FinishJobRequest):
        message.state = jobs_pb2.JOB_STATE_FAILED
        message.error.code = "made_up"
    if isinstance(message, workers_pb2.CreateArtifactRequest):
        message.kind = workers_pb2.ARTIFACT_KIND_STATE
    return message


def invoke(caller: Caller, method: str, request: Message) -> Refused | list[Message]:
    """Call a method by its name; a watch of health, which never ends, says one thing."""
    return call_method(caller, method, request, messages=1 if method == "/grpc.health.v1.Health/Watch" else None)


def test_the_table_lists_every_method_of_the_contract() -> None:
    """The keys of the role table are exactly the methods of the descriptors, health included, each with a role."""
    assert set(METHODS) == set(ROLES)
    assert set() == {method for method, roles in ROLES.items() if not roles}
    assert descriptor_pool.Default().FindServiceByName("cloister.api.v1.JobService") is not None


@pytest.mark.parametrize("name", ROLE_OF)
@pytest.mark.parametrize("method", sorted(METHODS))
def test_only_what_the_table_allows_works(
    live: ServedSite, callers: dict[str, Caller], foreign: Foreign, name: str, method: str
) -> None:
    """A caller gets past the gate exactly where the table says so, and each refusal is an entry of the log."""
    before = len(live.entries())
    outcome = invoke(callers[name], method, request_for(method, foreign))
    role = ROLE_OF[name]
    if not role:
        assert isinstance(outcome, Refused)
        assert (grpc.StatusCode.UNAUTHENTICATED, "UNKNOWN_IDENTITY") == (outcome.code, outcome.reason)
        assert "session.denied" == live.entries()[-1].event.action
    elif role not in ROLES[method]:
        assert isinstance(outcome, Refused)
        assert (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED") == (outcome.code, outcome.reason)
        event = live.entries()[-1].event
        assert ("method.denied", name, method) == (event.action, event.actor.id, event.detail["method"])
    else:
        assert not isinstance(outcome, Refused) or outcome.reason not in (
            "ROLE_REQUIRED",
            "UNKNOWN_IDENTITY",
            "INTERNAL",
        )
        if isinstance(outcome, Refused):
            assert live.entries()[-1].event.action in ("method.denied", "method.failed")
            assert len(live.entries()) > before


@pytest.mark.parametrize("name", ["alice", "bob", "host-1"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_nothing_of_another_team_comes_back(
    callers: dict[str, Caller], foreign: Foreign, name: str, method: str
) -> None:
    """Neither ids nor names of team green are in any answer to team blue or to a host without its lease."""
    outcome = invoke(callers[name], method, request_for(method, foreign))
    messages = [] if isinstance(outcome, Refused) else outcome
    said = b"".join(message.SerializeToString() for message in messages)
    assert [] == [wanted for wanted in (*foreign.all(), "green-secret-name") if wanted.encode() in said]


@pytest.mark.parametrize("name", ["alice", "bob"])
@pytest.mark.parametrize("method", sorted(method for method in METHODS if "Worker" not in method))
def test_a_foreign_object_is_answered_like_an_absent_one(
    live: ServedSite, callers: dict[str, Caller], foreign: Foreign, name: str, method: str
) -> None:
    """Code, reason, words and metadata are the same whether the object is another team's or does not exist."""
    absent = replace(foreign, **dict.fromkeys(foreign.__dict__, "00000000-0000-4000-8000-000000000000"))
    found = invoke(callers[name], method, request_for(method, foreign))
    missing = invoke(callers[name], method, request_for(method, absent))
    assert shown(found) == shown(missing)


def shown(outcome: Refused | list[Message]) -> object:
    if not isinstance(outcome, Refused):
        return "answered"
    metadata = {name: value for name, value in outcome.metadata.items() if name != "correlation_id"}
    return (outcome.code, outcome.reason, outcome.message, metadata)


def test_an_auditor_reads_the_register_of_every_team_but_no_blob(callers: dict[str, Caller], foreign: Foreign) -> None:
    """Metadata of a foreign team is open to auditors; ciphertext is not."""
    carol = callers["carol"]
    assert (
        foreign.dataset
        == carol.datasets.GetDataset(datasets_pb2.GetDatasetRequest(id=foreign.dataset), timeout=20).dataset.id
    )
    assert foreign.job == carol.jobs.GetJob(jobs_pb2.GetJobRequest(id=foreign.job), timeout=20).job.id
    outcome = invoke(
        carol, "/cloister.api.v1.BlobService/ReadBlob", blobs_pb2.ReadBlobRequest(object_id=foreign.dataset)
    )
    assert isinstance(outcome, Refused)
    assert "ROLE_REQUIRED" == outcome.reason


def test_a_certificate_of_another_authority_gets_no_connection(live: ServedSite, tmp_path: Path) -> None:
    """A certificate that the site's CA did not issue does not even reach the gate."""
    other = Founded(tmp_path / "other")
    keys = Keys()
    foreigner = live.with_certificate("foreigner", keys, other.certificate(live.founded.uri("person", "alice"), keys))
    with pytest.raises(grpc.RpcError) as refused:
        foreigner.identity.WhoAmI(identity_pb2.WhoAmIRequest(), timeout=10)
    assert grpc.StatusCode.UNAVAILABLE == refused.value.code()


def test_a_result_is_read_back_by_nobody_before_its_release(live: ServedSite, foreign: Foreign) -> None:
    """The team's own member may not read a candidate's ciphertext: it is sealed to the pool until it is released."""
    request = blobs_pb2.ReadBlobRequest(object_id=foreign.export)
    outcome = invoke(live.caller("gina"), "/cloister.api.v1.BlobService/ReadBlob", request)
    assert isinstance(outcome, Refused)
    assert "NOT_FOUND" == outcome.reason


def test_a_report_is_for_its_team_and_its_figures_for_auditors(
    live: ServedSite, callers: dict[str, Caller], foreign: Foreign
) -> None:
    """The team gets the sealed report and reads its ciphertext; an auditor gets figures without a trace of it."""
    asked = jobs_pb2.GetJobReportRequest(id=foreign.job)
    mine = live.caller("gina").jobs.GetJobReport(asked, timeout=20)
    assert (mine.object_id, mine.HasField("sealed"), len(mine.wraps)) == (foreign.report, True, 2)
    read = blobs_pb2.ReadBlobRequest(object_id=foreign.report)
    assert sum(len(part.data) for part in live.caller("gina").blobs.ReadBlob(read, timeout=20)) == mine.size
    audited = callers["carol"].jobs.GetJobReport(asked, timeout=20)
    assert audited.figures == mine.figures
    assert foreign.report.encode() not in audited.SerializeToString()
    for name, reason in (("alice", "NOT_FOUND"), ("carol", "ROLE_REQUIRED"), ("host-1", "NOT_FOUND")):
        outcome = invoke(callers[name], "/cloister.api.v1.BlobService/ReadBlob", read)
        assert isinstance(outcome, Refused)
        assert reason == outcome.reason
