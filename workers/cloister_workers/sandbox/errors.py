# SPDX-License-Identifier: Apache-2.0
"""Errors of the sandbox.

* SandboxError            (a WorkerError)
  * SandboxSpecError      what was asked for is not something a sandbox can give
  * SandboxStartError     the sandbox could not be built, or the program in it not started; `stage` says where
"""

from __future__ import annotations

from cloister_workers.errors import WorkerError


class SandboxError(WorkerError):
    """Something about the sandbox went wrong."""


class SandboxSpecError(SandboxError):
    """What was asked for is not something a sandbox can give."""


class SandboxStartError(SandboxError):
    """The sandbox could not be built, or the program in it could not be started.

    `stage` names the step that failed and `errno` is the system's reason (0 where there is none).
    Nothing of the program has run when this is raised.
    """

    def __init__(self, stage: str, errno: int, text: str) -> None:
        super().__init__(f"sandbox not entered at stage {stage!r}: {text}")
        self.stage = stage
        self.errno = errno
