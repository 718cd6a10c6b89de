# SPDX-License-Identifier: Apache-2.0
"""Reports and figures of de-biasing jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COMMENTS = (
    ("sealed_object", "dataset, model, state or export", "dataset, model, state, export or report"),
    ("artifact", "state or export", "state, export or report"),
)


def upgrade() -> None:
    op.create_table(
        "artifact_figures",
        sa.Column("object_id", sa.String(length=64), nullable=False, comment="the export whose result binds them"),
        sa.Column("figures", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["object_id"], ["artifact.object_id"]),
        sa.PrimaryKeyConstraint("object_id"),
        comment="Insert only. Numbers of a de-biasing job, without names: canonical JSON.",
    )
    _comment({table: new for table, _, new in _COMMENTS})


def downgrade() -> None:
    _comment({table: old for table, old, _ in _COMMENTS})
    op.drop_table("artifact_figures")


def _comment(texts: dict[str, str]) -> None:
    """SQLite keeps no comments, and would copy the whole table for one."""
    if op.get_bind().dialect.name != "sqlite":
        for table, text in texts.items():
            op.alter_column(table, "kind", existing_type=sa.String(length=16), existing_nullable=False, comment=text)
