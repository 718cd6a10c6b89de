# SPDX-License-Identifier: Apache-2.0
"""Models: base models are imported sealed; results are released by policy and pulled by their recipient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cloister.api.v1 import common_pb2, jobs_pb2, models_pb2
from cloister.errors import UsageError
from cloister.evidence.manifest import BUNDLE_MEDIA_TYPE, Manifest, Trailer, VerifiedObject
from cloister.evidence.policy import verify_policy
from cloister.evidence.release import ReleaseRequest
from cloister.evidence.signatures import Statement
from cloister.lineage import Lineage, Start, verify_base, verify_result_version, verify_start
from cloister.pipes import join
from cloister.pull import pull
from cloister.push import (
    MeasuredSource,
    Spooled,
    changed,
    find_spooled,
    seal_to_spool,
    send_spooled,
    spool_key,
    trailer_for,
)
from cloister.releases import Releases
from cloister.sealed.bundle import write_bundle
from cloister.sealed.filelist import FileDigest, check_model_file, file_list, files_of, list_digest
from cloister.sealed.keys import Recipient
from cloister.sealed.payload import SealedDigest
from cloister.session import DAY_SECONDS, Session, check_name, pages
from cloister.upload import Progress, no_progress
from cloister.wire import statement_from_proto

EXPIRES_DAYS = 3650
REQUIRED = "config.json"
WEIGHTS = ".safetensors"


class Models:
    """`client.models`."""

    def __init__(self, session: Session, releases: Releases) -> None:
        self._session = session
        self._releases = releases

    def import_dir(
        self,
        directory: str | Path,
        name: str,
        licence: str,
        source: str,
        *,
        pool: str = "default",
        weightless: bool = False,
        progress: Progress = no_progress,
    ) -> models_pb2.ModelVersion:
        """Seal and push a base model: safetensors, configuration and tokenizer, nothing else.

        `weightless` takes a configuration without weights, for pre-training from random ones.
        `licence` and `source` are recorded as given.  Called again after a failure, it continues.
        Raises FileNotAllowedError for a file that a model may not contain, UsageError for a folder without a model.
        """
        check_name("model", name)
        if not licence or not source:
            raise UsageError("a model needs its licence and its source on record")
        folder = Path(directory)
        _check_folder(folder, weightless=weightless)
        spooled = self._seal(folder, name, {"licence": licence, "source": source}, pool, progress)
        stubs = self._session.connection
        request = models_pb2.CreateModelVersionRequest(sealed=spooled.message, wraps=spooled.wraps)
        stubs.call(stubs.models.CreateModelVersion, request)
        send_spooled(self._session, spooled, progress)
        return self.get(spooled.manifest.id)

    def _seal(self, folder: Path, name: str, details: dict[str, str], pool: str, progress: Progress) -> Spooled:
        session = self._session
        files = file_list(folder, check_model_file)
        digest = list_digest(files)
        recipients = session.recipients(pool)
        me = session.site.me()
        key = spool_key(kind="model", owner=me.id, name=name, pool=pool, files=digest, details=details)
        if (left := find_spooled(session, key, recipients)) is not None:
            return left
        now = session.clock()
        manifest = Manifest(
            kind="model",
            id=session.new_id(),
            name=name,
            owner=me.id,
            team=me.team,
            pool=pool,
            purposes=(),
            media_type=BUNDLE_MEDIA_TYPE,
            created_at=now,
            expires_at=now + EXPIRES_DAYS * DAY_SECONDS,
            details={**details, "files_sha256": digest},
        )
        total = sum(file.size for file in files)
        return self._bundle(folder, key, manifest, recipients, (total, progress))

    def _bundle(
        self,
        folder: Path,
        key: str,
        manifest: Manifest,
        recipients: list[Recipient],
        report: tuple[int, Progress],
    ) -> Spooled:
        """Bundle and seal in one pass; what was bundled is compared with the manifest before it is signed for."""
        bundled: list[FileDigest] = []

        def trailer(digest: SealedDigest) -> Trailer:
            # The bundle is whole by now: its end was read.  A cut or changed one raises, and no file appears.
            if list_digest(bundled) != manifest.details["files_sha256"]:
                raise changed(folder.name)
            return trailer_for(manifest, digest, None)

        _, spooled = join(
            lambda sink: bundled.extend(write_bundle(files_of(folder, check_model_file), sink)),
            lambda source: seal_to_spool(
                self._session, key, manifest, MeasuredSource(source, *report), recipients, trailer
            ),
        )
        return spooled

    def list(self, limit: int | None = None) -> Iterator[models_pb2.ModelVersion]:
        """Versions, newest first."""
        stubs = self._session.connection

        def fetch(page: common_pb2.PageRequest) -> models_pb2.ListModelVersionsResponse:
            return stubs.call(stubs.models.ListModelVersions, models_pb2.ListModelVersionsRequest(page=page))

        for answer in pages(fetch, limit):
            yield from answer.versions

    def get(self, name_or_id: str) -> models_pb2.ModelVersion:
        """One version, by id or by name (the newest of that name).  Raises NotFoundError."""
        stubs = self._session.connection
        request = models_pb2.GetModelVersionRequest(id=name_or_id)
        return stubs.call(stubs.models.GetModelVersion, request).version

    def verified(self, name_or_id: str) -> VerifiedObject:
        """A base model of this team with its importer's signature checked."""
        return verify_base(self._session, self.get(name_or_id), name_or_id)

    def start(self, name_or_id: str) -> Start:
        """What a job may start from: a base model, or a result with its whole lineage checked."""
        return verify_start(self._session, self.get(name_or_id), name_or_id, self.get)

    def lineage(self, name_or_id: str) -> Lineage:
        """A result of this team with its whole chain of signatures checked: who asked, how, who made it."""
        return verify_result_version(self._session, self.get(name_or_id), name_or_id)

    def made_from(self, version: models_pb2.ModelVersion) -> str:
        """Version id of what a result's job started from, as the control plane shows it; empty for a base model."""
        if not version.dossier.job_id:
            return ""
        stubs = self._session.connection
        return stubs.call(stubs.jobs.GetJob, jobs_pb2.GetJobRequest(id=version.dossier.job_id)).job.model

    def policy(self) -> Statement:
        """The release policy in force, verified and not older than one seen before."""
        stubs = self._session.connection
        answer = stubs.call(stubs.models.GetPolicy, models_pb2.GetPolicyRequest())
        statement = statement_from_proto(answer.policy)
        policy = verify_policy(statement, self._session.site.roster, now=self._session.clock())
        self._session.site.accept_policy(policy)
        return statement

    def release(
        self, name_or_id: str, recipient: str | None = None, *, reason: str, exception: bool = False
    ) -> models_pb2.Release:
        """Ask that a result be sealed to a person of the team (default: oneself).

        `exception` asks for one whose de-biasing gate was not passed; an approver must then sign for that.
        """
        return self._releases.request(self.get(name_or_id), name_or_id, recipient, reason, exception=exception)

    def release_request(self, release_id: str) -> tuple[ReleaseRequest, str]:
        """The verified request of a release and its digest: what an approver reads before signing."""
        return self._releases.request_of(release_id)

    def approve(self, release_id: str, *, reason: str, request_sha256: str = "") -> models_pb2.Release:
        """Approve somebody else's release request; with its digest, that very one and no other."""
        return self._releases.approve(release_id, reason, request_sha256)

    def release_of(self, release_id: str) -> models_pb2.Release:
        """One release.  Raises NotFoundError."""
        return self._releases.get(release_id)

    def releases(self, limit: int | None = None) -> Iterator[models_pb2.Release]:
        """Releases, newest first."""
        return self._releases.list(limit)

    def wait_release(self, release_id: str, attempts: int = 40) -> models_pb2.Release:
        """Poll until a release is granted or refused, or waits for people, or attempts run out."""
        return self._releases.wait(release_id, attempts)

    def pull(self, name_or_id: str, destination: str | Path, progress: Progress = no_progress) -> Path:
        """Open a version that was released to this person into a new folder; see `cloister.pull`."""
        return pull(self._session, self._releases, self.get(name_or_id), name_or_id, Path(destination), progress)


def _check_folder(folder: Path, *, weightless: bool) -> None:
    if not (folder / REQUIRED).is_file():
        raise UsageError(f"{folder} has no {REQUIRED}; name the folder of a model in Hugging Face's layout")
    if not weightless and not any(folder.glob(f"*{WEIGHTS}")):
        raise UsageError(
            f"{folder} has no *{WEIGHTS} file; name the folder of a model with its weights, or give --config-only to "
            "pre-train one from random weights"
        )
