# SPDX-License-Identifier: Apache-2.0
"""More roles of inputs: replay rows and a second model."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _comment("as in Authorisation.places")


def downgrade() -> None:
    _comment("model, layer, training, validation or evaluation")


def _comment(text: str) -> None:
    """SQLite keeps no comments, and would copy the whole table for one."""
    if op.get_bind().dialect.name != "sqlite":
        kind = sa.String(length=16)
        op.alter_column("job_input", "role", existing_type=kind, existing_nullable=False, comment=text)
