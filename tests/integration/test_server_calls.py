# SPDX-License-Identifier: Apache-2.0
"""What every call goes through: deadlines, errors, idempotence, rosters, streams, health."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from cloister.api.v1 import audit_pb2, datasets_pb2, identity_pb2, jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.checkpoint import open_checkpoint
from cloister.evidence.merkle import verify_consistency
from cloister.evidence.note import NoteVerifier
from cloister.evidence.roster import Roster
from cloister.wire import sealed_to_proto, statement_from_proto, statement_to_proto
from cloister_audit.errors import AuditWriteError
from cloister_audit.ledger import Ledger
from cloister_server.health import probe
from cloister_server.journal import Journal
from served_site import Founded, ServedSite, refusal, served, sqlite_url
from site_objects import (
    approval,
    artifact,
    artifact_request,
    create_dataset,
    grant,
    owned,
    policy,
    publish_policy,
    push_dataset,
    push_model,
    release_request,
    sign_job,
    success,
    upload,
)

LOG = io.StringIO()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    directory: Path = tmp_path_factory.mktemp("site")
    with served(Founded(directory), sqlite_url(directory), Journal(LOG)) as site:
        publish_policy(site, policy(site.founded, approvals=1))
        yield site


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[ServedSite]:
    """A site for one test alone, which may change its roster."""
    with served(Founded(tmp_path), sqlite_url(tmp_path), Journal(io.StringIO())) as site:
        publish_policy(site, policy(site.founded, approvals=1))
        yield site


def test_a_unary_call_needs_a_deadline(live: ServedSite) -> None:
    """Without a deadline a unary call is INVALID_ARGUMENT, so that no client waits for ever."""
    refused = refusal(lambda: live.caller("alice").identity.WhoAmI(identity_pb2.WhoAmIRequest()))
    assert (grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_REQUIRED") == (refused.code, refused.reason)


def test_a_create_is_idempotent_by_its_id(live: ServedSite) -> None:
    """The same registration twice gives the same answer and one entry; another one under the id is a conflict."""
    made, alice = owned(live.founded, "alice"), live.caller("alice")
    assert create_dataset(alice, made) == create_dataset(alice, made)
    assert 1 == len(live.entries(action="dataset.create", object_id=made.id))
    other = owned(live.founded, "alice", id=made.id, name="other")
    refused = refusal(lambda: create_dataset(alice, other))
    assert (grpc.StatusCode.ALREADY_EXISTS, "ID_CONFLICT") == (refused.code, refused.reason)


def test_wraps_must_be_for_exactly_the_pool_and_the_team(live: ServedSite) -> None:
    """A wrap too few and a wrap too many are refused at registration."""
    made, alice = owned(live.founded, "alice"), live.caller("alice")
    fewer = dict(list(made.wraps.items())[1:])
    more = {**made.wraps, live.founded.people["gina"].key_id: bytes(1168)}
    for wraps in (fewer, more):
        refused = refusal(lambda wraps=wraps: create_dataset(alice, replace(made, wraps=wraps)))  # type: ignore[misc]
        assert ("EVIDENCE_REJECTED", "RECIPIENTS") == (refused.reason, refused.metadata["check"])


def test_a_manifest_of_somebody_else_is_refused(live: ServedSite) -> None:
    """A member registers only what they signed themselves."""
    made = owned(live.founded, "erin")
    refused = refusal(lambda: create_dataset(live.caller("alice"), made))
    assert ("EVIDENCE_REJECTED", "BINDING") == (refused.reason, refused.metadata["check"])


def test_a_changed_manifest_is_refused(live: ServedSite) -> None:
    """A manifest that the trailer was not signed for does not verify."""
    made = owned(live.founded, "alice")
    sealed = sealed_to_proto(made.sealed)
    sealed.manifest = replace(made.manifest, name="changed").to_payload()
    request = datasets_pb2.CreateDatasetRequest(sealed=sealed, wraps=made.wrap_messages())
    refused = refusal(lambda: live.caller("alice").datasets.CreateDataset(request, timeout=30))
    assert ("EVIDENCE_REJECTED", "BINDING") == (refused.reason, refused.metadata["check"])


def test_a_defect_tells_nothing_but_a_correlation_id(live: ServedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown exception is INTERNAL with a fixed text; the log has type and place under the same id."""

    def broken(*_: object) -> None:
        raise KeyError("row 17 says: my password is hunter2")

    monkeypatch.setattr("cloister_server.registry.datasets.get", broken)
    request = datasets_pb2.GetDatasetRequest(id="x")
    refused = refusal(lambda: live.caller("alice").datasets.GetDataset(request, timeout=30))
    assert (grpc.StatusCode.INTERNAL, "INTERNAL") == (refused.code, refused.reason)
    lines = [json.loads(line) for line in LOG.getvalue().splitlines()]
    mine = [line for line in lines if line.get("corr_id") == refused.metadata["correlation_id"]]
    assert ["KeyError"] == [line["type"] for line in mine]
    assert "hunter2" not in LOG.getvalue() + refused.message


def test_a_log_that_cannot_be_written_stops_every_change(live: ServedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """While entries cannot be appended, reads and changes fail with UNAVAILABLE and health is not serving."""

    def full(*_: object) -> list[int]:
        raise AuditWriteError("no space left")

    made = owned(live.founded, "alice")
    monkeypatch.setattr(Ledger, "append", full)
    refused = refusal(lambda: create_dataset(live.caller("alice"), made))
    assert (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE") == (refused.code, refused.reason)
    assert "audit_log" == probe(live.site).fault
    monkeypatch.undo()
    assert "" == probe(live.site).fault
    assert datasets_pb2.DATASET_STATE_UPLOADING == create_dataset(live.caller("alice"), made).state


def test_health_answers_for_every_service(live: ServedSite) -> None:
    """Check and List say SERVING for the server and for each of its services."""
    stub = health_pb2_grpc.HealthStub(live.caller("host-1").channel)
    request = health_pb2.HealthCheckRequest(service="cloister.api.v1.JobService")
    assert health_pb2.HealthCheckResponse.SERVING == stub.Check(request, timeout=30).status
    statuses = stub.List(health_pb2.HealthListRequest(), timeout=30).statuses
    assert 12 == len(statuses)


def test_pages_cover_a_list_exactly_once(live: ServedSite) -> None:
    """Going through the pages gives every dataset once, newest first."""
    erin = live.caller("erin")
    made = [push_dataset(live, "erin").id for _ in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        request = datasets_pb2.ListDatasetsRequest()
        request.page.page_size, request.page.page_token = 2, token
        page = erin.datasets.ListDatasets(request, timeout=30)
        seen += [dataset.id for dataset in page.datasets]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen))
    assert list(reversed(made)) == [identifier for identifier in seen if identifier in made]


def test_a_forged_page_token_is_refused(live: ServedSite) -> None:
    """A token that this server did not give out is INVALID_FIELD."""
    request = datasets_pb2.ListDatasetsRequest()
    request.page.page_token = "1' OR '1'='1"
    assert "INVALID_FIELD" == refusal(lambda: live.caller("alice").datasets.ListDatasets(request, timeout=30)).reason


def test_checkpoints_extend_each_other(live: ServedSite) -> None:
    """The proof of a later checkpoint verifies against an earlier one, and a checkpoint from the future is refused."""
    alice, verifier = live.caller("alice"), NoteVerifier.parse(live.founded.roster.log_vkey)
    first = alice.audit.GetCheckpoint(audit_pb2.GetCheckpointRequest(), timeout=30)
    old = open_checkpoint(first.checkpoint, verifier, verifier.name)
    second = alice.audit.GetCheckpoint(audit_pb2.GetCheckpointRequest(since_size=old.size), timeout=30)
    new = open_checkpoint(second.checkpoint, verifier, verifier.name)
    verify_consistency(old.size, old.root, new.size, new.root, second.consistency_proof)
    ahead = audit_pb2.GetCheckpointRequest(since_size=new.size + 100)
    assert "LOG_BEHIND_CALLER" == refusal(lambda: alice.audit.GetCheckpoint(ahead, timeout=30)).reason


def test_a_release_waits_for_the_approval_of_another(live: ServedSite) -> None:
    """With a policy of one approval the requester cannot approve, and a host gets the release only afterwards."""
    founded, alice, bob = live.founded, live.caller("alice"), live.caller("bob")
    host = live.caller("host-1")
    digest = alice.models.GetPolicy(models_pb2.GetPolicyRequest(), timeout=30).policy
    training, model = push_dataset(live, "alice"), push_model(live, "alice")
    signed = sign_job(founded, "alice", training, model, statement_from_proto(digest).digest)
    alice.jobs.CreateJob(signed.request(), timeout=30)
    host.workers.LeaseWork(workers_pb2.LeaseWorkRequest(), timeout=30)
    made, result = artifact(founded, "host-1", signed, 1)
    host.workers.CreateArtifact(artifact_request(signed, 1, made, result), timeout=30)
    upload(host, made, attempt=1)
    host.workers.FinishJob(success(signed, 1, made), timeout=30)
    asked = release_request(founded, "alice", signed, made, result, "erin")
    request = models_pb2.CreateReleaseRequest(request=statement_to_proto(asked))
    release = alice.models.CreateRelease(request, timeout=30).release
    assert (models_pb2.RELEASE_STATE_PENDING, 1) == (release.state, release.approvals_required)
    assert not host.workers.LeaseWork(workers_pb2.LeaseWorkRequest(), timeout=30).WhichOneof("work")
    approve = models_pb2.ApproveReleaseRequest(
        id=release.id, approval=statement_to_proto(approval(founded, "bob", asked))
    )
    foreign = models_pb2.ApproveReleaseRequest(
        id=release.id, approval=statement_to_proto(approval(founded, "gabe", asked))
    )
    assert "NOT_FOUND" == refusal(lambda: live.caller("gabe").models.ApproveRelease(foreign, timeout=30)).reason
    assert "EVIDENCE_REJECTED" == refusal(lambda: bob.models.ApproveRelease(foreign, timeout=30)).reason
    for _ in range(2):
        approved = bob.models.ApproveRelease(approve, timeout=30).release
        assert (models_pb2.RELEASE_STATE_QUEUED, 1) == (approved.state, len(approved.approvals))
    work = host.workers.LeaseWork(workers_pb2.LeaseWorkRequest(), timeout=30).release
    assert (release.id, 1) == (work.release_id, len(work.approvals))
    for _ in range(2):
        done = host.workers.FinishRelease(_granted(founded, work), timeout=30)
        assert models_pb2.RELEASE_STATE_GRANTED == done.state
    get = models_pb2.GetReleaseRequest(id=release.id)
    shown = [live.caller(name).models.GetRelease(get, timeout=30).release for name in ("erin", "alice", "bob")]
    assert [True, False, False] == [found.HasField("wrap") for found in shown]


_ANSWERS: dict[str, workers_pb2.FinishReleaseRequest] = {}


def _granted(founded: Founded, work: workers_pb2.ReleaseLease) -> workers_pb2.FinishReleaseRequest:
    """The same answer again, as an agent that heard nothing sends it."""
    return _ANSWERS.setdefault(work.release_id, grant(founded, "host-1", work))


def test_a_watch_replays_and_then_follows(live: ServedSite) -> None:
    """A watcher gets what it missed, then what happens, then one terminal message; a later one starts where told."""
    founded, alice = live.founded, live.caller("alice")
    current = alice.models.GetPolicy(models_pb2.GetPolicyRequest(), timeout=30).policy
    digest = statement_from_proto(current).digest
    signed = sign_job(founded, "alice", push_dataset(live, "alice"), push_model(live, "alice"), digest)
    alice.jobs.CreateJob(signed.request(), timeout=30)
    stream = iter(alice.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=signed.id), timeout=60))
    assert 1 == next(stream).event.seq
    assert "heartbeat" == next(stream).WhichOneof("kind")
    alice.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=signed.id), timeout=30)
    kinds = [message.WhichOneof("kind") for message in stream]
    assert ("terminal", 1) == (kinds[-1], kinds.count("terminal"))
    later = list(alice.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=signed.id, after_seq=1), timeout=30))
    assert ([2], "terminal") == ([m.event.seq for m in later[:-1]], later[-1].WhichOneof("kind"))


def test_a_newer_roster_cuts_a_person_off_at_once(own_site: ServedSite) -> None:
    """Once a roster without their key is in force, a person is unknown, and their open stream ends."""
    live = own_site
    founded, dana, erin = live.founded, live.caller("dana"), live.caller("erin")
    old = founded.custody.roster()
    current = live.caller("alice").models.GetPolicy(models_pb2.GetPolicyRequest(), timeout=30).policy
    digest = statement_from_proto(current).digest
    signed = sign_job(founded, "erin", push_dataset(live, "erin"), push_model(live, "erin"), digest)
    erin.jobs.CreateJob(signed.request(), timeout=30)
    stream = iter(erin.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=signed.id), timeout=60))
    next(stream)

    def without_erin(roster: Roster) -> Roster:
        people = tuple(replace(p, tls_sha256=()) if p.id == "erin" else p for p in roster.people)
        return replace(roster, people=people)

    newer = founded.sign_roster(without_erin)
    publish = identity_pb2.PublishRosterRequest(roster=statement_to_proto(newer))
    for _ in range(2):
        assert 2 == dana.identity.PublishRoster(publish, timeout=30).version
    assert "UNKNOWN_IDENTITY" == refusal(lambda: erin.identity.WhoAmI(identity_pb2.WhoAmIRequest(), timeout=30)).reason
    assert "UNKNOWN_IDENTITY" == refusal(lambda: stream).reason
    back = identity_pb2.PublishRosterRequest(roster=statement_to_proto(old))
    assert "ROSTER_ROLLBACK" == refusal(lambda: dana.identity.PublishRoster(back, timeout=30)).reason
