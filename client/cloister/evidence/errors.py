# SPDX-License-Identifier: Apache-2.0
"""Errors of the evidence package.

    EvidenceError               any refusal; never raised itself
    ├── FormatError             bytes or fields do not have the specified form
    ├── SignatureError          no signature of a trusted key, or one that does not verify
    ├── TamperedError           a hash or proof does not lead to the value that it must lead to
    ├── TruncatedError          something that must be there is missing
    ├── ForkError               two histories that cannot both be true
    ├── RollbackError           an older state than one already seen
    ├── ExpiredError            past its time, or made in the future
    ├── RosterError             a person, team or host that the roster does not name
    ├── BindingError            two documents that must name the same thing do not
    ├── ReplayError             something that may happen once is asked for again
    └── PolicyError             the signed policy does not allow it

`reason` is the stable name of the class for machines; the message is for people.
Messages carry names, sizes, indices and digests, never content of a dataset.
"""

from typing import ClassVar


class EvidenceError(Exception):
    """Evidence was refused."""

    reason: ClassVar[str] = "EVIDENCE_REFUSED"


class FormatError(EvidenceError):
    """The bytes do not have the form that the specification demands."""

    reason: ClassVar[str] = "BAD_FORMAT"


class SignatureError(EvidenceError):
    """A signature is missing, made by an unknown key, or does not verify."""

    reason: ClassVar[str] = "BAD_SIGNATURE"


class TamperedError(EvidenceError):
    """A recomputed hash differs from the recorded one."""

    reason: ClassVar[str] = "TAMPERED"


class TruncatedError(EvidenceError):
    """A part that the evidence itself promises is missing."""

    reason: ClassVar[str] = "TRUNCATED"


class ForkError(EvidenceError):
    """Two signed states contradict each other: the log shows different people different histories."""

    reason: ClassVar[str] = "FORK"


class RollbackError(EvidenceError):
    """The state is older than one that was already accepted."""

    reason: ClassVar[str] = "ROLLBACK"


class ExpiredError(EvidenceError):
    """The document is past its time, or was made in the future."""

    reason: ClassVar[str] = "EXPIRED"


class RosterError(EvidenceError):
    """The roster does not name this person, team or host, or not with the needed role."""

    reason: ClassVar[str] = "NOT_ON_ROSTER"


class BindingError(EvidenceError):
    """Two documents that must name the same thing name different ones: something was swapped."""

    reason: ClassVar[str] = "BINDING"


class ReplayError(EvidenceError):
    """Something that may happen once was asked for again."""

    reason: ClassVar[str] = "REPLAY"


class PolicyError(EvidenceError):
    """The signed policy does not allow it."""

    reason: ClassVar[str] = "POLICY_NOT_MET"
