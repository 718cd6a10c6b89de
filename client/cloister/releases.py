# SPDX-License-Identifier: Apache-2.0
"""Releases: asked for by a member, approved by others, carried out by a host's key agent."""

from __future__ import annotations

from collections.abc import Iterator

from cloister.api.v1 import common_pb2, models_pb2
from cloister.errors import PermissionDeniedError, RefusedError, UsageError
from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.figures import PASS, verdict_of
from cloister.evidence.release import Approval, ReleaseRequest, check_gate, verify_request
from cloister.evidence.result import Result
from cloister.lineage import verify_result_version
from cloister.session import DAY_SECONDS, Session, pages
from cloister.wire import statement_from_proto, statement_to_proto

EXPIRES_DAYS = 7
GRANTED = models_pb2.RELEASE_STATE_GRANTED
REFUSED = models_pb2.RELEASE_STATE_REFUSED
PENDING = models_pb2.RELEASE_STATE_PENDING


class Releases:
    """Requests, approvals and their states."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def request(
        self,
        version: models_pb2.ModelVersion,
        asked: str,
        recipient: str | None,
        reason: str,
        *,
        exception: bool = False,
    ) -> models_pb2.Release:
        """Sign and send a request for a verified version.

        `exception` asks to release a version whose de-biasing gate was not passed.
        Raises an EvidenceError (PolicyError for such a version without it), UsageError.
        """
        session = self._session
        if not reason.strip():
            raise UsageError("a release needs a reason; it is shown to the approvers")
        lineage = verify_result_version(session, version, asked)
        _check_gate(lineage.result, exception=exception)
        me, now = session.site.me(), session.clock()
        person = session.site.roster.person(recipient or me.id)
        if person.team != me.team:
            raise UsageError(f"{person.id} is not of team {me.team}; models are released inside the team")
        request = ReleaseRequest(
            release_id=session.new_id(),
            model_version=version.id,
            result_sha256=lineage.result_sha256,
            trailer_sha256=lineage.object.trailer_sha256,
            policy_sha256=lineage.authorisation.policy_sha256,
            requester=me.id,
            team=me.team,
            recipient=person.id,
            reason=reason.strip(),
            created_at=now,
            expires_at=now + EXPIRES_DAYS * DAY_SECONDS,
            exception=exception,
        )
        statement = statement_to_proto(request.sign(session.home.signing_key()))
        stubs = session.connection
        answer = stubs.call(stubs.models.CreateRelease, models_pb2.CreateReleaseRequest(request=statement))
        return answer.release

    def request_of(self, release_id: str) -> tuple[ReleaseRequest, str]:
        """The request of a release, its signature verified, and its digest."""
        statement = statement_from_proto(self.get(release_id).request)
        return verify_request(statement, self._session.site.roster, now=self._session.clock()), statement.digest

    def approve(self, release_id: str, reason: str, request_sha256: str = "") -> models_pb2.Release:
        """Sign and send an approval of the very request that the site shows, after checking its signature.

        Where the request asks for an exception to the de-biasing gate, that is what is approved, and what is signed
        says so: show it first (`request_of`).
        `request_sha256` names the request that was read: another one under the same id is refused.
        """
        session = self._session
        if not reason.strip():
            raise UsageError("an approval needs a reason; it is kept with the model")
        release = self.get(release_id)
        statement = statement_from_proto(release.request)
        request = verify_request(statement, session.site.roster, now=session.clock())
        me = session.site.me()
        if request.release_id != release_id:
            raise BindingError(f"asked for release {release_id}, the control plane handed over another request")
        if request_sha256 and statement.digest != request_sha256:
            raise BindingError(f"the control plane now shows another request under release {release_id} than you read")
        if request.requester == me.id:
            raise PermissionDeniedError("you asked for this release; somebody else must approve it")
        approval = Approval(
            release_id, statement.digest, me.id, reason.strip(), session.clock(), exception=request.exception
        )
        signed = statement_to_proto(approval.sign(session.home.signing_key()))
        stubs = session.connection
        message = models_pb2.ApproveReleaseRequest(id=release_id, approval=signed)
        return stubs.call(stubs.models.ApproveRelease, message).release

    def get(self, release_id: str) -> models_pb2.Release:
        """Raises NotFoundError."""
        stubs = self._session.connection
        return stubs.call(stubs.models.GetRelease, models_pb2.GetReleaseRequest(id=release_id)).release

    def list(self, limit: int | None = None) -> Iterator[models_pb2.Release]:
        """Newest first."""
        stubs = self._session.connection

        def fetch(page: common_pb2.PageRequest) -> models_pb2.ListReleasesResponse:
            return stubs.call(stubs.models.ListReleases, models_pb2.ListReleasesRequest(page=page))

        for answer in pages(fetch, limit):
            yield from answer.releases

    def wait(self, release_id: str, attempts: int) -> models_pb2.Release:
        """The release once a host has decided, or as it is when people must approve first or attempts run out.

        Raises RefusedError with the failed check.
        """
        for attempt in range(1, attempts + 1):
            release = self.get(release_id)
            if release.state == REFUSED:
                raise RefusedError(f"the release was refused: {release.refusal}; it stays sealed to the pool")
            if release.state in (GRANTED, PENDING):
                return release
            self._session.connection.back_off(attempt)
        return self.get(release_id)

    def granted_to_me(self, version_id: str) -> models_pb2.Release:
        """The newest release of a version to this person.  Raises RefusedError where there is none."""
        me = self._session.site.me().id
        for release in self.list():
            if release.model_version == version_id and release.state == GRANTED and _recipient(release) == me:
                return release
        raise RefusedError(f"model {version_id} is not released to {me}; run: cloister model release {version_id}")


def _check_gate(result: Result, *, exception: bool) -> None:
    check_gate(result, exception=exception)
    if exception and verdict_of(result.metrics) in (None, PASS):
        raise UsageError("no de-biasing gate stands against this version; ask for its release without an exception")


def _recipient(release: models_pb2.Release) -> str:
    """Whom a request names; only a hint for the search, everything is verified later."""
    try:
        return ReleaseRequest.parse(release.request.payload).recipient
    except FormatError:
        return ""
