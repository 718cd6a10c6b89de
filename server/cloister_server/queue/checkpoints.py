# SPDX-License-Identifier: Apache-2.0
"""How long checkpoints are kept: while their job may go on from them, and of those the newest.

A site that kept every checkpoint would fill its store: each holds the trained weights and the optimiser's state.
What is discarded loses its wraps first, and each has an entry in the log.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, select

from cloister.evidence.entry import Event, Subject
from cloister_server.calls import SYSTEM
from cloister_server.database import tables
from cloister_server.database.rows import ObjectRow, several
from cloister_server.database.unit_of_work import Transaction
from cloister_server.queue.states import ENDED
from cloister_server.registry import objects

KIND = "state"
KEPT = 2
"""Newest complete checkpoints of a job that runs: one to go on from, and the one before it."""

_ARTIFACT = tables.artifact
_JOB = tables.job
_OBJECT = tables.sealed_object


def newest(connection: Connection, job_id: str, key_id: str) -> str:
    """Object id of the newest complete checkpoint that the host with this key can unwrap, or empty."""
    grant = tables.object_grant
    query = (
        select(_ARTIFACT.c.object_id)
        .join(_OBJECT, _OBJECT.c.id == _ARTIFACT.c.object_id)
        .join(grant, (grant.c.object_id == _ARTIFACT.c.object_id) & (grant.c.recipient_key_id == key_id))
        .where(_ARTIFACT.c.job_id == job_id, _ARTIFACT.c.kind == KIND, _OBJECT.c.state == objects.READY)
        .order_by(_ARTIFACT.c.step.desc(), _ARTIFACT.c.attempt.desc())
    )
    found = connection.execute(query.limit(1)).scalar_one_or_none()
    return "" if found is None else str(found)


def discard_older(tx: Transaction, object_id: str) -> None:
    """One more is complete: discard the same job's complete ones but the `KEPT` newest."""
    job_id = tx.connection.execute(select(_ARTIFACT.c.job_id).where(_ARTIFACT.c.object_id == object_id)).scalar_one()
    complete = _checkpoints().where(_ARTIFACT.c.job_id == job_id, _OBJECT.c.state == objects.READY)
    _discard(tx, complete.order_by(_ARTIFACT.c.step.desc(), _ARTIFACT.c.attempt.desc()).offset(KEPT))


def discard_all(tx: Transaction, job_id: str) -> None:
    """The job has ended: discard what there is, complete or not."""
    _discard(tx, _checkpoints().where(_ARTIFACT.c.job_id == job_id, _OBJECT.c.state != objects.DELETED))


def discard_of_ended(tx: Transaction) -> None:
    """At a start: discard those of every job that has ended; versions before this one kept them."""
    ended = _checkpoints().join(_JOB, _JOB.c.id == _ARTIFACT.c.job_id).where(_JOB.c.state.in_(ENDED))
    _discard(tx, ended.where(_OBJECT.c.state != objects.DELETED))


# Whole rows of one table; SQLAlchemy's type for them is Any.
def _checkpoints() -> Select[Any]:
    return select(_OBJECT).join(_ARTIFACT, _ARTIFACT.c.object_id == _OBJECT.c.id).where(_ARTIFACT.c.kind == KIND)


def _discard(tx: Transaction, query: Select[Any]) -> None:
    # Locked, so that of two control planes that start at once only one writes the entry.
    for row in several(tx.connection, query.with_for_update(of=_OBJECT), ObjectRow):
        objects.destroy(tx, row)
        tx.record(Event("artifact.delete", SYSTEM, Subject("artifact", row.id, row.trailer_sha256)))
