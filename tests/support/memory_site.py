# SPDX-License-Identifier: Apache-2.0
"""A control plane in memory, with a real root, roster, log key and host: honest until a test makes it hostile.

What a hostile one could do, a test does by changing the fields: it has no key but the log's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from cloister.admin.admit import admit_host, admit_person
from cloister.admin.draft import add_policy_key, add_team, set_log
from cloister.admin.log_key import make_log_key
from cloister.admin.policy import read_policy
from cloister.admin.root import create_root
from cloister.admin.sign import sign_next
from cloister.api.v1 import audit_pb2, blobs_pb2, common_pb2, datasets_pb2, identity_pb2, jobs_pb2, models_pb2
from cloister.channel import Connection
from cloister.client import Client
from cloister.enrolment import EnrolmentRequest
from cloister.evidence.authorisation import Authorisation
from cloister.evidence.checkpoint import Checkpoint, sign_checkpoint
from cloister.evidence.entry import Actor, Entry, Event, Subject
from cloister.evidence.manifest import Manifest, Trailer, context
from cloister.evidence.merkle import consistency_proof, leaf_hash, root_hash
from cloister.evidence.release import Release, ReleaseRequest
from cloister.evidence.result import Result
from cloister.evidence.signatures import SigningKey, Statement, b64
from cloister.home import Home, install_welcome, keygen
from cloister.push import trailer_for
from cloister.sealed import keys
from cloister.sealed.bundle import write_bundle
from cloister.sealed.filelist import list_digest
from cloister.sealed.keys import Identity
from cloister.sealed.payload import SealedDigest, generate_dek, seal_stream
from cloister.tls import generate_tls_key, make_csr
from cloister.wire import statement_from_proto, statement_to_proto
from fake_channel import FakeChannel, Handler, Refusal
from memory_layers import export_manifest, layer_of, stack_of
from set_clock import NOW, Clock

POLICY = "id: standard\nversion: 2\napprovals: 0\nauto_release: true\n"
ADAPTER = {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.safetensors": b"weights" * 1000}
PEOPLE = (
    ("anna", "alpha", ("member", "admin")),
    ("ben", "alpha", ("member", "approver")),
    ("carl", "beta", ("member",)),
    ("dora", "alpha", ("auditor",)),
)


class MemorySite:
    """Handlers bear the names of their RPCs; a test replaces them in `channel.handlers`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.custody = create_root(folder / "root", "test", endpoint="localhost:1", clock=self.clock)
        self.signer = make_log_key("test/log")
        self.policy_key = SigningKey.generate()
        self.host_key, self.host_identity = SigningKey.generate(), Identity.generate()
        self.homes = self._found()
        self.roster = sign_next(self.custody, 30, now=NOW)
        self.policy = read_policy(POLICY, 30, now=NOW).sign(self.policy_key)
        self.entries: list[bytes] = []
        self.datasets: dict[str, datasets_pb2.Dataset] = {}
        self.versions: dict[str, models_pb2.ModelVersion] = {}
        self.jobs: dict[str, jobs_pb2.Job] = {}
        self.releases: dict[str, models_pb2.Release] = {}
        self.blobs: dict[str, bytearray] = {}
        self.declared: dict[str, Trailer] = {}
        self.deks: dict[str, tuple[bytes, bytes]] = {}
        self._numbers = itertools.count(1)
        names = [name for name in dir(self) if name[0].isupper()]
        self.honest: dict[str, Handler] = {name: getattr(self, name) for name in names}
        self.channel = FakeChannel(dict(self.honest))
        self.log("site.start")

    def _found(self) -> dict[str, Home]:
        self.recovery = Identity.generate()
        recovery = str(self.recovery.recipient)
        draft = add_team(add_team(self.custody.draft(), "alpha", recovery), "beta", recovery)
        draft = add_policy_key(set_log(draft, "test/log", self.signer.vkey), self.policy_key.public, now=NOW)
        self.custody.save_draft(draft)
        csr, public = make_csr(generate_tls_key()), b64(self.host_key.public)
        request = EnrolmentRequest("host", csr, public, str(self.host_identity.recipient))
        admit_host(self.custody, request, "gpu-1", "default", now=NOW)
        return {name: self._join(name, team, roles) for name, team, roles in PEOPLE}

    def _join(self, name: str, team: str, roles: tuple[str, ...]) -> Home:
        home = Home.at(self.folder / name)
        install_welcome(home, admit_person(self.custody, keygen(home), name, team, roles, now=NOW))
        return home

    def client(self, name: str = "anna") -> Client:
        """A client of one person; it never really waits."""
        slept: list[float] = []
        connection = Connection(self.channel, sleep=slept.append)
        return Client(self.homes[name], connection, clock=self.clock, ids=self._id)

    def _id(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._numbers):012}"

    # The log.

    def log(self, action: str, object_id: str = "test") -> None:
        event = Event(action, Actor("system", "system"), Subject("log", object_id))
        self.entries.append(Entry(len(self.entries), NOW * 1_000_000 + len(self.entries), event).to_bytes())

    def leaves(self) -> list[bytes]:
        return [leaf_hash(entry) for entry in self.entries]

    def checkpoint(self) -> bytes:
        leaves = self.leaves()
        return sign_checkpoint(Checkpoint("test/log", len(leaves), root_hash(leaves)), self.signer)

    # The services.

    def GetSite(self, _: object) -> identity_pb2.GetSiteResponse:
        self.log("site.read")
        return identity_pb2.GetSiteResponse(
            server_version="0.1.0",
            minimum_client_version="0.1.0",
            envelope_versions=[1],
            roster=statement_to_proto(self.roster),
            checkpoint=self.checkpoint(),
        )

    def WhoAmI(self, _: object) -> identity_pb2.WhoAmIResponse:
        return identity_pb2.WhoAmIResponse(id="anna", team="alpha", roles=["member"], transport="TLSv1.3")

    def PublishRoster(self, request: identity_pb2.PublishRosterRequest) -> identity_pb2.PublishRosterResponse:
        self.roster = statement_from_proto(request.roster)
        return identity_pb2.PublishRosterResponse(version=2)

    def GetCheckpoint(self, request: audit_pb2.GetCheckpointRequest) -> audit_pb2.GetCheckpointResponse:
        leaves, since = self.leaves(), request.since_size
        if since > len(leaves):
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "ahead", "LOG_BEHIND_CALLER")
        proof = consistency_proof(leaves, since, len(leaves)) if since else []
        return audit_pb2.GetCheckpointResponse(checkpoint=self.checkpoint(), consistency_proof=proof)

    def ListEntries(self, request: audit_pb2.ListEntriesRequest) -> audit_pb2.ListEntriesResponse:
        start = int(request.page.page_token or 0)
        end = start + request.page.page_size
        token = str(end) if end < len(self.entries) else ""
        return audit_pb2.ListEntriesResponse(entries=self.entries[start:end], next_page_token=token)

    def ExportLog(self, _: object) -> Iterator[audit_pb2.ExportLogResponse]:
        yield audit_pb2.ExportLogResponse(checkpoint=self.checkpoint())
        for entry in self.entries:
            yield audit_pb2.ExportLogResponse(entry=entry)

    def CreateDataset(self, request: datasets_pb2.CreateDatasetRequest) -> datasets_pb2.CreateDatasetResponse:
        manifest, trailer = self._declare(request.sealed)
        found = datasets_pb2.Dataset(
            id=manifest.id,
            owner=manifest.owner,
            team=manifest.team,
            state=datasets_pb2.DATASET_STATE_UPLOADING,
            purposes=manifest.purposes,
            size=trailer.ciphertext_size,
            ciphertext_sha256=trailer.ciphertext_sha256,
            sealed=request.sealed,
            recipient_key_ids=[wrap.recipient_key_id for wrap in request.wraps],
        )
        return datasets_pb2.CreateDatasetResponse(dataset=self.datasets.setdefault(manifest.id, found))

    def GetDataset(self, request: datasets_pb2.GetDatasetRequest) -> datasets_pb2.GetDatasetResponse:
        return datasets_pb2.GetDatasetResponse(dataset=_known(self.datasets, request.id))

    def ListDatasets(self, _: object) -> datasets_pb2.ListDatasetsResponse:
        return datasets_pb2.ListDatasetsResponse(datasets=list(self.datasets.values())[::-1])

    def DeleteDataset(self, request: datasets_pb2.DeleteDatasetRequest) -> datasets_pb2.DeleteDatasetResponse:
        found = _known(self.datasets, request.id)
        found.state = datasets_pb2.DATASET_STATE_DELETED
        return datasets_pb2.DeleteDatasetResponse(dataset=found)

    def _declare(self, sealed: common_pb2.SealedObject) -> tuple[Manifest, Trailer]:
        manifest, trailer = Manifest.parse(sealed.manifest), Trailer.parse(sealed.trailer.payload)
        self.blobs.setdefault(manifest.id, bytearray())
        self.declared[manifest.id] = trailer
        return manifest, trailer

    def GetUpload(self, request: blobs_pb2.GetUploadRequest) -> blobs_pb2.GetUploadResponse:
        have, size = len(self.blobs[request.object_id]), self.declared[request.object_id].ciphertext_size
        return blobs_pb2.GetUploadResponse(committed_size=have, size=size, complete=have == size)

    def WriteBlob(self, requests: Iterator[blobs_pb2.WriteBlobRequest]) -> blobs_pb2.WriteBlobResponse:
        object_id = next(requests).object_id
        blob, declared = self.blobs[object_id], self.declared[object_id]
        for request in requests:
            if request.offset != len(blob):
                raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "offset", "OFFSET_MISMATCH")
            blob += request.data
        complete = len(blob) == declared.ciphertext_size
        if complete and hashlib.sha256(blob).hexdigest() != declared.ciphertext_sha256:
            blob.clear()
            raise Refusal(grpc.StatusCode.DATA_LOSS, "digest", "DIGEST_MISMATCH")
        if complete and object_id in self.datasets:
            self.datasets[object_id].state = datasets_pb2.DATASET_STATE_READY
        if complete and object_id in self.versions:
            self.versions[object_id].state = models_pb2.MODEL_VERSION_STATE_READY
        return blobs_pb2.WriteBlobResponse(committed_size=len(blob), complete=complete)

    def ReadBlob(self, request: blobs_pb2.ReadBlobRequest) -> Iterator[blobs_pb2.ReadBlobResponse]:
        blob = bytes(self.blobs[request.object_id])
        for at in range(request.offset, len(blob), 4096):
            yield blobs_pb2.ReadBlobResponse(data=blob[at : at + 4096])

    def CreateModelVersion(
        self, request: models_pb2.CreateModelVersionRequest
    ) -> models_pb2.CreateModelVersionResponse:
        manifest, trailer = self._declare(request.sealed)
        version = models_pb2.ModelVersion(
            id=manifest.id,
            name=manifest.name,
            team=manifest.team,
            state=models_pb2.MODEL_VERSION_STATE_UPLOADING,
            sealed=request.sealed,
            size=trailer.ciphertext_size,
        )
        version.dossier.licence, version.dossier.source = manifest.details["licence"], manifest.details["source"]
        return models_pb2.CreateModelVersionResponse(version=self.versions.setdefault(manifest.id, version))

    def GetModelVersion(self, request: models_pb2.GetModelVersionRequest) -> models_pb2.GetModelVersionResponse:
        named = {version.name: version for version in self.versions.values()}
        return models_pb2.GetModelVersionResponse(version=_known({**named, **self.versions}, request.id))

    def ListModelVersions(self, _: object) -> models_pb2.ListModelVersionsResponse:
        return models_pb2.ListModelVersionsResponse(versions=list(self.versions.values()))

    def PublishPolicy(self, request: models_pb2.PublishPolicyRequest) -> models_pb2.PublishPolicyResponse:
        self.policy = statement_from_proto(request.policy)
        return models_pb2.PublishPolicyResponse(digest=self.policy.digest)

    def GetPolicy(self, _: object) -> models_pb2.GetPolicyResponse:
        return models_pb2.GetPolicyResponse(policy=statement_to_proto(self.policy))

    def CreateJob(self, request: jobs_pb2.CreateJobRequest) -> jobs_pb2.CreateJobResponse:
        signed = Authorisation.parse(request.authorisation.payload)
        job = jobs_pb2.Job(
            id=signed.job_id,
            owner=signed.member,
            team=signed.team,
            state=jobs_pb2.JOB_STATE_QUEUED,
            spec=request.spec,
            model=json.loads(request.spec)["model"],
            authorisation=request.authorisation,
            spec_digest=signed.spec_sha256,
        )
        return jobs_pb2.CreateJobResponse(job=self.jobs.setdefault(signed.job_id, job))

    def GetJob(self, request: jobs_pb2.GetJobRequest) -> jobs_pb2.GetJobResponse:
        return jobs_pb2.GetJobResponse(job=_known(self.jobs, request.id))

    def ListJobs(self, _: object) -> jobs_pb2.ListJobsResponse:
        return jobs_pb2.ListJobsResponse(jobs=list(self.jobs.values()))

    def CancelJob(self, request: jobs_pb2.CancelJobRequest) -> jobs_pb2.CancelJobResponse:
        job = _known(self.jobs, request.id)
        job.state = jobs_pb2.JOB_STATE_CANCELLED
        return jobs_pb2.CancelJobResponse(job=job)

    def WatchJob(self, request: jobs_pb2.WatchJobRequest) -> Iterator[jobs_pb2.WatchJobResponse]:
        for seq in range(request.after_seq + 1, 6):
            event = jobs_pb2.JobEvent(seq=seq, type="message", level="info", message="working")
            yield jobs_pb2.WatchJobResponse(event=event)
        yield jobs_pb2.WatchJobResponse(terminal=_known(self.jobs, request.id))

    def CreateRelease(self, request: models_pb2.CreateReleaseRequest) -> models_pb2.CreateReleaseResponse:
        asked = ReleaseRequest.parse(request.request.payload)
        release = models_pb2.Release(
            id=asked.release_id,
            model_version=asked.model_version,
            team=asked.team,
            state=models_pb2.RELEASE_STATE_QUEUED,
            request=request.request,
        )
        return models_pb2.CreateReleaseResponse(release=self.releases.setdefault(asked.release_id, release))

    def GetRelease(self, request: models_pb2.GetReleaseRequest) -> models_pb2.GetReleaseResponse:
        return models_pb2.GetReleaseResponse(release=_known(self.releases, request.id))

    def ListReleases(self, _: object) -> models_pb2.ListReleasesResponse:
        return models_pb2.ListReleasesResponse(releases=list(self.releases.values()))

    def ApproveRelease(self, request: models_pb2.ApproveReleaseRequest) -> models_pb2.ApproveReleaseResponse:
        release = _known(self.releases, request.id)
        release.approvals.append(request.approval)
        return models_pb2.ApproveReleaseResponse(release=release)

    # What the certified host does.

    def finish_job(self, job_id: str, files: dict[str, bytes] = ADAPTER) -> models_pb2.ModelVersion:
        """Seal a result as the host would, and make it a candidate."""
        job = self.jobs[job_id]
        bundle, sealed, dek = io.BytesIO(), io.BytesIO(), generate_dek()
        files_sha256 = list_digest(write_bundle(files.items(), bundle))
        bundle.seek(0)
        manifest = export_manifest(job, files_sha256, layer_of(files))
        bound_to = context(manifest.to_payload())
        digest = seal_stream(bundle, sealed, dek, bound_to)
        self.blobs[manifest.id] = bytearray(sealed.getvalue())
        self.deks[job_id] = (dek, bound_to)
        self.versions[job_id] = self._candidate(job, manifest, digest, files_sha256)
        job.state, job.fine_tuned_model = jobs_pb2.JOB_STATE_SUCCEEDED, job_id
        return self.versions[job_id]

    def _candidate(
        self, job: jobs_pb2.Job, manifest: Manifest, digest: SealedDigest, files_sha256: str
    ) -> models_pb2.ModelVersion:
        trailer = trailer_for(manifest, digest, None).sign(self.host_key)
        result = Result(
            kind="export",
            job_id=job.id,
            authorisation_sha256=statement_from_proto(job.authorisation).digest,
            host="gpu-1",
            attempt=1,
            step=10,
            object_id=manifest.id,
            trailer_sha256=trailer.digest,
            files_sha256=files_sha256,
            metrics={"eval_accuracy": "0.9", "eval_accuracy_ci_low": "0.8", "eval_accuracy_ci_high": "0.95"},
            metrics_before={"eval_accuracy": "0.1"},
            sandboxed=True,
            created_at=NOW,
        )
        spec = json.loads(job.spec)
        version = models_pb2.ModelVersion(
            id=job.id,
            name=spec["suffix"],
            team=job.team,
            state=models_pb2.MODEL_VERSION_STATE_CANDIDATE,
            base=Authorisation.parse(job.authorisation.payload).model.id,
            layers=stack_of(self.versions[spec["model"]], manifest, trailer),
            sealed=common_pb2.SealedObject(manifest=manifest.to_payload(), trailer=statement_to_proto(trailer)),
            size=digest.ciphertext_size,
        )
        version.dossier.job_id = job.id
        version.dossier.result.CopyFrom(statement_to_proto(result.sign(self.host_key)))
        return version

    def grant(self, release_id: str, **changes: Any) -> models_pb2.Release:  # noqa: ANN401 - fields of Release
        """Wrap to the recipient as the host's key agent would; `changes` are fields of what it signs."""
        release = self.releases[release_id]
        asked = ReleaseRequest.parse(release.request.payload)
        dek, bound_to = self.deks[asked.model_version]
        recipient = Identity.parse(self.homes[asked.recipient].recipient_secret()).recipient
        wrap = keys.wrap(dek, recipient, bound_to)
        made = Release(
            release_id=release_id,
            request_sha256=statement_from_proto(release.request).digest,
            result_sha256=asked.result_sha256,
            trailer_sha256=asked.trailer_sha256,
            policy_sha256=asked.policy_sha256,
            approvals_sha256=(),
            auto_release=True,
            recipient_key_id=recipient.key_id,
            wrap_sha256=hashlib.sha256(wrap).hexdigest(),
            host="gpu-1",
            created_at=NOW,
        )
        statement: Statement = dataclasses.replace(made, **changes).sign(self.host_key)
        release.statement.CopyFrom(statement_to_proto(statement))
        release.wrap.CopyFrom(common_pb2.Wrap(recipient_key_id=recipient.key_id, wrap=wrap))
        release.state = models_pb2.RELEASE_STATE_GRANTED
        return release


def _known(found: dict[str, Any], name: str) -> Any:  # noqa: ANN401 - any message
    if name not in found:
        raise Refusal(grpc.StatusCode.NOT_FOUND, "no such object", "NOT_FOUND")
    return found[name]
