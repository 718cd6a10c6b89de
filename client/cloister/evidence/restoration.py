# SPDX-License-Identifier: Apache-2.0
"""Going back with a log that was restored from a backup: EVIDENCE.md, section "A restored log".

Whoever remembers a head refuses a shorter log, and must: a control plane that rolls back is what the memory is for.  A
site that lost its disk rolls back as well.  The two are told apart by the root: its roster names the head at which the
restored log went on.  Each such head is accepted once, when the roster that brings it is accepted, and a roster never
goes back; so a control plane cannot use the same head again to cut off what was logged since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.note import parse_note

if TYPE_CHECKING:
    from cloister.evidence.roster import Roster


@dataclass(frozen=True)
class LogMemory:
    """What a client or key agent keeps of the log."""

    checkpoint: str
    """Signed note of the newest head, verified before it was kept; empty before the first."""
    restorations: int
    """How many heads of `Roster.log_restored` were accepted."""

    def head(self) -> Checkpoint | None:
        return Checkpoint.parse(parse_note(self.checkpoint.encode("utf-8"))[0]) if self.checkpoint else None


def after_restorations(memory: LogMemory, roster: Roster) -> LogMemory:
    """The memory to judge the log by under a verified roster; keep it together with the roster's version.

    A head that was remembered beyond a newly named one gives way to it.  What lies before that head stays protected:
    the log must extend it.  Raises FormatError, SignatureError for a head that the log's key did not sign.
    """
    checkpoint, head = memory.checkpoint, memory.head()
    heads = roster.restored_heads()
    for note, restored in list(zip(roster.log_restored, heads, strict=True))[memory.restorations :]:
        if head is not None and head.size > restored.size:
            checkpoint, head = note, restored
    return LogMemory(checkpoint, max(memory.restorations, len(heads)))
