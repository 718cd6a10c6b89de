# SPDX-License-Identifier: Apache-2.0
"""Release: the request, the approvals, and the host's statement that it sealed a version to a recipient.

Every document binds the version's digests, so none can be carried over to another version, and the recipient
is the one that the roster names for the person, never one that the control plane offers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.evidence.canonical import JSON, canonical_bytes
from cloister.evidence.errors import BindingError, ExpiredError, FormatError, PolicyError, RosterError
from cloister.evidence.fields import Fields
from cloister.evidence.figures import PASS, verdict_of
from cloister.evidence.roster import CLOCK_SKEW_SECONDS, Roster, verify_by
from cloister.evidence.signatures import SigningKey, Statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.evidence.policy import Policy
    from cloister.evidence.result import Result

REQUEST_TYPE = "application/vnd.cloister.release-request+json"
APPROVAL_TYPE = "application/vnd.cloister.approval+json"
RELEASE_TYPE = "application/vnd.cloister.release+json"


@dataclass(frozen=True)
class ReleaseRequest:
    """Signed by the member who asks.  Times are Unix seconds."""

    release_id: str
    model_version: str
    result_sha256: str
    trailer_sha256: str
    policy_sha256: str
    requester: str
    team: str
    recipient: str
    """Person id; the key is the one that the roster names."""
    reason: str
    created_at: int
    expires_at: int
    exception: bool = False
    """Asks to release a version whose de-biasing gate was not passed; the field is left out when false."""

    def to_payload(self) -> bytes:
        return canonical_bytes({"type": "release-request", "v": 1, **_without_false(self.__dict__)})

    @classmethod
    def parse(cls, payload: bytes) -> ReleaseRequest:
        """Raises FormatError."""
        fields = Fields.of_document("release-request", payload)
        request = cls(
            release_id=fields.identifier("release_id"),
            model_version=fields.identifier("model_version"),
            result_sha256=fields.digest("result_sha256"),
            trailer_sha256=fields.digest("trailer_sha256"),
            policy_sha256=fields.digest("policy_sha256"),
            requester=fields.identifier("requester"),
            team=fields.identifier("team"),
            recipient=fields.identifier("recipient"),
            reason=fields.text("reason"),
            created_at=fields.time("created_at"),
            expires_at=fields.time("expires_at"),
            exception=fields.mark("exception"),
        )
        fields.finish()
        _check_reason("release-request", request.exception, request.reason)
        return request

    def sign(self, key: SigningKey) -> Statement:
        return key.sign(REQUEST_TYPE, self.to_payload())


@dataclass(frozen=True)
class Approval:
    """Signed by somebody other than the requester."""

    release_id: str
    request_sha256: str
    approver: str
    reason: str
    created_at: int
    exception: bool = False
    """Approves the exception that the request asks for; the field is left out when false."""

    def to_payload(self) -> bytes:
        return canonical_bytes({"type": "approval", "v": 1, **_without_false(self.__dict__)})

    @classmethod
    def parse(cls, payload: bytes) -> Approval:
        """Raises FormatError."""
        fields = Fields.of_document("approval", payload)
        approval = cls(
            release_id=fields.identifier("release_id"),
            request_sha256=fields.digest("request_sha256"),
            approver=fields.identifier("approver"),
            reason=fields.text("reason"),
            created_at=fields.time("created_at"),
            exception=fields.mark("exception"),
        )
        fields.finish()
        _check_reason("approval", approval.exception, approval.reason)
        return approval

    def sign(self, key: SigningKey) -> Statement:
        return key.sign(APPROVAL_TYPE, self.to_payload())


@dataclass(frozen=True)
class Release:
    """Signed by the host that re-wrapped."""

    release_id: str
    request_sha256: str
    result_sha256: str
    trailer_sha256: str
    policy_sha256: str
    approvals_sha256: tuple[str, ...]
    auto_release: bool
    recipient_key_id: str
    wrap_sha256: str
    host: str
    created_at: int
    exception: bool = False
    """Whether the version left by an exception to its de-biasing gate; the field is left out when false."""

    def to_payload(self) -> bytes:
        fields = {**_without_false(self.__dict__), "approvals_sha256": list(self.approvals_sha256)}
        return canonical_bytes({"type": "release", "v": 1, **fields})

    @classmethod
    def parse(cls, payload: bytes) -> Release:
        """Raises FormatError."""
        fields = Fields.of_document("release", payload)
        release = cls(
            release_id=fields.identifier("release_id"),
            request_sha256=fields.digest("request_sha256"),
            result_sha256=fields.digest("result_sha256"),
            trailer_sha256=fields.digest("trailer_sha256"),
            policy_sha256=fields.digest("policy_sha256"),
            approvals_sha256=fields.texts("approvals_sha256"),
            auto_release=fields.boolean("auto_release"),
            recipient_key_id=fields.text("recipient_key_id"),
            wrap_sha256=fields.digest("wrap_sha256"),
            host=fields.identifier("host"),
            created_at=fields.time("created_at"),
            exception=fields.mark("exception"),
        )
        fields.finish()
        return release

    def sign(self, key: SigningKey) -> Statement:
        return key.sign(RELEASE_TYPE, self.to_payload())


def verify_request(statement: Statement, roster: Roster, *, now: int) -> ReleaseRequest:
    """Check that a member of the roster asks.  Raises FormatError, SignatureError, RosterError, ExpiredError."""
    request = ReleaseRequest.parse(statement.payload)
    person = roster.person(request.requester)
    who = f"member {person.id}"
    verify_by(statement, REQUEST_TYPE, person.signing_keys, who, signed_at=request.created_at, now=now)
    if "member" not in person.roles or person.team != request.team:
        raise RosterError(f"{person.id} may not ask for releases of team {request.team}")
    if roster.person(request.recipient).team != request.team:
        raise RosterError(f"the recipient {request.recipient} is not of team {request.team}")
    if now >= request.expires_at + CLOCK_SKEW_SECONDS:
        raise ExpiredError(f"release request {request.release_id} has expired; ask again")
    return request


def verify_approval(statement: Statement, request: Statement, roster: Roster, *, now: int) -> Approval:
    """Check one approval of this very request, which says of itself whether it approves an exception.

    Raises FormatError, SignatureError, RosterError, BindingError, PolicyError.
    """
    approval = Approval.parse(statement.payload)
    person = roster.person(approval.approver)
    who = f"approver {person.id}"
    verify_by(statement, APPROVAL_TYPE, person.signing_keys, who, signed_at=approval.created_at, now=now)
    if "approver" not in person.roles:
        raise RosterError(f"{person.id} is not an approver")
    if approval.request_sha256 != request.digest:
        raise BindingError(f"the approval of {person.id} is for another request")
    asked = ReleaseRequest.parse(request.payload)
    if approval.approver == asked.requester:
        raise PolicyError(f"{person.id} may not approve their own request")
    if approval.exception != asked.exception:
        what = "lacks the consent to an exception, for which the request asks"
        if approval.exception:
            what = "consents to an exception, for which the request does not ask"
        raise PolicyError(f"the approval of {person.id} {what}")
    return approval


def check_gate(result: Result, *, exception: bool) -> None:
    """Check that a de-biased version passed its gate, or that an exception is asked for.  Raises PolicyError."""
    verdict = verdict_of(result.metrics)
    if verdict not in (None, PASS) and not exception:
        raise PolicyError(
            f"the de-biasing gate says {verdict}: the version stays a candidate; "
            "an exception needs a request and an approval that both say so, each with a reason"
        )


def check_policy(
    policy: Policy, result: Result, approvals: Sequence[Approval], *, request_id: str, exception: bool = False
) -> None:
    """Check that the policy holds for a release.  Raises PolicyError with the first rule that does not.

    An exception lifts the de-biasing gate and nothing else, and only with an approval of it, whatever the policy says
    of approvals.
    """
    check_gate(result, exception=exception)
    if exception and not any(approval.exception for approval in approvals):
        raise PolicyError(
            f"release {request_id} asks for an exception to the de-biasing gate, and nobody has approved one"
        )
    if not result.sandboxed and not policy.allow_unsandboxed:
        raise PolicyError("the job ran without a sandbox, which the policy does not allow")
    for rule in policy.rules:
        rule.check(result.metrics)
    approvers = {approval.approver for approval in approvals}
    if len(approvers) < policy.approvals:
        raise PolicyError(
            f"release {request_id} has {len(approvers)} of {policy.approvals} approvals that the policy wants"
        )


def _without_false(fields: Mapping[str, JSON]) -> dict[str, JSON]:
    """Fields without an exception that is none: documents from before it was known keep their bytes."""
    return {name: value for name, value in fields.items() if name != "exception" or value}


def _check_reason(document: str, exception: bool, reason: str) -> None:  # noqa: FBT001
    if exception and not reason.strip():
        raise FormatError(f"{document}: an exception needs a reason")


def verify_release(
    statement: Statement, request: Statement, wrap: bytes, roster: Roster, *, recipient_key_id: str, now: int
) -> Release:
    """Check, as the recipient, that a certified host released to this key.

    Raises FormatError, SignatureError, RosterError, ExpiredError, BindingError.
    """
    release = Release.parse(statement.payload)
    host = roster.host(release.host)
    verify_by(statement, RELEASE_TYPE, host.signing_keys, f"host {host.id}", signed_at=release.created_at, now=now)
    if release.request_sha256 != request.digest:
        raise BindingError("the release answers another request")
    if release.wrap_sha256 != hashlib.sha256(wrap).hexdigest():
        raise BindingError("the wrap is not the one that the host released")
    if release.recipient_key_id != recipient_key_id:
        raise BindingError(f"released to key {release.recipient_key_id}, not to yours ({recipient_key_id})")
    return release
