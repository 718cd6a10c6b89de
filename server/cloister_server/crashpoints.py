# SPDX-License-Identifier: Apache-2.0
"""Named places where a test may kill the process.  For testing alone: without the variable nothing happens.

`<unit of work>.before_commit` and `<unit of work>.after_commit`, for the name that each `UnitOfWork.run` is given;
`blob.synced` (bytes on disk, not yet renamed) and `blob.renamed` (renamed, not yet recorded).
"""

from __future__ import annotations

import os
import signal

VARIABLE = "CLOISTER_TESTING_CRASH_AT"
BLOB_SYNCED = "blob.synced"
BLOB_RENAMED = "blob.renamed"


def crash_here(name: str) -> None:
    """End the process as a power cut would, if the test asked for this place."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
