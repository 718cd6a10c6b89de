# SPDX-License-Identifier: Apache-2.0
"""Documents that people and hosts of a served site sign: sealed objects, jobs, results, releases."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, replace

from cloister.api.v1 import blobs_pb2, common_pb2, datasets_pb2, jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.authorisation import Authorisation, ObjectReference
from cloister.evidence.manifest import BUNDLE_MEDIA_TYPE, ROWS_MEDIA_TYPE, Manifest, SealedObject, Trailer, context
from cloister.evidence.policy import Policy, Rule
from cloister.evidence.release import Approval, Release, ReleaseRequest
from cloister.evidence.result import Result
from cloister.evidence.signatures import SigningKey, Statement
from cloister.wire import sealed_to_proto, statement_to_proto
from served_site import HOSTS, MEMBERS, POOL, Caller, Founded, Served, random_wraps, sha256

DAY = 24 * 3600
PURPOSE = "support"
FILES = sha256(b"files")


@dataclass(frozen=True)
class Made:
    """A sealed object with its ciphertext."""

    manifest: Manifest
    sealed: SealedObject
    ciphertext: bytes
    wraps: dict[str, bytes]

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def reference(self) -> ObjectReference:
        return ObjectReference(self.id, self.sealed.trailer.digest)

    def wrap_messages(self) -> list[common_pb2.Wrap]:
        return [common_pb2.Wrap(recipient_key_id=k, wrap=w) for k, w in self.wraps.items()]


def new_id() -> str:
    return str(uuid.uuid4())


def host_key_ids(founded: Founded) -> list[str]:
    return [founded.hosts[name].key_id for name in HOSTS]


def seal(manifest: Manifest, signer: SigningKey, key_ids: list[str], *, size: int = 1000) -> Made:
    """Random bytes under an honest manifest and trailer."""
    ciphertext = os.urandom(size)
    trailer = Trailer(context(manifest.to_payload()).hex(), sha256(ciphertext), size, size)
    sealed = SealedObject(manifest.to_payload(), trailer.sign(signer))
    return Made(manifest, sealed, ciphertext, random_wraps(key_ids))


def owned(founded: Founded, owner: str, kind: str = "dataset", *, size: int = 1000, **changes: object) -> Made:
    """A dataset or base model of a person."""
    team = MEMBERS[owner][0]
    model = kind == "model"
    manifest = Manifest(
        kind=kind,
        id=new_id(),
        name="base" if model else "rows",
        owner=owner,
        team=team,
        pool=POOL,
        purposes=() if model else (PURPOSE,),
        media_type=BUNDLE_MEDIA_TYPE if model else ROWS_MEDIA_TYPE,
        created_at=founded.now,
        expires_at=founded.now + 30 * DAY,
        details={"files_sha256": FILES, "licence": "Apache-2.0", "source": "test"} if model else {},
    )
    manifest = replace(manifest, **changes)  # type: ignore[arg-type]
    key_ids = [*host_key_ids(founded), founded.recovery[team].recipient.key_id]
    return seal(manifest, founded.people[owner].signing, key_ids, size=size)


def create_dataset(caller: Caller, made: Made) -> datasets_pb2.Dataset:
    request = datasets_pb2.CreateDatasetRequest(sealed=sealed_to_proto(made.sealed), wraps=made.wrap_messages())
    return caller.datasets.CreateDataset(request, timeout=30).dataset


def create_model(caller: Caller, made: Made) -> models_pb2.ModelVersion:
    request = models_pb2.CreateModelVersionRequest(sealed=sealed_to_proto(made.sealed), wraps=made.wrap_messages())
    return caller.models.CreateModelVersion(request, timeout=30).version


def upload(caller: Caller, made: Made, *, attempt: int = 0, start: int = 0) -> blobs_pb2.WriteBlobResponse:
    """Send a blob from an offset on, in pieces."""
    piece = 64 * 1024
    pieces = range(start, max(len(made.ciphertext), start + 1), piece)
    messages = [
        blobs_pb2.WriteBlobRequest(object_id=made.id, offset=at, data=made.ciphertext[at : at + piece], attempt=attempt)
        for at in pieces
    ]
    return caller.blobs.WriteBlob(iter(messages), timeout=30)


def push_dataset(live: Served, owner: str, **changes: object) -> Made:
    """Register and upload a dataset."""
    made = owned(live.founded, owner, **changes)  # type: ignore[arg-type]
    create_dataset(live.caller(owner), made)
    assert upload(live.caller(owner), made).complete
    return made


def push_model(live: Served, owner: str) -> Made:
    made = owned(live.founded, owner, "model")
    create_model(live.caller(owner), made)
    assert upload(live.caller(owner), made).complete
    return made


def policy(founded: Founded, version: int = 1, *, approvals: int = 0) -> Statement:
    document = Policy(
        id="standard",
        version=version,
        auto_release=approvals == 0,
        approvals=approvals,
        rules=(Rule("eval_accuracy", at_least="0.5"),),
        allow_unsandboxed=False,
        issued_at=founded.now,
        expires_at=founded.now + 30 * DAY,
    )
    return document.sign(founded.policy_key)


def publish_policy(live: Served, statement: Statement) -> str:
    request = models_pb2.PublishPolicyRequest(policy=statement_to_proto(statement))
    return live.caller("dana").models.PublishPolicy(request, timeout=30).digest


@dataclass(frozen=True)
class Signed:
    """A signed job."""

    authorisation: Authorisation
    statement: Statement
    spec: bytes

    @property
    def id(self) -> str:
        return self.authorisation.job_id

    def request(self) -> jobs_pb2.CreateJobRequest:
        return jobs_pb2.CreateJobRequest(authorisation=statement_to_proto(self.statement), spec=self.spec)


def sign_job(
    founded: Founded, member: str, training: Made, model: Made, policy_sha256: str, **changes: object
) -> Signed:
    """A job as an honest client signs it; `changes` are fields of the authorisation or of the spec, and `version` the
    id of an adapted version of the model, `auxiliary_version` of the second one; `untrained` names no training rows.
    """
    spec: dict[str, object] = {
        "model": changes.get("version", model.id),
        "training_dataset": training.id,
        "purpose": PURPOSE,
        "pool": POOL,
        "suffix": "helpdesk",
        "seed": "42",
        "priority": 0,
        "max_attempts": 3,
        "method": {"classification": {"hyperparameters": {"n_epochs": 1}}},
        "adapter": {"lora": {"rank": 8}},
    }
    if changes.get("untrained"):
        del spec["training_dataset"]
    spec |= {f"{role}_dataset": changes[role].id for role in ("evaluation", "replay") if role in changes}  # type: ignore[attr-defined]  # references
    if "auxiliary" in changes:
        spec["auxiliary_model"] = changes.get("auxiliary_version", changes["auxiliary"].id)  # type: ignore[attr-defined]
    spec |= {name: value for name, value in changes.items() if name in spec or name in ("metadata", "data")}
    data = json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()
    authorisation = Authorisation(
        job_id=new_id(),
        member=member,
        team=MEMBERS[member][0],
        purpose=str(spec["purpose"]),
        pool=str(spec["pool"]),
        spec_sha256=sha256(data),
        policy_sha256=policy_sha256,
        model=model.reference,
        model_layers=(),
        training=None if changes.get("untrained") else training.reference,
        validation=None,
        evaluation=None,
        max_attempts=int(str(spec["max_attempts"])),
        created_at=founded.now,
        expires_at=founded.now + 7 * DAY,
    )
    fields = {name: value for name, value in changes.items() if name in Authorisation.__dataclass_fields__}
    authorisation = replace(authorisation, **fields)  # type: ignore[arg-type]
    return Signed(authorisation, authorisation.sign(founded.people[member].signing), data)


def artifact(
    founded: Founded,
    host: str,
    job: Signed,
    attempt: int,
    kind: str = "export",
    *,
    step: int = 10,
    layer: str = "adapter",
) -> tuple[Made, Statement]:
    """A checkpoint or result of a host, and the statement that it signs."""
    keys = founded.hosts[host]
    manifest = Manifest(
        kind=kind,
        id=new_id(),
        name=kind,
        owner=host,
        team=job.authorisation.team,
        pool=POOL,
        purposes=(job.authorisation.purpose,),
        media_type=BUNDLE_MEDIA_TYPE,
        created_at=founded.now,
        expires_at=founded.now + 30 * DAY,
        details={"job_id": job.id, "attempt": str(attempt), "step": str(step), "files_sha256": FILES}
        | ({"layer": layer} if kind == "export" else {}),
    )
    person = founded.people[job.authorisation.member].key_id, founded.recovery[job.authorisation.team].recipient.key_id
    made = seal(manifest, keys.signing, list(person) if kind == "report" else host_key_ids(founded))
    result = Result(
        kind=kind,
        job_id=job.id,
        authorisation_sha256=job.statement.digest,
        host=host,
        attempt=attempt,
        step=step,
        object_id=made.id,
        trailer_sha256=made.sealed.trailer.digest,
        files_sha256=FILES,
        metrics={} if kind == "state" else {"eval_accuracy": "0.9"},
        metrics_before={} if kind == "state" else {"eval_accuracy": "0.1"},
        sandboxed=True,
        created_at=founded.now,
    )
    return made, result.sign(keys.signing)


def artifact_request(
    job: Signed, attempt: int, made: Made, result: Statement, *, step: int = 10
) -> workers_pb2.CreateArtifactRequest:
    kinds = {
        "state": workers_pb2.ARTIFACT_KIND_STATE,
        "export": workers_pb2.ARTIFACT_KIND_EXPORT,
        "report": workers_pb2.ARTIFACT_KIND_REPORT,
    }
    return workers_pb2.CreateArtifactRequest(
        job_id=job.id,
        attempt=attempt,
        kind=kinds[made.manifest.kind],
        step=step,
        sealed=sealed_to_proto(made.sealed),
        wraps=made.wrap_messages(),
        result=statement_to_proto(result),
    )


def success(
    job: Signed, attempt: int, made: Made, layer: models_pb2.LayerKind.ValueType = models_pb2.LAYER_KIND_ADAPTER
) -> workers_pb2.FinishJobRequest:
    if made.manifest.kind == "report":
        state = jobs_pb2.JOB_STATE_SUCCEEDED
        return workers_pb2.FinishJobRequest(job_id=job.id, attempt=attempt, state=state, artifact_id=made.id)
    return workers_pb2.FinishJobRequest(
        job_id=job.id,
        attempt=attempt,
        state=jobs_pb2.JOB_STATE_SUCCEEDED,
        artifact_id=made.id,
        trained_tokens=1234,
        layer_kind=layer,
        layer_digest=FILES,
    )


def release_request(
    founded: Founded,
    requester: str,
    job: Signed,
    made: Made,
    result: Statement,
    recipient: str,
    *,
    exception: bool = False,
) -> Statement:
    document = ReleaseRequest(
        release_id=new_id(),
        model_version=job.id,
        result_sha256=result.digest,
        trailer_sha256=made.sealed.trailer.digest,
        policy_sha256=job.authorisation.policy_sha256,
        requester=requester,
        team=job.authorisation.team,
        recipient=recipient,
        reason="to use it",
        created_at=founded.now,
        expires_at=founded.now + DAY,
        exception=exception,
    )
    return document.sign(founded.people[requester].signing)


def approval(founded: Founded, approver: str, request: Statement) -> Statement:
    asked = ReleaseRequest.parse(request.payload)
    document = Approval(asked.release_id, request.digest, approver, "fine", founded.now, exception=asked.exception)
    return document.sign(founded.people[approver].signing)


def grant(founded: Founded, host: str, lease: workers_pb2.ReleaseLease) -> workers_pb2.FinishReleaseRequest:
    """What an honest key agent answers."""
    asked = ReleaseRequest.parse(lease.request.payload)
    wrap = os.urandom(1168)
    key_id = founded.people[asked.recipient].key_id
    document = Release(
        release_id=asked.release_id,
        request_sha256=sha256(lease.request.payload),
        result_sha256=sha256(lease.result.payload),
        trailer_sha256=asked.trailer_sha256,
        policy_sha256=asked.policy_sha256,
        approvals_sha256=tuple(sha256(approval.payload) for approval in lease.approvals),
        auto_release=not lease.approvals,
        recipient_key_id=key_id,
        wrap_sha256=sha256(wrap),
        host=host,
        created_at=founded.now,
        exception=asked.exception,
    )
    return workers_pb2.FinishReleaseRequest(
        release_id=lease.release_id,
        attempt=lease.attempt,
        wrap=common_pb2.Wrap(recipient_key_id=key_id, wrap=wrap),
        statement=statement_to_proto(document.sign(founded.hosts[host].signing)),
    )
