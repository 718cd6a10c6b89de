# SPDX-License-Identifier: Apache-2.0
"""What must hold before a key agent unwraps anything: EVIDENCE.md, section "Opening".

Everything here comes through the control plane, which is the adversary.  It can withhold; what it hands over
must carry signatures that it cannot make, bind together, and stand in the log that the host remembers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.evidence.authorisation import (
    Authorisation,
    ObjectReference,
    verify_authorisation,
    verify_authorisation_signature,
)
from cloister.evidence.checkpoint import Checkpoint, open_checkpoint
from cloister.evidence.entry import Entry, Subject
from cloister.evidence.errors import BindingError, FormatError, PolicyError, ReplayError, RollbackError, RosterError
from cloister.evidence.layers import check_stack, is_weights, layer_kind
from cloister.evidence.manifest import SealedObject, VerifiedObject, verify_object
from cloister.evidence.merkle import leaf_hash, verify_consistency, verify_inclusion
from cloister.evidence.note import NoteVerifier
from cloister.evidence.policy import Policy, verify_policy
from cloister.evidence.release import ReleaseRequest, check_policy, verify_approval, verify_request
from cloister.evidence.result import Result, verify_result

if TYPE_CHECKING:
    from cloister.evidence.roster import Host, Roster
    from cloister.evidence.signatures import Statement

OPEN_JOB = "job.open"
OPEN_RELEASE = "release.open"


@dataclass(frozen=True)
class LogEvidence:
    """That an entry is in the log, and that the log extends the one that is remembered."""

    entry: bytes
    index: int
    inclusion_proof: tuple[bytes, ...]
    checkpoint: bytes
    """Signed note."""
    consistency_proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Resume:
    """A checkpoint of an earlier attempt, with the statement of the host that made it."""

    object: SealedObject
    result: Statement


@dataclass(frozen=True)
class JobOpening:
    """What the control plane hands over for a job: all of it untrusted."""

    authorisation: Statement
    spec: bytes
    policy: Statement
    attempt: int
    objects: tuple[SealedObject, ...]
    """In the order of `Authorisation.inputs`."""
    resume: Resume | None
    evidence: LogEvidence


@dataclass(frozen=True)
class ApprovedJob:
    """Everything verified: these objects may be unwrapped, for this attempt."""

    authorisation: Authorisation
    authorisation_sha256: str
    policy: Policy
    objects: tuple[VerifiedObject, ...]
    resume: VerifiedObject | None
    resume_step: int
    checkpoint: Checkpoint


@dataclass(frozen=True)
class ReleaseOpening:
    """What the control plane hands over for a release: all of it untrusted."""

    request: Statement
    approvals: tuple[Statement, ...]
    policy: Statement
    result: Statement
    authorisation: Statement
    object: SealedObject
    attempt: int
    evidence: LogEvidence


@dataclass(frozen=True)
class ApprovedRelease:
    """Everything verified: this object may be wrapped to this recipient."""

    request: ReleaseRequest
    policy: Policy
    object: VerifiedObject
    recipient: str
    """The age1pq… key that the roster names for the recipient."""
    checkpoint: Checkpoint


def verify_head(note: bytes, proof: tuple[bytes, ...], roster: Roster, remembered: Checkpoint | None) -> Checkpoint:
    """Open a checkpoint and check that it extends the remembered one.

    Raises FormatError, SignatureError, RollbackError (smaller than remembered), ForkError.
    """
    head = open_checkpoint(note, NoteVerifier.parse(roster.log_vkey), roster.log_origin)
    if remembered is None:
        return head
    if head.size < remembered.size:
        raise RollbackError(
            f"the log has {head.size} entries, {remembered.size} were seen before: it was rolled back; tell an auditor"
        )
    verify_consistency(remembered.size, remembered.root, head.size, head.root, proof)
    return head


def verify_logged(evidence: LogEvidence, roster: Roster, remembered: Checkpoint | None) -> tuple[Entry, Checkpoint]:
    """Check that the entry is in a log that extends the remembered one.

    Raises FormatError, SignatureError, RollbackError, ForkError, TamperedError.
    """
    head = verify_head(evidence.checkpoint, evidence.consistency_proof, roster, remembered)
    leaf = leaf_hash(evidence.entry)
    verify_inclusion(leaf, evidence.index, head.size, evidence.inclusion_proof, head.root)
    entry = Entry.parse(evidence.entry)
    if entry.seq != evidence.index:
        raise BindingError(f"the entry says that it is number {entry.seq}, its proof says {evidence.index}")
    return entry, head


def verify_job_opening(
    opening: JobOpening, roster: Roster, remembered: Checkpoint | None, *, host_id: str, now: int
) -> ApprovedJob:
    """The key agent's whole check for a job.  Whether the attempt is new is the caller's to check and persist.

    Raises an EvidenceError whose message says which check failed.
    """
    # (1) This host is certified, and for the pool that the member named.
    # (2) The member signed this specification; it is in force.
    authorisation = verify_authorisation(opening.authorisation, opening.spec, roster, now=now)
    host = _certified(roster, host_id, authorisation.pool, now)
    if opening.attempt > authorisation.max_attempts:
        raise ReplayError(
            f"job {authorisation.job_id}: attempt {opening.attempt} of {authorisation.max_attempts} authorised"
        )
    _check_spec_references(opening.spec, authorisation)
    # (3) The policy is the one that the member's signature binds.
    policy = verify_policy(opening.policy, roster, now=now)
    if opening.policy.digest != authorisation.policy_sha256:
        raise BindingError("the release policy is not the one that the job was authorised under")
    # (4) Every input is the one named, signed by its owner, of this team, for this purpose, not expired.
    references = authorisation.inputs()
    if len(opening.objects) != len(references):
        raise BindingError(f"the job has {len(references)} inputs, {len(opening.objects)} were handed over")
    places = zip(authorisation.input_kinds(), references, opening.objects, strict=True)
    objects = tuple(_verify_input(k, r, o, authorisation, roster, now) for k, r, o in places)
    _check_layers(authorisation, objects)
    # (5) A checkpoint was made by a certified host under this very authorisation, earlier.
    resume, resume_step = _verify_resume(opening, authorisation, roster, now)
    # (6) The log holds the opening of exactly this, and extends the log that this host remembers.
    entry, head = verify_logged(opening.evidence, roster, remembered)
    resumed = "" if resume is None else resume.trailer_sha256
    inputs = [o.trailer_sha256 for o in objects]
    detail = {"attempt": opening.attempt, "inputs": inputs, "resume": resumed}
    _check_entry(entry, OPEN_JOB, authorisation.job_id, opening.authorisation.digest, host, detail)
    digest = opening.authorisation.digest
    return ApprovedJob(authorisation, digest, policy, objects, resume, resume_step, head)


def verify_release_opening(
    opening: ReleaseOpening, roster: Roster, remembered: Checkpoint | None, *, host_id: str, now: int
) -> ApprovedRelease:
    """The key agent's whole check for a release.

    Raises an EvidenceError whose message says which check failed.
    """
    # (1) A member of the team asks.  (2) The job was authorised by a member of that team.
    request = verify_request(opening.request, roster, now=now)
    authorisation = verify_authorisation_signature(opening.authorisation, roster, now=now)
    host = _certified(roster, host_id, authorisation.pool, now)
    # (3) A certified host made and evaluated this version under that authorisation.
    result = verify_result(
        opening.result, roster, kind="export", authorisation_sha256=opening.authorisation.digest, now=now
    )
    sealed = verify_object(opening.object, roster, now=now)
    _check_version(opening, request, authorisation, result, sealed)
    _check_maker(result, sealed, authorisation, roster)
    # (4) The policy that the job was bound to holds, with approvals of this very request by others.
    policy = verify_policy(opening.policy, roster, now=now)
    if not opening.policy.digest == authorisation.policy_sha256 == request.policy_sha256:
        raise BindingError("the release policy is not the one that the job and the request are bound to")
    approvals = [verify_approval(a, opening.request, roster, now=now) for a in opening.approvals]
    check_policy(policy, result, approvals, request_id=request.release_id, exception=request.exception)
    # (5) The log holds the opening of exactly this, and extends the log that this host remembers.
    entry, head = verify_logged(opening.evidence, roster, remembered)
    detail = {"attempt": opening.attempt, "inputs": [sealed.trailer_sha256], "recipient": request.recipient}
    _check_entry(entry, OPEN_RELEASE, request.release_id, opening.request.digest, host, detail)
    return ApprovedRelease(request, policy, sealed, roster.person(request.recipient).recipient, head)


def _certified(roster: Roster, host_id: str, pool: str, now: int) -> Host:
    for host in roster.pool_hosts(pool, now):
        if host.id == host_id:
            return host
    raise RosterError(f"host {host_id} is not certified for pool {pool}, or was retired")


def _check_spec_references(spec: bytes, authorisation: Authorisation) -> None:
    """The spec and the authorisation were signed together; a client that let them differ is at fault."""
    try:
        fields = json.loads(spec)
    except (ValueError, RecursionError):
        raise FormatError("the specification is not JSON") from None
    if not isinstance(fields, dict):
        raise FormatError("the specification is not an object")
    pairs: tuple[tuple[str, ObjectReference | None], ...] = (
        ("training_dataset", authorisation.training),
        ("validation_dataset", authorisation.validation),
        ("evaluation_dataset", authorisation.evaluation),
        ("replay_dataset", authorisation.replay),
    )
    for name, reference in pairs:
        if fields.get(name, "") != ("" if reference is None else reference.id):
            raise BindingError(f"the specification's {name} is not the one that the authorisation names")
    if bool(fields.get("auxiliary_model")) != (authorisation.auxiliary is not None):
        raise BindingError("the specification's auxiliary_model is not the one that the authorisation names")


def _verify_input(
    kind: str,
    reference: ObjectReference,
    sealed: SealedObject,
    authorisation: Authorisation,
    roster: Roster,
    now: int,
) -> VerifiedObject:
    """`kind` goes by the place in the authorisation: whatever is named twice is still one thing in one place."""
    found = verify_object(sealed, roster, now=now)
    manifest = found.manifest
    if manifest.id != reference.id or found.trailer_sha256 != reference.trailer_sha256:
        raise BindingError(f"input {reference.id}: the control plane handed over another object")
    if manifest.team != authorisation.team:
        raise RosterError(f"{manifest.kind} {manifest.id} belongs to another team")
    if manifest.kind != kind:
        raise BindingError(f"input {manifest.id} is a {manifest.kind}, the job wants a {kind}")
    # A layer has learnt from its rows, so the purposes of those bind it too; a base model has none.
    if manifest.kind != "model" and authorisation.purpose not in manifest.purposes:
        raise PolicyError(f"{manifest.kind} {manifest.id} may not be used for {authorisation.purpose!r}")
    if manifest.pool != authorisation.pool:
        raise BindingError(f"{manifest.kind} {manifest.id} was sealed for pool {manifest.pool}")
    if manifest.kind == "export" and roster.host(manifest.owner).pool != authorisation.pool:
        raise BindingError(f"the layer {manifest.id} was made by a host of another pool than the job's")
    if manifest.minimum_epsilon is not None:
        raise PolicyError(f"{manifest.kind} {manifest.id} asks for differential privacy, which this job does not give")
    return found


def _check_layers(authorisation: Authorisation, objects: tuple[VerifiedObject, ...]) -> None:
    """The hosts that made the layers signed of which kind each is: one of each class, and of a second model weights."""
    roles = [role for role, _ in authorisation.places()]
    found = list(zip(roles, (item.manifest for item in objects), strict=True))
    check_stack([manifest for role, manifest in found if role == "layer"])
    second = [manifest for role, manifest in found if role == "auxiliary_layer"]
    if len(second) > 1 or not all(is_weights(layer_kind(manifest)) for manifest in second):
        raise BindingError("of a second model one layer is opened, that of its weights")


def _verify_resume(
    opening: JobOpening, authorisation: Authorisation, roster: Roster, now: int
) -> tuple[VerifiedObject | None, int]:
    if opening.resume is None:
        return None, 0
    digest = opening.authorisation.digest
    result = verify_result(opening.resume.result, roster, kind="state", authorisation_sha256=digest, now=now)
    found = verify_object(opening.resume.object, roster, now=now)
    if found.manifest.kind != "state" or found.trailer_sha256 != result.trailer_sha256:
        raise BindingError(f"the checkpoint of job {result.job_id} is not the one that host {result.host} signed")
    if found.manifest.owner != result.host:
        raise BindingError(f"the checkpoint of job {result.job_id} was sealed by another host than signed for it")
    _check_maker(result, found, authorisation, roster)
    if result.attempt >= opening.attempt:
        raise ReplayError(f"the checkpoint is of attempt {result.attempt}, this is attempt {opening.attempt}")
    return found, result.step


def _check_maker(result: Result, found: VerifiedObject, authorisation: Authorisation, roster: Roster) -> None:
    """A host of another pool was never certified for this job, whatever it signs."""
    if not roster.host(result.host).pool == found.manifest.pool == authorisation.pool:
        raise BindingError(f"host {result.host} does not belong to pool {authorisation.pool} of the job")
    if found.manifest.id != result.object_id or result.job_id != authorisation.job_id:
        raise BindingError(f"the result of host {result.host} is of another object or job")


def _check_version(
    opening: ReleaseOpening,
    request: ReleaseRequest,
    authorisation: Authorisation,
    result: Result,
    sealed: VerifiedObject,
) -> None:
    if request.team != authorisation.team or sealed.manifest.team != authorisation.team:
        raise RosterError("the version belongs to another team than the request")
    if request.result_sha256 != opening.result.digest or request.model_version != result.job_id:
        raise BindingError("the request is for another version than the one that was evaluated")
    if not sealed.trailer_sha256 == result.trailer_sha256 == request.trailer_sha256:
        raise BindingError("the sealed object is not the one that was evaluated and asked for")
    if sealed.manifest.kind != "export" or sealed.manifest.owner != result.host:
        raise BindingError("the sealed object is not a result of the host that signed the evaluation")


def _check_entry(entry: Entry, action: str, object_id: str, digest: str, host: Host, detail: dict[str, object]) -> None:
    event = entry.event
    kind = "job" if action == OPEN_JOB else "release"
    expected = (action, Subject(kind, object_id, digest), host.id, "host", "intent", "ok", "")
    actor = event.actor
    found = (event.action, event.object, actor.id, actor.kind, event.stage, event.outcome, event.reason)
    if found != expected or dict(event.detail) != detail:
        raise BindingError(f"entry {entry.seq} of the log does not record this opening: refusing to open unlogged")
