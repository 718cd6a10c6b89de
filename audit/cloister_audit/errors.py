# SPDX-License-Identifier: Apache-2.0
"""Errors of the audit package.

AuditError                  any failure of the ledger
├── AuditWriteError         entries cannot be appended: the change that they belong to must not happen
├── AuditCorruptError       what is stored contradicts itself: stop, and let a person look
└── UnknownActionError      an action that the catalogue does not list: a defect of the caller
"""


class AuditError(Exception):
    """The ledger failed."""


class AuditWriteError(AuditError):
    """Entries cannot be appended, so the change that they record must not happen."""


class AuditCorruptError(AuditError):
    """What is stored contradicts itself; nothing is signed until a person has looked."""


class UnknownActionError(AuditError):
    """An action is missing from the catalogue."""
