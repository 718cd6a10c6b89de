# SPDX-License-Identifier: Apache-2.0
"""RFC 9162 proofs out of the stored hashes of complete subtrees: a proof reads O(log n) rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from cloister.evidence.merkle import Subtree, consistency_path, inclusion_path, subtree_reader
from cloister_audit.errors import AuditCorruptError
from cloister_audit.tables import audit_node

if TYPE_CHECKING:
    from collections.abc import Callable


def inclusion(connection: Connection, index: int, size: int) -> list[bytes]:
    """Proof that entry `index` is in the tree of `size` entries.  Raises FormatError for an index outside it."""
    return inclusion_path(index, size, _reader(connection))


def consistency(connection: Connection, old: int, new: int) -> list[bytes]:
    """Proof that the tree of `new` entries extends that of `old`.  Raises FormatError where old > new."""
    return consistency_path(old, new, _reader(connection))


def _reader(connection: Connection) -> Subtree:
    return subtree_reader(_stored_hash(connection))


def _stored_hash(connection: Connection) -> Callable[[int, int], bytes]:
    def read(level: int, index: int) -> bytes:
        query = select(audit_node.c.hash).where(audit_node.c.level == level, audit_node.c.idx == index)
        found: bytes | None = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise AuditCorruptError(f"hash {index} of level {level} is missing: run cloister-audit fsck")
        return found

    return read
