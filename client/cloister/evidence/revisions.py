# SPDX-License-Identifier: Apache-2.0
"""Revisions of a dataset: each is a sealed object of its own, with the new rows alone, that names the one before it.

The manifest's details say so, under the owner's signature: `revision`, from 2, `appends_to` and `appends_to_sha256`, id
and trailer digest of the revision before.  A dataset that says none of them is revision 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.fields import Fields
from cloister.evidence.manifest import Manifest, VerifiedObject

DETAILS = ("revision", "appends_to", "appends_to_sha256")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Revision:
    """Which one a dataset is."""

    number: int
    """From 1."""
    earlier_id: str = ""
    """Empty for the first."""
    earlier_sha256: str = ""
    """Of the trailer, hex."""


def revision_of(manifest: Manifest) -> Revision:
    """What the owner says.  Raises FormatError for some of the three details, or one that is none."""
    said = {name: manifest.details[name] for name in DETAILS if name in manifest.details}
    if not said:
        return Revision(1)
    fields = Fields("revision", dict(said))
    number = int(fields.matching("revision", _NUMBER, "a number"))
    found = Revision(number, fields.identifier("appends_to"), fields.digest("appends_to_sha256"))
    if number < 2 or manifest.kind != "dataset":
        raise FormatError(f"{manifest.kind} {manifest.id}: only a dataset appends to another, from revision 2 on")
    return found


def details_after(earlier: VerifiedObject) -> dict[str, str]:
    """Details of the manifest that appends to this dataset."""
    number = revision_of(earlier.manifest).number + 1
    names = (str(number), earlier.manifest.id, earlier.trailer_sha256)
    return dict(zip(DETAILS, names, strict=True))


def check_appended(earlier: VerifiedObject, later: Manifest) -> None:
    """Raise BindingError unless `earlier` is the very dataset that `later` appends to."""
    said = revision_of(later)
    if (said.earlier_id, said.earlier_sha256) != (earlier.manifest.id, earlier.trailer_sha256):
        raise BindingError(f"dataset {later.id}: the revision shown before it is not the one that it appends to")
    same = (earlier.manifest.kind, earlier.manifest.name, earlier.manifest.team, revision_of(earlier.manifest).number)
    if same != ("dataset", later.name, later.team, said.number - 1):
        raise BindingError(f"dataset {later.id}: what it appends to has another name, team or number")
