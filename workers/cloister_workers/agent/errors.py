# SPDX-License-Identifier: Apache-2.0
"""Errors of the agent.

* AgentError               (a WorkerError)
  * ConfigError            the host's directory is not complete
  * LeaseLostError         another worker may hold the work: nothing more may be written
  * StopRequestedError     the control plane or the administrator ended the work; carries what was asked for
  * AttemptError           the attempt ended without a result; `code` is from docs/reference/job-errors.md
    * JobFault             because of the job itself: trying again would end the same way
      * LogBehindError     the log is shorter than the one that this host remembers
    * HostFault            because of this host or the way to it: another attempt may do better
"""

from __future__ import annotations

from enum import StrEnum

from cloister_workers.errors import WorkerError


class AgentError(WorkerError):
    """Something about the agent went wrong."""


class ConfigError(AgentError):
    """The host's directory is not complete."""


class LeaseLostError(AgentError):
    """Another worker may hold the work."""


class Stop(StrEnum):
    """Why work is ended early."""

    CANCEL = "cancel"
    PAUSE = "pause"
    SHUTDOWN = "shutdown"


class StopRequestedError(AgentError):
    """The work is to be ended."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(f"asked to stop: {stop}")
        self.stop = stop


class AttemptError(AgentError):
    """The attempt ended without a result; code, message and param go to the control plane: fixed words only."""

    def __init__(self, code: str, message: str, param: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class JobFault(AttemptError):
    """Trying again would end the same way."""


class LogBehindError(JobFault):
    """The log is behind the one that this host remembers, and no roster says that it was restored."""


class HostFault(AttemptError):
    """Another attempt may do better."""
