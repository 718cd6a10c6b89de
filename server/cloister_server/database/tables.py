# SPDX-License-Identifier: Apache-2.0
"""The control plane's tables.  Times are milliseconds since 1970 by the database's clock, unless a name says more.

Everything opaque (manifests, statements, specs, wraps) is stored as the bytes that were signed or sent.
The ledger's own tables are `cloister_audit.tables`; one schema history covers both.

Job states: QUEUED or PREEMPTED (waiting) → VALIDATING → RUNNING (leased) → SUCCEEDED, FAILED, CANCELLED;
a lost lease leads to PREEMPTED, or to FAILED after the last attempt; waiting too long leads to EXPIRED.
Object states: UPLOADING → READY → DELETED.  Release states: PENDING → QUEUED → LEASED → GRANTED or REFUSED.
Enrolment token states: OPEN → CLAIMED → ADMITTED; from each of them to WITHDRAWN.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()

_ID = String(64)
_DIGEST = String(64)

schema_compatibility = Table(
    "schema_compatibility",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column(
        "compatible_from",
        String(32),
        nullable=False,
        comment="revision; a program that knows it may run on this schema",
    ),
    CheckConstraint("id = 1", name="schema_compatibility_is_one_row"),
    comment="Its one row is written by every migration.",
)

roster = Table(
    "roster",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("statement", LargeBinary, nullable=False),
    Column("published_at", BigInteger, nullable=False),
    comment="Insert only. Every roster that was in force; the highest version is.",
)

policy = Table(
    "policy",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("policy_id", _ID, nullable=False),
    Column("version", BigInteger, nullable=False, unique=True),
    Column("statement", LargeBinary, nullable=False),
    Column("published_at", BigInteger, nullable=False),
    comment="Insert only. The highest version is in force; jobs stay bound to theirs.",
)

enrolment_token = Table(
    "enrolment_token",
    metadata,
    Column("id", _ID, primary_key=True, comment="id of its signing key; the secret is never here"),
    Column("state", String(16), nullable=False),
    # Of a person or of a worker host: the statement says which.
    Column("person", _ID, nullable=False),
    Column("tls_sha256", _DIGEST, nullable=False, unique=True),
    Column("certificate_pem", Text, nullable=False, comment="of the token's TLS key: lets its holder connect"),
    Column("statement", LargeBinary, nullable=False, comment="signed by an admin"),
    Column("claim", LargeBinary, nullable=False, comment="signed with the token's key; empty while it is open"),
    Column("welcome", LargeBinary, nullable=False, comment="signed by the root; empty until it is admitted"),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at_s", BigInteger, nullable=False, comment="Unix seconds, from the statement"),
    Index("enrolment_token_by_expiry", "expires_at_s"),
)

sealed_object = Table(
    "sealed_object",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("kind", String(16), nullable=False, comment="dataset, model, state, export or report"),
    Column("team", _ID, nullable=False),
    Column("owner", _ID, nullable=False, comment="person or host id"),
    Column("pool", _ID, nullable=False),
    Column("state", String(16), nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("trailer", LargeBinary, nullable=False),
    Column("trailer_sha256", _DIGEST, nullable=False),
    Column("ciphertext_sha256", _DIGEST, nullable=False),
    Column("size", BigInteger, nullable=False, comment="bytes of ciphertext"),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at_s", BigInteger, nullable=False, comment="Unix seconds, from the manifest"),
    Index("sealed_object_by_team", "kind", "team", "created_at"),
    Index("sealed_object_by_blob", "ciphertext_sha256"),
)

object_grant = Table(
    "object_grant",
    metadata,
    Column("object_id", _ID, ForeignKey("sealed_object.id"), primary_key=True),
    Column("recipient_key_id", String(32), primary_key=True),
    Column("wrap", LargeBinary, nullable=False),
)

job = Table(
    "job",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("team", _ID, nullable=False),
    Column("owner", _ID, nullable=False),
    Column("pool", _ID, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("state_reason", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, comment="the fencing token"),
    Column("max_attempts", Integer, nullable=False),
    Column("worker", _ID, nullable=False, comment="host that holds or held the lease"),
    Column("lease_until", BigInteger, nullable=False, comment="0 while nobody holds it"),
    Column("cancel_requested", Boolean, nullable=False),
    Column("resume_object_id", _ID, nullable=False, comment="checkpoint of this attempt, or empty"),
    Column("model_version", _ID, nullable=False, comment="version that the spec starts from"),
    Column("spec", LargeBinary, nullable=False),
    Column("spec_sha256", _DIGEST, nullable=False),
    Column("authorisation", LargeBinary, nullable=False),
    Column("authorisation_sha256", _DIGEST, nullable=False),
    Column("policy_sha256", _DIGEST, ForeignKey("policy.digest"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=False),
    Column("expires_at_s", BigInteger, nullable=False, comment="Unix seconds, from the authorisation"),
    Column("event_seq", BigInteger, nullable=False, comment="seq of the newest event"),
    Column("trained_tokens", BigInteger, nullable=False),
    Column("progress", Text, nullable=False, comment="newest progress as JSON, or empty"),
    Column("metrics", Text, nullable=False, comment="newest figure of every metric, as JSON"),
    Column("error_code", String(64), nullable=False),
    Column("error_message", String(512), nullable=False),
    Column("error_param", String(128), nullable=False),
    Index("job_by_team", "team", "created_at"),
    Index(
        "job_waiting",
        "pool",
        "priority",
        "created_at",
        sqlite_where=text("state IN ('QUEUED', 'PREEMPTED')"),
        postgresql_where=text("state IN ('QUEUED', 'PREEMPTED')"),
    ),
    Index(
        "job_leased",
        "lease_until",
        sqlite_where=text("lease_until > 0"),
        postgresql_where=text("lease_until > 0"),
    ),
)

job_input = Table(
    "job_input",
    metadata,
    Column("job_id", _ID, ForeignKey("job.id"), primary_key=True),
    Column("position", Integer, primary_key=True, comment="place in Authorisation.inputs"),
    Column("role", String(16), nullable=False, comment="as in Authorisation.places"),
    Column("object_id", _ID, ForeignKey("sealed_object.id"), nullable=False),
    Index("job_input_by_object", "object_id"),
)

job_attempt = Table(
    "job_attempt",
    metadata,
    Column("job_id", _ID, ForeignKey("job.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("team", _ID, nullable=False),
    Column("pool", _ID, nullable=False),
    Column("worker", _ID, nullable=False),
    Column("leased_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False, comment="0 while it runs"),
    Column("outcome", String(16), nullable=False, comment="job state that it asked for, LOST, or empty"),
    Column("last_stream_seq", BigInteger, nullable=False, comment="of the worker's reports"),
    Index("job_attempt_usage", "pool", "leased_at"),
)

job_event = Table(
    "job_event",
    metadata,
    Column("job_id", _ID, ForeignKey("job.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False, comment="gapless, from 1"),
    Column("created_at", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("level", String(8), nullable=False),
    Column("type", String(16), nullable=False),
    Column("message", String(512), nullable=False),
    Column("data", Text, nullable=False, comment="figures as JSON"),
)

job_step = Table(
    "job_step",
    metadata,
    Column("job_id", _ID, ForeignKey("job.id"), primary_key=True),
    Column("name", String(16), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=False),
)

artifact = Table(
    "artifact",
    metadata,
    Column("object_id", _ID, ForeignKey("sealed_object.id"), primary_key=True),
    Column("job_id", _ID, ForeignKey("job.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False, comment="state, export or report"),
    Column("result", LargeBinary, nullable=False, comment="signed by the host"),
    Column("result_sha256", _DIGEST, nullable=False),
    Index("artifact_by_job", "job_id", "kind", "attempt", "step"),
)

artifact_figures = Table(
    "artifact_figures",
    metadata,
    Column(
        "object_id",
        _ID,
        ForeignKey("artifact.object_id"),
        primary_key=True,
        comment="the export whose result binds them",
    ),
    Column("figures", LargeBinary, nullable=False),
    comment="Insert only. Numbers of a de-biasing job, without names: canonical JSON.",
)

model_version = Table(
    "model_version",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("team", _ID, nullable=False),
    Column("state", String(16), nullable=False, comment="UPLOADING, READY, CANDIDATE or RELEASED"),
    Column("object_id", _ID, ForeignKey("sealed_object.id"), nullable=False),
    Column("base", _ID, nullable=False, comment="empty for a base model"),
    Column("base_digest", _DIGEST, nullable=False),
    Column("layers", Text, nullable=False, comment="JSON: [[kind, object_id, digest]]"),
    Column("job_id", _ID, nullable=False, comment="empty for a base model"),
    Column("spec_digest", String(64), nullable=False),
    Column("dataset_digests", Text, nullable=False, comment="JSON"),
    Column("seed", String(20), nullable=False, comment="uint64 in decimal"),
    Column("metrics_before", Text, nullable=False, comment="JSON"),
    Column("metrics_after", Text, nullable=False, comment="JSON"),
    Column("epsilon", Double, nullable=True),
    Column("result", LargeBinary, nullable=False, comment="signed by the host; empty for a base model"),
    Column("licence", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("model_version_by_team", "team", "created_at"),
    Index("model_version_by_name", "name", "created_at"),
    Index("model_version_by_object", "object_id"),
)

release = Table(
    "release",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("model_version", _ID, ForeignKey("model_version.id"), nullable=False),
    Column("team", _ID, nullable=False),
    Column("pool", _ID, nullable=False),
    Column("requester", _ID, nullable=False),
    Column("recipient", _ID, nullable=False, comment="person id"),
    Column("state", String(16), nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("request_sha256", _DIGEST, nullable=False),
    Column("policy_sha256", _DIGEST, ForeignKey("policy.digest"), nullable=False),
    Column("approvals_required", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, comment="the fencing token"),
    Column("worker", _ID, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("wrap_key_id", String(32), nullable=False),
    Column("wrap", LargeBinary, nullable=False),
    Column("statement", LargeBinary, nullable=False, comment="signed by the host, once granted"),
    Column("refusal", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("release_by_team", "team", "created_at"),
    Index("release_by_version", "model_version"),
    Index("release_waiting", "pool", "state", "created_at"),
)

release_approval = Table(
    "release_approval",
    metadata,
    Column("release_id", _ID, ForeignKey("release.id"), primary_key=True),
    Column("approver", _ID, primary_key=True),
    Column("statement", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

opening = Table(
    "opening",
    metadata,
    Column("work_id", _ID, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("requested_at", BigInteger, nullable=False),
    comment="One opening for each attempt of a job or release; its entry is in the log.",
)

maintenance = Table(
    "maintenance",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("reason", String(200), nullable=False, comment="in an admin's words, shown to everybody"),
    Column("since", BigInteger, nullable=False),
    Column("until_s", BigInteger, nullable=False, comment="expected end, Unix seconds; 0 for none"),
    Column("by_person", _ID, nullable=False),
    CheckConstraint("id = 1", name="maintenance_is_one_row"),
    comment="Its one row is there while nothing new is taken.",
)

worker_host = Table(
    "worker_host",
    metadata,
    Column("host", _ID, primary_key=True),
    Column("mode", String(16), nullable=False, comment="ACTIVE, CORDONED or DRAINING"),
    Column("last_seen", BigInteger, nullable=False, comment="0 for never"),
    Column("gpus", Integer, nullable=False),
    Column("sandboxed", Boolean, nullable=True),
    Column("version", String(32), nullable=False),
    Column("pool", _ID, nullable=True, comment="by its certificate; null until it asks for work"),
    comment="What hosts of the roster said of themselves last.",
)

team_quota = Table(
    "team_quota",
    metadata,
    Column("team", _ID, primary_key=True),
    Column("queued_jobs", BigInteger, nullable=True),
    Column("running_jobs", BigInteger, nullable=True),
    Column("stored_bytes", BigInteger, nullable=True),
    Column("gpu_seconds", BigInteger, nullable=True, comment="in 24 hours"),
    comment="What a team may have at once; null for no limit.",
)

notice = Table(
    "notice",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("target", String(16), primary_key=True, comment="command or url"),
    Column("job_id", _ID, ForeignKey("job.id"), nullable=False),
    Column("body", Text, nullable=False, comment="JSON, as it is sent"),
    Column("attempts", Integer, nullable=False, comment="the fencing token"),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False, comment="next attempt; while one runs, when its lease is over"),
    Index("notice_due", "target", "due_at"),
    comment="Ends of jobs that the site is still to be told of; deleted once it was.",
)
