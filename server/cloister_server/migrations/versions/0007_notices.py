# SPDX-License-Identifier: Apache-2.0
"""Completion notices that are still to be delivered; the pool of a worker host, for forecasts."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notice",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=16), nullable=False, comment="command or url"),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False, comment="JSON, as it is sent"),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="the fencing token"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "due_at",
            sa.BigInteger(),
            nullable=False,
            comment="next attempt; while one runs, when its lease is over",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"]),
        sa.PrimaryKeyConstraint("id", "target"),
        comment="Ends of jobs that the site is still to be told of; deleted once it was.",
    )
    op.create_index("notice_due", "notice", ["target", "due_at"])
    # Nullable, so that a server one version behind goes on writing its rows.
    op.add_column(
        "worker_host",
        sa.Column(
            "pool", sa.String(length=64), nullable=True, comment="by its certificate; null until it asks for work"
        ),
    )


def downgrade() -> None:
    with op.batch_alter_table("worker_host") as table:
        table.drop_column("pool")
    op.drop_table("notice")
