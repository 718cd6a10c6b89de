# SPDX-License-Identifier: Apache-2.0
"""Which programs a schema takes."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
compatible_from = "0006"


def upgrade() -> None:
    op.create_table(
        "schema_compatibility",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "compatible_from",
            sa.String(length=32),
            nullable=False,
            comment="revision; a program that knows it may run on this schema",
        ),
        sa.CheckConstraint("id = 1", name="schema_compatibility_is_one_row"),
        sa.PrimaryKeyConstraint("id"),
        comment="Its one row is written by every migration.",
    )


def downgrade() -> None:
    op.drop_table("schema_compatibility")
