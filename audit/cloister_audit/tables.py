# SPDX-License-Identifier: Apache-2.0
"""The ledger's tables.  Evidence is audit_entry and audit_checkpoint; everything else can be derived from it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)

metadata = MetaData()

audit_entry = Table(
    "audit_entry",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    comment="Insert only. Canonical bytes, never serialised again.",
)

audit_node = Table(
    "audit_node",
    metadata,
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    comment="Hash of the complete subtree over leaves [idx << level, (idx + 1) << level). Insert only, derivable.",
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("frontier", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="audit_head_is_one_row"),
    comment="The one lock of the ledger. Derivable.",
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("note", LargeBinary, nullable=False),
    Column("signed_at", BigInteger, nullable=False, comment="Microseconds since 1970, UTC."),
    comment="Insert only. Signed heads that were handed out.",
)

audit_index = Table(
    "audit_index",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("ts", BigInteger, nullable=False, comment="Microseconds since 1970, UTC."),
    Column("action", String(64), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("object_type", String(32), nullable=False),
    Column("object_id", String(128), nullable=False),
    Index("audit_index_action", "action", "seq"),
    Index("audit_index_actor", "actor", "seq"),
    Index("audit_index_object", "object_id", "seq"),
    comment="For searching. Rebuildable, never evidence.",
)
