# SPDX-License-Identifier: Apache-2.0
"""The root's signature over a roster."""

from __future__ import annotations

from dataclasses import replace

from cloister.admin.custody import Custody
from cloister.errors import UsageError
from cloister.evidence.roster import ROSTER_TYPE, Roster
from cloister.evidence.signatures import SigningKey, Statement

_DAY = 24 * 3600


def sign_roster(root: SigningKey, draft: Roster, days: int, *, now: int) -> Statement:
    """Sign a draft for `days` days, under the version that it carries.  Raises UsageError for an unfinished one."""
    if not draft.log_vkey:
        raise UsageError("the roster names no audit log; run: cloister-admin log keygen")
    if days < 1:
        raise UsageError(f"a roster is valid for at least one day, not {days}")
    roster = replace(draft, issued_at=now, expires_at=now + days * _DAY)
    return root.sign(ROSTER_TYPE, roster.to_payload())


def sign_next(custody: Custody, days: int, *, now: int) -> Statement:
    """Sign the custodian's draft and count its version on.

    Order: the draft's version first, then the roster.  A crash in between skips a version, which harms nobody;
    the other order could sign two different rosters of one version.
    """
    draft = custody.draft()
    statement = sign_roster(custody.root_key(), draft, days, now=now)
    custody.save_draft(replace(draft, version=draft.version + 1))
    custody.save_roster(statement)
    return statement
