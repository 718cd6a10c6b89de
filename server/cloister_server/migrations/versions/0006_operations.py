# SPDX-License-Identifier: Apache-2.0
"""Maintenance, what is known of worker hosts, and quotas."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "maintenance",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False, comment="in an admin's words, shown to everybody"),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until_s", sa.BigInteger(), nullable=False, comment="expected end, Unix seconds; 0 for none"),
        sa.Column("by_person", sa.String(length=64), nullable=False),
        sa.CheckConstraint("id = 1", name="maintenance_is_one_row"),
        sa.PrimaryKeyConstraint("id"),
        comment="Its one row is there while nothing new is taken.",
    )
    op.create_table(
        "worker_host",
        sa.Column("host", sa.String(length=64), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False, comment="ACTIVE, CORDONED or DRAINING"),
        sa.Column("last_seen", sa.BigInteger(), nullable=False, comment="0 for never"),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("sandboxed", sa.Boolean(), nullable=True),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("host"),
        comment="What hosts of the roster said of themselves last.",
    )
    op.create_table(
        "team_quota",
        sa.Column("team", sa.String(length=64), nullable=False),
        sa.Column("queued_jobs", sa.BigInteger(), nullable=True),
        sa.Column("running_jobs", sa.BigInteger(), nullable=True),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("gpu_seconds", sa.BigInteger(), nullable=True, comment="in 24 hours"),
        sa.PrimaryKeyConstraint("team"),
        comment="What a team may have at once; null for no limit.",
    )


def downgrade() -> None:
    op.drop_table("team_quota")
    op.drop_table("worker_host")
    op.drop_table("maintenance")
