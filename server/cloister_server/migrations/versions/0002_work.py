# SPDX-License-Identifier: Apache-2.0
"""Jobs, versions and releases."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "opening",
        sa.Column("work_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("work_id", "attempt"),
        comment="One opening for each attempt of a job or release; its entry is in the log.",
    )
    op.create_table(
        "job",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("team", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("pool", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_reason", sa.String(length=64), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="the fencing token"),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=64), nullable=False, comment="host that holds or held the lease"),
        sa.Column("lease_until", sa.BigInteger(), nullable=False, comment="0 while nobody holds it"),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column(
            "resume_object_id", sa.String(length=64), nullable=False, comment="checkpoint of this attempt, or empty"
        ),
        sa.Column("model_version", sa.String(length=64), nullable=False, comment="version that the spec starts from"),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("spec_sha256", sa.String(length=64), nullable=False),
        sa.Column("authorisation", sa.LargeBinary(), nullable=False),
        sa.Column("authorisation_sha256", sa.String(length=64), nullable=False),
        sa.Column("policy_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_s", sa.BigInteger(), nullable=False, comment="Unix seconds, from the authorisation"),
        sa.Column("event_seq", sa.BigInteger(), nullable=False, comment="seq of the newest event"),
        sa.Column("trained_tokens", sa.BigInteger(), nullable=False),
        sa.Column("progress", sa.Text(), nullable=False, comment="newest progress as JSON, or empty"),
        sa.Column("metrics", sa.Text(), nullable=False, comment="newest figure of every metric, as JSON"),
        sa.Column("error_code", sa.String(length=64), nullable=False),
        sa.Column("error_message", sa.String(length=512), nullable=False),
        sa.Column("error_param", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["policy_sha256"],
            ["policy.digest"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index("job_by_team", ["team", "created_at"], unique=False)
        batch_op.create_index(
            "job_leased",
            ["lease_until"],
            unique=False,
            sqlite_where=sa.text("lease_until > 0"),
            postgresql_where=sa.text("lease_until > 0"),
        )
        batch_op.create_index(
            "job_waiting",
            ["pool", "priority", "created_at"],
            unique=False,
            sqlite_where=sa.text("state IN ('QUEUED', 'PREEMPTED')"),
            postgresql_where=sa.text("state IN ('QUEUED', 'PREEMPTED')"),
        )

    op.create_table(
        "model_version",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("team", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False, comment="UPLOADING, READY, CANDIDATE or RELEASED"),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("base", sa.String(length=64), nullable=False, comment="empty for a base model"),
        sa.Column("base_digest", sa.String(length=64), nullable=False),
        sa.Column("layers", sa.Text(), nullable=False, comment="JSON: [[kind, object_id, digest]]"),
        sa.Column("job_id", sa.String(length=64), nullable=False, comment="empty for a base model"),
        sa.Column("spec_digest", sa.String(length=64), nullable=False),
        sa.Column("dataset_digests", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("seed", sa.String(length=20), nullable=False, comment="uint64 in decimal"),
        sa.Column("metrics_before", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("metrics_after", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("epsilon", sa.Double(), nullable=True),
        sa.Column("result", sa.LargeBinary(), nullable=False, comment="signed by the host; empty for a base model"),
        sa.Column("licence", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["object_id"],
            ["sealed_object.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("model_version", schema=None) as batch_op:
        batch_op.create_index("model_version_by_name", ["name", "created_at"], unique=False)
        batch_op.create_index("model_version_by_object", ["object_id"], unique=False)
        batch_op.create_index("model_version_by_team", ["team", "created_at"], unique=False)

    op.create_table(
        "artifact",
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="state or export"),
        sa.Column("result", sa.LargeBinary(), nullable=False, comment="signed by the host"),
        sa.Column("result_sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.ForeignKeyConstraint(
            ["object_id"],
            ["sealed_object.id"],
        ),
        sa.PrimaryKeyConstraint("object_id"),
    )
    with op.batch_alter_table("artifact", schema=None) as batch_op:
        batch_op.create_index("artifact_by_job", ["job_id", "kind", "attempt", "step"], unique=False)

    op.create_table(
        "job_attempt",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("team", sa.String(length=64), nullable=False),
        sa.Column("pool", sa.String(length=64), nullable=False),
        sa.Column("worker", sa.String(length=64), nullable=False),
        sa.Column("leased_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False, comment="0 while it runs"),
        sa.Column(
            "outcome", sa.String(length=16), nullable=False, comment="job state that it asked for, LOST, or empty"
        ),
        sa.Column("last_stream_seq", sa.BigInteger(), nullable=False, comment="of the worker's reports"),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt"),
    )
    with op.batch_alter_table("job_attempt", schema=None) as batch_op:
        batch_op.create_index("job_attempt_usage", ["pool", "leased_at"], unique=False)

    op.create_table(
        "job_event",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False, comment="gapless, from 1"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("message", sa.String(length=512), nullable=False),
        sa.Column("data", sa.Text(), nullable=False, comment="figures as JSON"),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.PrimaryKeyConstraint("job_id", "seq"),
    )
    op.create_table(
        "job_input",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="place in Authorisation.inputs"),
        sa.Column(
            "role", sa.String(length=16), nullable=False, comment="model, layer, training, validation or evaluation"
        ),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.ForeignKeyConstraint(
            ["object_id"],
            ["sealed_object.id"],
        ),
        sa.PrimaryKeyConstraint("job_id", "position"),
    )
    with op.batch_alter_table("job_input", schema=None) as batch_op:
        batch_op.create_index("job_input_by_object", ["object_id"], unique=False)

    op.create_table(
        "job_step",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.PrimaryKeyConstraint("job_id", "name"),
    )
    op.create_table(
        "release",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("model_version", sa.String(length=64), nullable=False),
        sa.Column("team", sa.String(length=64), nullable=False),
        sa.Column("pool", sa.String(length=64), nullable=False),
        sa.Column("requester", sa.String(length=64), nullable=False),
        sa.Column("recipient", sa.String(length=64), nullable=False, comment="person id"),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("policy_sha256", sa.String(length=64), nullable=False),
        sa.Column("approvals_required", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False, comment="the fencing token"),
        sa.Column("worker", sa.String(length=64), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("wrap_key_id", sa.String(length=32), nullable=False),
        sa.Column("wrap", sa.LargeBinary(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False, comment="signed by the host, once granted"),
        sa.Column("refusal", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version"],
            ["model_version.id"],
        ),
        sa.ForeignKeyConstraint(
            ["policy_sha256"],
            ["policy.digest"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.create_index("release_by_team", ["team", "created_at"], unique=False)
        batch_op.create_index("release_by_version", ["model_version"], unique=False)
        batch_op.create_index("release_waiting", ["pool", "state", "created_at"], unique=False)

    op.create_table(
        "release_approval",
        sa.Column("release_id", sa.String(length=64), nullable=False),
        sa.Column("approver", sa.String(length=64), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["release_id"],
            ["release.id"],
        ),
        sa.PrimaryKeyConstraint("release_id", "approver"),
    )


def downgrade() -> None:
    op.drop_table("release_approval")
    with op.batch_alter_table("release", schema=None) as batch_op:
        batch_op.drop_index("release_waiting")
        batch_op.drop_index("release_by_version")
        batch_op.drop_index("release_by_team")

    op.drop_table("release")
    op.drop_table("job_step")
    with op.batch_alter_table("job_input", schema=None) as batch_op:
        batch_op.drop_index("job_input_by_object")

    op.drop_table("job_input")
    op.drop_table("job_event")
    with op.batch_alter_table("job_attempt", schema=None) as batch_op:
        batch_op.drop_index("job_attempt_usage")

    op.drop_table("job_attempt")
    with op.batch_alter_table("artifact", schema=None) as batch_op:
        batch_op.drop_index("artifact_by_job")

    op.drop_table("artifact")
    with op.batch_alter_table("model_version", schema=None) as batch_op:
        batch_op.drop_index("model_version_by_team")
        batch_op.drop_index("model_version_by_object")
        batch_op.drop_index("model_version_by_name")

    op.drop_table("model_version")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index(
            "job_waiting",
            sqlite_where=sa.text("state IN ('QUEUED', 'PREEMPTED')"),
            postgresql_where=sa.text("state IN ('QUEUED', 'PREEMPTED')"),
        )
        batch_op.drop_index(
            "job_leased", sqlite_where=sa.text("lease_until > 0"), postgresql_where=sa.text("lease_until > 0")
        )
        batch_op.drop_index("job_by_team")

    op.drop_table("job")
    op.drop_table("opening")
