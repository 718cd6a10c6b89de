# SPDX-License-Identifier: Apache-2.0
"""Sealing a version to the one recipient that a release names, once its policy holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.opening import ApprovedRelease, ReleaseOpening, verify_release_opening
from cloister.evidence.release import Release, ReleaseRequest
from cloister.evidence.roster import Roster
from cloister.sealed import keys
from cloister.sealed.keys import Recipient
from cloister_workers.keyagent import documents
from cloister_workers.keyagent.gate import Gate, Work
from cloister_workers.keyagent.protocol import encode, take_bytes, take_object
from cloister_workers.keyagent.vault import Vault


class ReleaseDesk:
    """Carries out releases."""

    def __init__(self, vault: Vault, gate: Gate, clock: Callable[[], int]) -> None:
        self._vault = vault
        self._gate = gate
        self._clock = clock

    def open(self, body: Mapping[str, object]) -> dict[str, object]:
        """Verify a release and wrap the version's data key to its recipient; only that leaves, and only once.

        Raises EvidenceError, SealedError, RequestError, OSError.
        """
        opening = documents.release_opening(take_object(body, "opening"))
        wrap = take_bytes(body, "wrap")
        claimed = ReleaseRequest.parse(opening.request.payload)
        note = opening.evidence.checkpoint
        work = Work("release", claimed.release_id, opening.attempt, claimed.expires_at, note)

        def verify(roster: Roster, remembered: Checkpoint | None, now: int) -> ApprovedRelease:
            host = self._vault.host_id
            return verify_release_opening(opening, roster, remembered, host_id=host, now=now)

        _, approved = self._gate.admit(work, documents.statement(body, "roster"), verify)
        dek = keys.unwrap(wrap, self._vault.sealing, approved.object.context)
        # The key is the one that the roster names for the person: the control plane has no say in it.
        recipient = Recipient.parse(approved.recipient)
        released = keys.wrap(dek, recipient, approved.object.context)
        statement = self._release(opening, approved, recipient, released).sign(self._vault.signing)
        return {
            "recipient_key_id": recipient.key_id,
            "wrap": encode(released),
            "statement": documents.statement_text(statement),
        }

    def _release(
        self, opening: ReleaseOpening, approved: ApprovedRelease, recipient: Recipient, wrap: bytes
    ) -> Release:
        return Release(
            release_id=approved.request.release_id,
            request_sha256=opening.request.digest,
            result_sha256=opening.result.digest,
            trailer_sha256=approved.object.trailer_sha256,
            policy_sha256=opening.policy.digest,
            approvals_sha256=tuple(item.digest for item in opening.approvals),
            auto_release=approved.policy.auto_release,
            recipient_key_id=recipient.key_id,
            wrap_sha256=hashlib.sha256(wrap).hexdigest(),
            host=self._vault.host_id,
            created_at=self._clock(),
            exception=approved.request.exception,
        )
