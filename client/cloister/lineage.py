# SPDX-License-Identifier: Apache-2.0
"""Where a model version comes from, proven by signatures that the control plane cannot make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloister.api.v1 import jobs_pb2, models_pb2
from cloister.errors import UsageError
from cloister.evidence.authorisation import Authorisation, ObjectReference, verify_authorisation_signature
from cloister.evidence.canonical import sha256_hex
from cloister.evidence.errors import BindingError
from cloister.evidence.layers import ADAPTER, is_weights, layer_kind, stacked
from cloister.evidence.manifest import Manifest, VerifiedObject, verify_object
from cloister.evidence.result import Result, verify_result
from cloister.evidence.signatures import Statement
from cloister.session import Session, is_id
from cloister.spec import Spec, from_bytes
from cloister.wire import sealed_from_proto, statement_from_proto

Get = Callable[[str], models_pb2.ModelVersion]
"""Asks the control plane for a version by id."""


@dataclass(frozen=True)
class Lineage:
    """A job's result whose whole chain verifies: member → specification → host → sealed object."""

    authorisation: Authorisation
    spec: Spec
    result: Result
    result_sha256: str
    object: VerifiedObject


@dataclass(frozen=True)
class Start:
    """What a job starts from: a base model, or an adapted version of it with all its layers."""

    base: VerifiedObject
    lineage: Lineage | None = None
    """Of the adapted version; None for a base model."""
    stack: tuple[tuple[str, VerifiedObject], ...] = ()
    """Kind and object of the version's layers, in the order in which they apply."""
    adapter_spec: Spec | None = None
    """Of the job that made the adapter among the layers; None where there is no adapter."""

    @property
    def id(self) -> str:
        """Version id."""
        return self.base.manifest.id if self.lineage is None else self.lineage.authorisation.job_id

    @property
    def name(self) -> str:
        return self.base.manifest.name if self.lineage is None else self.lineage.spec.suffix

    @property
    def layers(self) -> tuple[VerifiedObject, ...]:
        """All layers, in order."""
        return tuple(layer for _, layer in self.stack)

    @property
    def weights(self) -> tuple[VerifiedObject, ...]:
        """The layer with the version's weights, if it has one: what a job opens of its second model."""
        return tuple(layer for kind, layer in self.stack if is_weights(kind))


def reference_to(found: VerifiedObject) -> ObjectReference:
    """How an authorisation names an object that was verified."""
    return ObjectReference(found.manifest.id, found.trailer_sha256)


def is_adapted(version: models_pb2.ModelVersion) -> bool:
    """Whether the control plane calls it the result of a job."""
    return bool(version.base or version.layers)


def verify_start(session: Session, version: models_pb2.ModelVersion, asked: str, get: Get) -> Start:
    """Check what a job is to start from; `get` asks the control plane for a version by id.

    Of an adapted version the whole lineage is verified, and that its base is the very object that its member signed.
    Raises an EvidenceError for another model than asked for.
    """
    if not is_adapted(version):
        return Start(verify_base(session, version, asked))
    lineage = verify_result_version(session, version, asked)
    signed = lineage.authorisation.model
    base = verify_base(session, get(signed.id), signed.id)
    if reference_to(base) != signed:
        raise BindingError(f"model {asked}: the base shown is not the one that {lineage.authorisation.member} signed")
    stack = _stack(session, lineage, get)
    adapter = next((layer for kind, layer in stack if kind == ADAPTER), None)
    return Start(base, lineage, stack, None if adapter is None else _maker_spec(session, lineage, adapter, get))


def _stack(session: Session, lineage: Lineage, get: Get) -> tuple[tuple[str, VerifiedObject], ...]:
    """The layers that the version's job started from, with its own in place of the one of its class.

    Which they were its member signed; of which kind each is the host that made it signed.  The version that it started
    from is asked for their manifests alone.
    """
    signed = lineage.authorisation
    shown = get(lineage.spec.model).layers if signed.model_layers else ()
    sealed = {layer.object_id: layer.sealed for layer in shown}
    started: list[tuple[str, VerifiedObject]] = []
    for reference in signed.model_layers:
        if reference.id not in sealed:
            raise BindingError(f"job {signed.job_id}: the control plane does not show a layer that it started from")
        found = verify_object(sealed_from_proto(sealed[reference.id]), session.site.roster, now=session.clock())
        if reference_to(found) != reference or found.manifest.kind != "export":
            raise BindingError(f"job {signed.job_id}: the layer shown is not the one that {signed.member} signed")
        _check_place(session, found.manifest, signed)
        started.append((layer_kind(found.manifest), found))
    return stacked(started, (layer_kind(lineage.object.manifest), lineage.object))


def _check_place(session: Session, manifest: Manifest, signed: Authorisation) -> None:
    host = session.site.roster.host(manifest.owner)
    if manifest.team != signed.team or not manifest.pool == host.pool == signed.pool:
        raise BindingError(f"layer {manifest.id} is of another team or pool than job {signed.job_id}")


def _maker_spec(session: Session, lineage: Lineage, adapter: VerifiedObject, get: Get) -> Spec:
    """What the job was asked for that made the adapter: of the version itself, or of an earlier one below it."""
    if adapter == lineage.object:
        return lineage.spec
    job_id = adapter.manifest.details["job_id"]
    maker = verify_result_version(session, get(job_id), job_id)
    if reference_to(maker.object) != reference_to(adapter):
        raise BindingError(f"layer {adapter.manifest.id} is not the result of job {job_id}, which its host names")
    return maker.spec


def earlier_specs(session: Session, start: Start) -> Iterator[Spec]:
    """What the jobs behind a version were asked for, newest first, each as its member signed it; none for a base model.

    Raises an EvidenceError for a job of another team, or with another specification than was signed.
    """
    if start.lineage is None:
        return
    signed, spec = start.lineage.authorisation, start.lineage.spec
    yield spec
    while signed.model_layers:  # it started from an adapted version, whose id is that of the job that made it
        _, signed, spec = _signed_job(session, spec.model, f"{start.name}, made from {spec.model}")
        yield spec


def _signed_job(session: Session, job_id: str, asked: str) -> tuple[Statement, Authorisation, Spec]:
    """The authorisation that a member of this team signed for a job, and its specification."""
    job = _job(session, job_id)
    statement = statement_from_proto(job.authorisation)
    authorisation = verify_authorisation_signature(statement, session.site.roster, now=session.clock())
    if authorisation.job_id != job_id or authorisation.team != session.site.me().team:
        raise BindingError(f"model {asked}: the control plane shows the authorisation of another job")
    if sha256_hex(job.spec) != authorisation.spec_sha256:
        raise BindingError(f"model {asked}: the specification is not the one that {authorisation.member} signed")
    return statement, authorisation, from_bytes(job.spec)


def verify_base(session: Session, version: models_pb2.ModelVersion, asked: str) -> VerifiedObject:
    """Check that a version is the base model that was asked for, sealed by a member of this team.

    Raises an EvidenceError for another model than asked for, UsageError for an adapted version.
    """
    if is_adapted(version):
        raise UsageError(f"model {asked} is an adapted version; name the base model that it was made from")
    found = verify_object(sealed_from_proto(version.sealed), session.site.roster, now=session.clock())
    manifest = found.manifest
    if asked != (manifest.id if is_id(asked) else manifest.name) or manifest.kind != "model":
        raise BindingError(f"asked for model {asked}, the control plane handed over another object")
    if manifest.team != session.site.me().team:
        raise BindingError(f"model {asked} is sealed by another team")
    return found


def verify_result_version(session: Session, version: models_pb2.ModelVersion, asked: str) -> Lineage:
    """Check that a version is the result of the job that it claims.

    (1) A member of this team signed the job and its very specification.  (2) A certified host signed the result of
    that job.  (3) The sealed object is the one that the host named, sealed by that host.  (4) It is what was asked.
    Raises an EvidenceError, UsageError for a base model.
    """
    if not version.HasField("dossier") or not version.dossier.HasField("result"):
        raise UsageError(f"model {asked} is not the result of a job; only results are released")
    roster, now = session.site.roster, session.clock()
    # (1) The member's job.
    statement, authorisation, spec = _signed_job(session, version.id, asked)
    # (2) The host's result.
    said = statement_from_proto(version.dossier.result)
    result = verify_result(said, roster, kind="export", authorisation_sha256=statement.digest, now=now)
    # (3) The sealed object.
    found = verify_object(sealed_from_proto(version.sealed), roster, now=now)
    if found.trailer_sha256 != result.trailer_sha256 or found.manifest.id != result.object_id:
        raise BindingError(f"model {asked}: the sealed object is not the one that host {result.host} signed for")
    if found.manifest.kind != "export" or found.manifest.owner != result.host or result.job_id != version.id:
        raise BindingError(f"model {asked}: the sealed object is not a result of job {version.id}")
    if found.manifest.team != authorisation.team or found.manifest.pool != authorisation.pool:
        raise BindingError(f"model {asked}: the sealed object is of another team or pool than its job")
    # (4) The one asked for.
    if asked not in (version.id, spec.suffix):
        raise BindingError(f"asked for model {asked}, the control plane handed over the result of another job")
    return Lineage(authorisation, spec, result, said.digest, found)


def _job(session: Session, job_id: str) -> jobs_pb2.Job:
    stubs = session.connection
    return stubs.call(stubs.jobs.GetJob, jobs_pb2.GetJobRequest(id=job_id)).job
