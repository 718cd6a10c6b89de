# SPDX-License-Identifier: Apache-2.0
"""A new root for a site, signed in by the old one.

Order, so that a crash leaves something that the same command finishes: (1) the new key is on disk, beside the old one;
(2) the draft carries the succession; (3) the old key gets its retired name, (4) the new one its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from cloister.admin.custody import ROOT_KEY, Custody
from cloister.errors import UsageError
from cloister.evidence.signatures import SigningKey, key_id
from cloister.evidence.succession import MAX_SUCCESSIONS, Succession, sign_succession
from cloister.files import create_private

NEXT_KEY = "root.next.key"


@dataclass(frozen=True)
class Rotated:
    """Which root follows which, by key id."""

    old: str
    new: str
    retired_file: str
    """Where the old key lies now, in the custodian's directory."""


def rotate_root(custody: Custody, *, now: int, random: Callable[[int], bytes] = os.urandom) -> Rotated:
    """Make a new root and let the old one name it; the next roster is signed by the new one.

    Raises UsageError after too many successions, HomeError without a root.
    """
    folder = custody.directory
    draft = custody.draft()
    if not (folder / NEXT_KEY).exists():
        if len(draft.successions) >= MAX_SUCCESSIONS:
            raise UsageError(f"this site had {MAX_SUCCESSIONS} successions; found it anew under another root")
        create_private(folder / NEXT_KEY, (SigningKey.generate(random).export() + "\n").encode("ascii"))  # (1)
    new = SigningKey.parse((folder / NEXT_KEY).read_text("ascii"))
    newest = Succession.parse(draft.successions[-1].payload) if draft.successions else None
    if newest is None or newest.new != new.public:
        signed = sign_succession(draft.site, custody.root_key(), new, now=now)
        custody.save_draft(replace(draft, successions=(*draft.successions, signed)))  # (2)
        newest = Succession.parse(signed.payload)
    old = custody.root_key() if (folder / ROOT_KEY).exists() else None
    if old is not None and old.public != newest.old:
        raise UsageError(f"{folder / ROOT_KEY} is not the root that the draft's last succession starts from")
    old_id = key_id(newest.old)
    if old is not None:
        (folder / ROOT_KEY).rename(folder / f"root-{old_id}.key")  # (3)
    (folder / NEXT_KEY).rename(folder / ROOT_KEY)  # (4)
    return Rotated(old_id, new.key_id, f"root-{old_id}.key")
