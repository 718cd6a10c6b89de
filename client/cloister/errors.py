# SPDX-License-Identifier: Apache-2.0
"""Errors of the client.

    CloisterError                 any failure that the client reports; its exit code is `exit_code`
    ├── UsageError                an argument, a file or a specification is wrong            2
    │   ├── RowsError             rows of a dataset are not what they must be                2
    │   └── ConfigurationError    a service's configuration file is wrong                    2
    ├── HomeError                 the home directory is not there, not complete, or taken    2
    ├── ConnectError              the control plane cannot be reached, or not now            3
    ├── NotFoundError             no such object, or one of another team                     4
    ├── PermissionDeniedError     the roles of this person, or the certificate, do not do    5
    ├── SiteRejectedError         the control plane refused a signed document                6
    ├── JobFailedError            the job that was watched did not succeed                   7
    ├── RefusedError              a rule or a state of the site forbids it                   1
    │   ├── ConflictError         the id is in use for something else                        1
    │   ├── UploadError           the upload does not fit what was declared                  1
    │   └── StorageError          the store, or this machine's disk, is full                 1
    └── ServerError               a defect of the control plane                              1

Two trees are not below it: `cloister.evidence.errors.EvidenceError` (exit code 6: the site showed something
that is not true) and `cloister.sealed.errors.SealedError` (exit code 8: an envelope does not open).
A message is one line: what is wrong; what to do.  It carries names, sizes and row numbers, never content.
"""

from typing import ClassVar


class CloisterError(Exception):
    """The client could not do what it was asked."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """Name in errors.proto without its prefix, where the control plane gave one."""


class UsageError(CloisterError):
    """An argument, a file or a specification is wrong."""

    exit_code = 2


class RowsError(UsageError):
    """Rows of a dataset are not what they must be; the message names their numbers."""


class ConfigurationError(UsageError):
    """A service's configuration file is wrong; one line for each problem, with the file and the line."""


class HomeError(CloisterError):
    """The home directory is not there, not complete, or taken."""

    exit_code = 2


class ConnectError(CloisterError):
    """The control plane cannot be reached, or cannot answer now."""

    exit_code = 3


class NotFoundError(CloisterError):
    """There is no such object, or it is another team's."""

    exit_code = 4


class PermissionDeniedError(CloisterError):
    """This person may not do that, or is not known."""

    exit_code = 5


class SiteRejectedError(CloisterError):
    """The control plane refused a signed document."""

    exit_code = 6


class JobFailedError(CloisterError):
    """The job that was watched ended without a result."""

    exit_code = 7


class RefusedError(CloisterError):
    """A rule or a state of the site forbids it."""


class ConflictError(RefusedError):
    """The id is in use for something else."""


class UploadError(RefusedError):
    """What was sent does not fit what was declared."""


class StorageError(RefusedError):
    """No space is left."""


class ServerError(CloisterError):
    """The control plane has a defect, or answered what it must not."""
