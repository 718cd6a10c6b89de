# SPDX-License-Identifier: Apache-2.0
"""The register and the audit log."""

import sqlalchemy as sa
from alembic import op

from cloister.evidence.merkle import Frontier

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policy",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("policy_id", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
        sa.UniqueConstraint("version"),
        comment="Insert only. The highest version is in force; jobs stay bound to theirs.",
    )
    op.create_table(
        "roster",
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("statement", sa.LargeBinary(), nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
        comment="Insert only. Every roster that was in force; the highest version is.",
    )
    op.create_table(
        "sealed_object",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="dataset, model, state or export"),
        sa.Column("team", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False, comment="person or host id"),
        sa.Column("pool", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("trailer", sa.LargeBinary(), nullable=False),
        sa.Column("trailer_sha256", sa.String(length=64), nullable=False),
        sa.Column("ciphertext_sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="bytes of ciphertext"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_s", sa.BigInteger(), nullable=False, comment="Unix seconds, from the manifest"),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("sealed_object", schema=None) as batch_op:
        batch_op.create_index("sealed_object_by_blob", ["ciphertext_sha256"], unique=False)
        batch_op.create_index("sealed_object_by_team", ["kind", "team", "created_at"], unique=False)

    op.create_table(
        "object_grant",
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("recipient_key_id", sa.String(length=32), nullable=False),
        sa.Column("wrap", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["object_id"],
            ["sealed_object.id"],
        ),
        sa.PrimaryKeyConstraint("object_id", "recipient_key_id"),
    )
    op.create_table(
        "audit_checkpoint",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=False, comment="Microseconds since 1970, UTC."),
        sa.PrimaryKeyConstraint("size"),
        comment="Insert only. Signed heads that were handed out.",
    )
    op.create_table(
        "audit_entry",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        comment="Insert only. Canonical bytes, never serialised again.",
    )
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name="audit_head_is_one_row"),
        sa.PrimaryKeyConstraint("id"),
        comment="The one lock of the ledger. Derivable.",
    )
    op.create_table(
        "audit_index",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ts", sa.BigInteger(), nullable=False, comment="Microseconds since 1970, UTC."),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("object_type", sa.String(length=32), nullable=False),
        sa.Column("object_id", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        comment="For searching. Rebuildable, never evidence.",
    )
    with op.batch_alter_table("audit_index", schema=None) as batch_op:
        batch_op.create_index("audit_index_action", ["action", "seq"], unique=False)
        batch_op.create_index("audit_index_actor", ["actor", "seq"], unique=False)
        batch_op.create_index("audit_index_object", ["object_id", "seq"], unique=False)

    op.create_table(
        "audit_node",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("idx", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "idx"),
        comment="Hash of the complete subtree over leaves [idx << level, (idx + 1) << level). Insert only, derivable.",
    )
    # The one row that every append locks: an empty tree.
    op.bulk_insert(
        sa.table("audit_head", sa.column("id", sa.Integer), sa.column("frontier", sa.LargeBinary)),
        [{"id": 1, "frontier": Frontier().to_bytes()}],
    )


def downgrade() -> None:
    op.drop_table("audit_node")
    with op.batch_alter_table("audit_index", schema=None) as batch_op:
        batch_op.drop_index("audit_index_object")
        batch_op.drop_index("audit_index_actor")
        batch_op.drop_index("audit_index_action")

    op.drop_table("audit_index")
    op.drop_table("audit_head")
    op.drop_table("audit_entry")
    op.drop_table("audit_checkpoint")
    op.drop_table("object_grant")
    with op.batch_alter_table("sealed_object", schema=None) as batch_op:
        batch_op.drop_index("sealed_object_by_team")
        batch_op.drop_index("sealed_object_by_blob")

    op.drop_table("sealed_object")
    op.drop_table("roster")
    op.drop_table("policy")
