# SPDX-License-Identifier: Apache-2.0
"""What a start makes good, before the first call is answered.

(1) A blob that was renamed but not recorded becomes READY, after its digest was checked again.  (2) Partial
files and blobs that no object wants any more (a deletion that was cut short) go away.  Leases need nothing:
those that ran out are swept as at any other time.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from cloister_server.database import tables
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.registry import objects
from cloister_server.store import Store
from cloister_server.uploads import Uploads

_OBJECT = tables.sealed_object


@dataclass(frozen=True)
class Recovered:
    """What was found."""

    recorded: int
    discarded: int


def reconcile(unit_of_work: UnitOfWork, store: Store, uploads: Uploads) -> Recovered:
    """Make register and store agree.  Doing it again changes nothing."""
    recorded = 0
    for row in unit_of_work.read(objects.uploading):
        declared = objects.declared(row)
        if not store.is_complete(declared):
            continue
        if store.verify(declared) and uploads.recover(row):
            recorded += 1
        else:
            store.discard_blob(declared)
    return Recovered(recorded, _discard(unit_of_work, store))


def _discard(unit_of_work: UnitOfWork, store: Store) -> int:
    # Files first: an object is declared before its first byte, so a file without a state then is nobody's, even while
    # another control plane takes uploads.
    partials, blobs = list(store.partials()), list(store.blobs())
    states = unit_of_work.read(_states)
    discarded = 0
    for object_id in partials:
        if states.get(object_id) != objects.UPLOADING:
            store.discard_partial(object_id)
            discarded += 1
    for declared in blobs:
        if states.get(declared.object_id) in (None, objects.DELETED):
            store.discard_blob(declared)
            discarded += 1
    return discarded


def _states(connection: Connection) -> dict[str, str]:
    return {row.id: row.state for row in connection.execute(select(_OBJECT.c.id, _OBJECT.c.state))}
