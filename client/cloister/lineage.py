# SPDX-License-Identifier: Apache-2.0
"""Where a model version comes from, proven by signatures that the control plane cannot make."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.api.v1 import jobs_pb2, models_pb2
from cloister.errors import UsageError
from cloister.evidence.authorisation import Authorisation, verify_authorisation_signature
from cloister.evidence.canonical import sha256_hex
from cloister.evidence.errors import BindingError
from cloister.evidence.manifest import VerifiedObject, verify_object
from cloister.evidence.result import Result, verify_result
from cloister.session import Session, is_id
from cloister.spec import Spec, from_bytes
from cloister.wire import sealed_from_proto, statement_from_proto


@dataclass(frozen=True)
class Lineage:
    """A job's result whose whole chain verifies: member → specification → host → sealed object."""

    authorisation: Authorisation
    spec: Spec
    result: Result
    result_sha256: str
    object: VerifiedObject


def verify_base(session: Session, version: models_pb2.ModelVersion, asked: str) -> VerifiedObject:
    """Check that a version is the base model that was asked for, sealed by a member of this team.

    Raises an EvidenceError for another model than asked for, UsageError for an adapted version.
    """
    if version.base or version.layers:
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
    job = _job(session, version.id)
    statement = statement_from_proto(job.authorisation)
    authorisation = verify_authorisation_signature(statement, roster, now=now)
    if authorisation.job_id != version.id or authorisation.team != session.site.me().team:
        raise BindingError(f"model {asked}: the control plane shows the authorisation of another job")
    if sha256_hex(job.spec) != authorisation.spec_sha256:
        raise BindingError(f"model {asked}: the specification is not the one that {authorisation.member} signed")
    # (2) The host's result.
    said = statement_from_proto(version.dossier.result)
    result = verify_result(said, roster, kind="export", authorisation_sha256=statement.digest, now=now)
    # (3) The sealed object.
    found = verify_object(sealed_from_proto(version.sealed), roster, now=now)
    if found.trailer_sha256 != result.trailer_sha256 or found.manifest.id != result.object_id:
        raise BindingError(f"model {asked}: the sealed object is not the one that host {result.host} signed for")
    if found.manifest.kind != "export" or found.manifest.owner != result.host or result.job_id != version.id:
        raise BindingError(f"model {asked}: the sealed object is not a result of job {version.id}")
    # (4) The one asked for.
    spec = from_bytes(job.spec)
    if asked not in (version.id, spec.suffix):
        raise BindingError(f"asked for model {asked}, the control plane handed over the result of another job")
    return Lineage(authorisation, spec, result, said.digest, found)


def _job(session: Session, job_id: str) -> jobs_pb2.Job:
    stubs = session.connection
    return stubs.call(stubs.jobs.GetJob, jobs_pb2.GetJobRequest(id=job_id)).job
