# SPDX-License-Identifier: Apache-2.0
"""NAME@REVISION, and the chain of a dataset's revisions, proven link by link."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from cloister.api.v1 import datasets_pb2
from cloister.errors import NotFoundError, UsageError
from cloister.evidence.manifest import Manifest, VerifiedObject, verify_object
from cloister.evidence.revisions import check_appended, revision_of
from cloister.session import Session
from cloister.wire import sealed_from_proto

_REVISION = re.compile(r"(?P<name>.+)@(?P<number>[1-9][0-9]{0,8})")
Get = Callable[[str], datasets_pb2.Dataset]
"""Asks the control plane for a dataset by id."""


def split_revision(name: str) -> tuple[str, int] | None:
    """Name and number of NAME@REVISION; None for another name."""
    found = _REVISION.fullmatch(name)
    return (found["name"], int(found["number"])) if found else None


def check_no_revision(name: str) -> str:
    """Raise UsageError for a name that would be read as a revision's."""
    if split_revision(name):
        raise UsageError(f"dataset name {name[:60]!r}: @ and a number at its end say a revision; choose another")
    return name


def check_newest(earlier: Manifest, others: Iterable[Manifest]) -> None:
    """Raise UsageError where another dataset appends to `earlier`: a name has one chain, without forks."""
    later = next((one for one in others if revision_of(one).earlier_id == earlier.id), None)
    if later is not None:
        raise UsageError(
            f"{shown_name(later)} follows {shown_name(earlier)} already; append to {later.name}, the newest"
        )


def chain(session: Session, newest: VerifiedObject, get: Get) -> Iterator[VerifiedObject]:
    """A dataset and every one that it builds on, newest first.

    An earlier one is checked as of the day when it was appended to: it may have expired, or be deleted, since.
    Raises an EvidenceError where the control plane shows another one than was signed.
    """
    found = newest
    while True:
        yield found
        later = found.manifest
        said = revision_of(later)
        if not said.earlier_id:
            return
        sealed = sealed_from_proto(get(said.earlier_id).sealed)
        found = verify_object(sealed, session.site.roster, now=later.created_at)
        check_appended(found, later)


def at_revision(session: Session, newest: VerifiedObject, number: int, get: Get) -> VerifiedObject:
    """The revision of this number.  Raises NotFoundError, and an EvidenceError as `chain` does."""
    found = next((one for one in chain(session, newest, get) if revision_of(one.manifest).number == number), None)
    if found is None:
        newest_number = revision_of(newest.manifest).number
        raise NotFoundError(
            f"dataset {newest.manifest.name} has revisions 1 to {newest_number}, none of number {number}"
        )
    return found


def shown_name(manifest: Manifest) -> str:
    """The name, with the revision from the second on."""
    number = revision_of(manifest).number
    return manifest.name if number == 1 else f"{manifest.name}@{number}"
