# SPDX-License-Identifier: Apache-2.0
"""One-time enrolment tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "enrolment_token",
        sa.Column(
            "id", sa.String(length=64), nullable=False, comment="id of its signing key; the secret is never here"
        ),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("tls_sha256", sa.String(length=64), nullable=False),
        sa.Column(
            "certificate_pem", sa.Text(), nullable=False, comment="of the token's TLS key: lets its holder connect"
        ),
        sa.Column("statement", sa.LargeBinary(), nullable=False, comment="signed by an admin"),
        sa.Column(
            "claim", sa.LargeBinary(), nullable=False, comment="signed with the token's key; empty while it is open"
        ),
        sa.Column(
            "welcome", sa.LargeBinary(), nullable=False, comment="signed by the root; empty until it is admitted"
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_s", sa.BigInteger(), nullable=False, comment="Unix seconds, from the statement"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tls_sha256"),
    )
    op.create_index("enrolment_token_by_expiry", "enrolment_token", ["expires_at_s"])


def downgrade() -> None:
    op.drop_table("enrolment_token")
