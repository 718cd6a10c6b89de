# SPDX-License-Identifier: Apache-2.0
"""Places where tests kill this process with SIGKILL, to see that nothing is lost or done twice."""

from __future__ import annotations

import os
import signal

VARIABLE = "CLOISTER_TESTING_CRASH_AT"
POINTS = (
    "after-lease",
    "after-opening",
    "after-trainer-start",
    "after-checkpoint-sealed",
    "before-upload",
    "before-finish",
    "after-finish",
)


def crash_here(name: str) -> None:
    """Die at once, if this is the place that the environment names."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
