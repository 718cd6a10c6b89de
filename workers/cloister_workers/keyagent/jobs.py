# SPDX-License-Identifier: Apache-2.0
"""Opening a job's inputs, and sealing what it made.

A session is the leave that the gate gave for one attempt: its objects may be decrypted and its results sealed, until
it is closed or the connection that opened it ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event

from cloister.evidence.authorisation import Authorisation
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.errors import PolicyError
from cloister.evidence.manifest import BUNDLE_MEDIA_TYPE, HOST_KINDS, Manifest, Trailer, VerifiedObject
from cloister.evidence.methods import INFERENCE
from cloister.evidence.opening import ApprovedJob, verify_job_opening
from cloister.evidence.result import Result, decimal_text
from cloister.evidence.roster import CLOCK_SKEW_SECONDS, Roster
from cloister.evidence.signatures import Statement
from cloister.sealed import keys
from cloister.sealed.keys import Recipient
from cloister.sealed.payload import SealedDigest, generate_dek, open_stream, seal_stream
from cloister_workers.keyagent import documents
from cloister_workers.keyagent.bundles import (
    CanonicalBundle,
    Member,
    check_frozen,
    files_sha256,
    layer_of,
    scan,
    scan_predictions,
    scan_report,
)
from cloister_workers.keyagent.debias import Bound, Evidence
from cloister_workers.keyagent.errors import RequestError
from cloister_workers.keyagent.gate import Gate, Work
from cloister_workers.keyagent.protocol import encode, take, take_bytes, take_object
from cloister_workers.keyagent.streams import RangeReader, Sink, check_ciphertext, transfers
from cloister_workers.keyagent.vault import Vault
from cloister_workers.messages import MetricName

Table = Mapping[str, object]
REPORT = "report"


@dataclass(frozen=True)
class Session:
    """One attempt of one job."""

    id: str
    approved: ApprovedJob
    roster: Roster
    attempt: int
    sandboxed: bool
    name: str
    """Of what the job makes."""
    evidence: Evidence
    """What the job may bring."""
    closed: Event = field(default_factory=Event)

    def object(self, object_id: str) -> VerifiedObject:
        """The approved object of this id.  Raises RequestError."""
        approved = self.approved
        resume: tuple[VerifiedObject, ...] = () if approved.resume is None else (approved.resume,)
        for item in (*approved.objects, *resume):
            if item.manifest.id == object_id:
                return item
        raise RequestError("this session was not given such an object")


class JobDesk:
    """Makes sessions and works for them."""

    def __init__(
        self, vault: Vault, gate: Gate, clock: Callable[[], int], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._vault = vault
        self._gate = gate
        self._clock = clock
        self._random = random_bytes

    def open(self, body: Table) -> tuple[Session, dict[str, object]]:
        """Verify an opening.  Raises EvidenceError, RequestError, OSError."""
        opening = documents.job_opening(take_object(body, "opening"))
        sandboxed = take(body, "sandboxed", bool)
        claimed = Authorisation.parse(opening.authorisation.payload)
        note = opening.evidence.checkpoint
        work = Work("job", claimed.job_id, opening.attempt, claimed.expires_at, note)

        def verify(roster: Roster, remembered: Checkpoint | None, now: int) -> ApprovedJob:
            host = self._vault.host_id
            approved = verify_job_opening(opening, roster, remembered, host_id=host, now=now)
            if not sandboxed and not approved.policy.allow_unsandboxed:
                raise PolicyError("this host has no sandbox, and the signed policy does not allow to go without")
            return approved

        roster, approved = self._gate.admit(work, documents.statement(body, "roster"), verify)
        name = _result_name(opening.spec, approved)
        evidence = Evidence.of(opening.spec)
        session = Session(self._random(16).hex(), approved, roster, opening.attempt, sandboxed, name, evidence)
        return session, {"session": session.id, **_approved_table(approved)}

    def decrypt(self, session: Session, body: Table, fds: tuple[int, ...]) -> dict[str, object]:
        """Write the plaintext of one object.  Raises SealedError, TransferError, RequestError.

        (1) Size and digest of the ciphertext are the signed ones.  (2) The wrap opens under this manifest.
        (3) The plaintext flows; each byte is authentic, and the last ones follow only if the digest held again.
        """
        source, target = _two(fds)
        found = session.object(take(body, "object_id", str))
        wrap = take_bytes(body, "wrap")
        with transfers():
            check_ciphertext(source, found)
            dek = keys.unwrap(wrap, self._vault.sealing, found.context)
            digest = open_stream(
                RangeReader(source, found.trailer.ciphertext_size),
                Sink(target, session.closed.is_set).as_file(),
                dek,
                found.context,
                expected_sha256=found.trailer.ciphertext_sha256,
                expected_size=found.trailer.ciphertext_size,
            )
        return {"size": digest.plaintext_size}

    def seal(self, session: Session, body: Table, fds: tuple[int, ...]) -> dict[str, object]:
        """Seal what a trainer made, and sign what it is: a checkpoint or model to every host of the pool, a report to
        the member who asked for it and to their team's recovery key, and to no host: none has a use for it.

        Raises SealedError, EvidenceError, TransferError, RequestError, ResultError.
        """
        source, target = _two(fds)
        kind = take(body, "kind", str)
        if kind not in HOST_KINDS:
            raise RequestError("kind is neither state, export nor report")
        step = take(body, "step", int)
        metrics = _metrics(take_object(body, "metrics"))
        before = _metrics(take_object(body, "metrics_before"))
        bound = _evidence(session, kind, metrics, take_bytes(body, "figures"))
        with transfers():
            members = _scan(source, kind, session.evidence.ending)
            files = files_sha256(members)
            layer = layer_of(members) if kind == "export" else ""
            manifest = self._manifest(session, kind, step, files, layer)
            payload = manifest.to_payload()
            bound_to = hashlib.sha256(payload).digest()
            dek = generate_dek()
            sink = Sink(target, session.closed.is_set).as_file()
            digest = seal_stream(CanonicalBundle(source, members), sink, dek, bound_to)
            os.fsync(target)
        trailer = _trailer(bound_to, digest).sign(self._vault.signing)
        if kind == REPORT:
            session.evidence.reports.append(trailer.digest)
        signed = ""
        if kind != REPORT or session.evidence.ending:
            result = self._result(session, manifest, trailer, (metrics, before), bound)
            signed = documents.statement_text(result)
        return {
            "object_id": manifest.id,
            "manifest": encode(payload),
            "trailer": documents.statement_text(trailer),
            "wraps": _wraps(session, manifest, dek, bound_to),
            "result": signed,
            "files_sha256": files,
            "layer": layer,
            "size": digest.ciphertext_size,
            "sha256": digest.ciphertext_sha256,
        }

    def _manifest(self, session: Session, kind: str, step: int, files: str, layer: str) -> Manifest:
        now, authorisation = self._clock(), session.approved.authorisation
        return Manifest(
            kind=kind,
            id=str(uuid.UUID(bytes=self._random(16), version=4)),
            name=session.name,
            owner=self._vault.host_id,
            team=authorisation.team,
            pool=authorisation.pool,
            purposes=(authorisation.purpose,),
            media_type=BUNDLE_MEDIA_TYPE,
            created_at=now,
            expires_at=max(_expiry(session.approved, kind), now + CLOCK_SKEW_SECONDS),
            details={
                "job_id": authorisation.job_id,
                "attempt": str(session.attempt),
                "step": str(step),
                "files_sha256": files,
                **({"layer": layer} if layer else {}),
            },
        )

    def _result(
        self,
        session: Session,
        manifest: Manifest,
        trailer: Statement,
        metrics: tuple[dict[str, str], dict[str, str]],
        bound: Bound,
    ) -> Statement:
        after, before = metrics
        return Result(
            kind=manifest.kind,
            job_id=session.approved.authorisation.job_id,
            authorisation_sha256=session.approved.authorisation_sha256,
            host=self._vault.host_id,
            attempt=session.attempt,
            step=int(manifest.details["step"]),
            object_id=manifest.id,
            trailer_sha256=trailer.digest,
            files_sha256=manifest.details["files_sha256"],
            metrics=after,
            metrics_before=before,
            sandboxed=session.sandboxed,
            created_at=manifest.created_at,
            figures_sha256=bound.figures_sha256,
            report_trailer_sha256=bound.report_trailer_sha256,
        ).sign(self._vault.signing)


def _evidence(session: Session, kind: str, metrics: Mapping[str, str], figures: bytes) -> Bound:
    """What the result will bind; nothing is sealed before it is whole.  Raises ResultError, RequestError."""
    if kind == "export":
        return session.evidence.check_export(session.approved, session.attempt, metrics, figures)
    if figures:
        raise RequestError("figures come with an export alone")
    if kind == REPORT:
        session.evidence.check_report(metrics)
    return Bound()


def _scan(source: int, kind: str, ending: str) -> tuple[Member, ...]:
    check_frozen(source)
    with os.fdopen(os.dup(source), "rb") as file:
        if kind != REPORT:
            return scan(file)
        return scan_predictions(file) if ending == INFERENCE else scan_report(file)


def _wraps(session: Session, manifest: Manifest, dek: bytes, bound_to: bytes) -> list[dict[str, object]]:
    roster, signed = session.roster, session.approved.authorisation
    if manifest.kind == REPORT:
        named = [roster.person(signed.member).recipient, roster.team(signed.team).recovery_recipient]
    else:
        named = [host.sealing_recipient for host in roster.pool_hosts(signed.pool, manifest.created_at)]
    recipients = [Recipient.parse(text) for text in dict.fromkeys(named)]
    return [{"recipient_key_id": item.key_id, "wrap": encode(keys.wrap(dek, item, bound_to))} for item in recipients]


def _two(fds: tuple[int, ...]) -> tuple[int, int]:
    if len(fds) != 2:
        raise RequestError(f"this request needs two descriptors, {len(fds)} came")
    return fds[0], fds[1]


def _expiry(approved: ApprovedJob, kind: str) -> int:
    """A checkpoint is of use while the job may run; a model may not outlive what it was made from."""
    if kind == "state":
        return approved.authorisation.expires_at
    return min(item.manifest.expires_at for item in approved.objects)


def _trailer(bound_to: bytes, digest: SealedDigest) -> Trailer:
    return Trailer(bound_to.hex(), digest.ciphertext_sha256, digest.ciphertext_size, digest.plaintext_size)


def _result_name(spec: bytes, approved: ApprovedJob) -> str:
    """`suffix` of the spec, which the member signed, or the base's name and the job's id."""
    suffix = json.loads(spec).get("suffix")
    base = f"{approved.objects[0].manifest.name}-{approved.authorisation.job_id[:8]}"
    return suffix[:200] if isinstance(suffix, str) and suffix else base


def _metrics(table: Table) -> dict[str, str]:
    """Figures by the trainer's closed list of names, as decimals."""
    found: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RequestError("a metric is not a number")
        try:
            found[MetricName(name).value] = decimal_text(float(value))
        except (ValueError, OverflowError):
            raise RequestError("a metric has no known name, or no size that fits") from None
    return found


def _approved_table(approved: ApprovedJob) -> dict[str, object]:
    """What the agent may rely on, because it was verified here."""
    gate = approved.policy.gate
    return {
        "resume_step": approved.resume_step,
        "gate": {} if gate is None else gate.to_json(),
        "objects": [
            {
                "id": item.manifest.id,
                "kind": item.manifest.kind,
                "files_sha256": item.manifest.details.get("files_sha256", ""),
            }
            for item in approved.objects
        ],
    }
