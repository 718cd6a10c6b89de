# SPDX-License-Identifier: Apache-2.0
"""A throw-away site in memory: root, roster, people, hosts, log, sealed objects, and the documents of openings.

`Site` makes everything as honest parties would; a test then changes the one thing that it is about.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cloister.evidence.authorisation import Authorisation, ObjectReference
from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Actor, Event, Subject
from cloister.evidence.manifest import (
    BUNDLE_MEDIA_TYPE,
    HOST_KINDS,
    ROWS_MEDIA_TYPE,
    Manifest,
    SealedObject,
    Trailer,
    context,
)
from cloister.evidence.opening import JobOpening, ReleaseOpening, Resume
from cloister.evidence.policy import Policy, Rule
from cloister.evidence.release import Approval, ReleaseRequest
from cloister.evidence.result import Result
from cloister.evidence.roster import ROSTER_TYPE, Host, KeyRecord, Person, Roster, Team
from cloister.evidence.signatures import SigningKey, Statement
from cloister.sealed import keys
from cloister.sealed.bundle import write_bundle
from cloister.sealed.filelist import list_digest
from cloister.sealed.keys import Identity, Recipient
from cloister.sealed.payload import generate_dek, seal_stream
from memory_log import ORIGIN, MemoryLog

DAY = 24 * 3600
POOL = "default"
PURPOSE = "support"


@dataclass(frozen=True)
class Keys:
    """Both key pairs of a person or host."""

    signing: SigningKey = field(default_factory=SigningKey.generate)
    identity: Identity = field(default_factory=Identity.generate)

    @property
    def recipient(self) -> str:
        return str(self.identity.recipient)


@dataclass(frozen=True)
class Sealed:
    """A sealed object with what a test may want to know about it."""

    object: SealedObject
    ciphertext: bytes
    dek: bytes
    wraps: Mapping[str, bytes]
    """Key id -> wrap."""

    @property
    def id(self) -> str:
        return Manifest.parse(self.object.manifest).id

    @property
    def reference(self) -> ObjectReference:
        return ObjectReference(self.id, self.object.trailer.digest)

    def wrap_for(self, holder: Keys) -> bytes:
        return self.wraps[holder.identity.recipient.key_id]


@dataclass(frozen=True)
class Job:
    """A job as a member submits it."""

    authorisation: Authorisation
    statement: Statement
    spec: bytes
    policy: Statement
    inputs: tuple[Sealed, ...]
    """In the order of `Authorisation.inputs`."""


class Site:
    """Team red: alice and rita (members), bob (approver and member); team blue: mallory.  Hosts host-1 and host-2."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.root = SigningKey.generate()
        self.policy_key = SigningKey.generate()
        self.log = MemoryLog()
        self.people = {name: Keys() for name in ("alice", "rita", "bob", "mallory")}
        self.hosts = {name: Keys() for name in ("host-1", "host-2")}
        self.recovery = Identity.generate()
        self.roster = self._roster()

    # ------------------------------------------------------------ roster
    def _roster(self) -> Roster:
        def person(name: str, team: str, *roles: str) -> Person:
            held = self.people[name]
            return Person(name, team, roles, (self._record(held),), (), held.recipient)

        return Roster(
            site="test",
            version=1,
            issued_at=self.now - 10,
            expires_at=self.now + 30 * DAY,
            minimum_client_version="0.1.0",
            log_origin=ORIGIN,
            log_vkey=self.log.signer.vkey,
            policy_keys=(KeyRecord(self.policy_key.public, self.now - DAY),),
            people=(
                person("alice", "red", "member"),
                person("rita", "red", "member"),
                person("bob", "red", "member", "approver"),
                person("mallory", "blue", "member", "approver"),
            ),
            teams=(Team("red", str(self.recovery.recipient)), Team("blue", str(self.recovery.recipient))),
            hosts=tuple(
                Host(name, POOL, (self._record(held),), (), held.recipient) for name, held in self.hosts.items()
            ),
        )

    def _record(self, holder: Keys) -> KeyRecord:
        return KeyRecord(holder.signing.public, self.now - DAY)

    def sign_roster(self, roster: Roster | None = None, root: SigningKey | None = None) -> Statement:
        """The roster, by the root unless told otherwise."""
        return (root or self.root).sign(ROSTER_TYPE, (roster or self.roster).to_payload())

    def with_host(self, name: str, change: Callable[[Host], Host]) -> Roster:
        """The next roster, with one host changed."""
        hosts = tuple(change(host) if host.id == name else host for host in self.roster.hosts)
        return replace(self.roster, version=self.roster.version + 1, hosts=hosts)

    def holder(self, name: str) -> Keys:
        """Keys of a person or host."""
        return self.people[name] if name in self.people else self.hosts[name]

    # ------------------------------------------------------------ sealed objects
    def seal(
        self, kind: str, content: bytes, owner: str = "alice", signer: SigningKey | None = None, **changes: object
    ) -> Sealed:
        """A sealed object of team red; `changes` are fields of its manifest."""
        manifest = Manifest(
            kind=kind,
            id=str(uuid.uuid4()),
            name="an object",
            owner=owner,
            team="red",
            pool=POOL,
            purposes=(PURPOSE,),
            media_type=ROWS_MEDIA_TYPE if kind == "dataset" else BUNDLE_MEDIA_TYPE,
            created_at=self.now - 60,
            expires_at=self.now + 10 * DAY,
        )
        payload = replace(manifest, **changes).to_payload()  # type: ignore[arg-type]  # a test names real fields
        bound_to, dek, sink = context(payload), generate_dek(), io.BytesIO()
        digest = seal_stream(io.BytesIO(content), sink, dek, bound_to)
        trailer = Trailer(bound_to.hex(), digest.ciphertext_sha256, digest.ciphertext_size, digest.plaintext_size).sign(
            signer or self.holder(owner).signing
        )
        recipients = [held.identity.recipient for held in self.hosts.values()]
        if kind not in HOST_KINDS:
            recipients.append(self.recovery.recipient)
        wraps = {item.key_id: keys.wrap(dek, item, bound_to) for item in recipients}
        return Sealed(SealedObject(payload, trailer), sink.getvalue(), dek, wraps)

    def dataset(self, rows: bytes = b'{"text":"a","label":"b"}\n', **changes: object) -> Sealed:
        return self.seal("dataset", rows, **changes)  # type: ignore[arg-type]  # fields of the manifest

    def model(self, files: Mapping[str, bytes] | None = None, **changes: object) -> Sealed:
        """A base model; by default one small file."""
        sink = io.BytesIO()
        digests = write_bundle(list((files or {"config.json": b"{}"}).items()), sink)
        details = {"files_sha256": list_digest(digests), "licence": "Apache-2.0", "source": "test"}
        return self.seal("model", sink.getvalue(), details=details, **changes)  # type: ignore[arg-type]

    # ------------------------------------------------------------ jobs
    def policy(self, signer: SigningKey | None = None, **changes: object) -> Statement:
        """A policy that releases by itself at an accuracy of 0.5."""
        policy = Policy(
            id="standard",
            version=1,
            auto_release=True,
            approvals=0,
            rules=(Rule("eval_accuracy", at_least="0.5"),),
            allow_unsandboxed=False,
            issued_at=self.now - 60,
            expires_at=self.now + 20 * DAY,
        )
        changed = replace(policy, **changes)  # type: ignore[arg-type]  # a test names real fields
        return changed.sign(signer or self.policy_key)

    def job(
        self,
        *,
        member: str = "alice",
        policy: Statement | None = None,
        model: Sealed | None = None,
        training: Sealed | None = None,
        evaluation: Sealed | None = None,
        replay: Sealed | None = None,
        auxiliary: Sequence[Sealed] = (),
        layers: Sequence[Sealed] = (),
        spec: Mapping[str, object] | None = None,
        untrained: bool = False,
        **changes: object,
    ) -> Job:
        """A signed job; `changes` are fields of the authorisation, `auxiliary` a second model and its layer, and
        `untrained` leaves the training rows out.
        """
        model = model or self.model()
        training = None if untrained else training or self.dataset()
        policy = policy or self.policy()
        inputs = tuple(i for i in (model, *layers, *auxiliary, training, evaluation, replay) if i is not None)
        fields: dict[str, object] = {
            "model": model.id,
            "training_dataset": "" if training is None else training.id,
            "validation_dataset": "",
            "evaluation_dataset": "" if evaluation is None else evaluation.id,
            "replay_dataset": "" if replay is None else replay.id,
            "auxiliary_model": auxiliary[-1].id if auxiliary else "",
            "suffix": "helpdesk",
            **(spec or {}),
        }
        text = json.dumps(fields, sort_keys=True).encode()
        authorisation = Authorisation(
            job_id=str(uuid.uuid4()),
            member=member,
            team="red",
            purpose=PURPOSE,
            pool=POOL,
            spec_sha256=hashlib.sha256(text).hexdigest(),
            policy_sha256=policy.digest,
            model=model.reference,
            model_layers=tuple(layer.reference for layer in layers),
            training=None if training is None else training.reference,
            validation=None,
            evaluation=None if evaluation is None else evaluation.reference,
            max_attempts=3,
            created_at=self.now - 30,
            expires_at=self.now + 5 * DAY,
            replay=None if replay is None else replay.reference,
            auxiliary=auxiliary[0].reference if auxiliary else None,
            auxiliary_layers=tuple(layer.reference for layer in auxiliary[1:]),
        )
        authorisation = replace(authorisation, **changes)  # type: ignore[arg-type]  # a test names real fields
        return Job(authorisation, authorisation.sign(self.people[member].signing), text, policy, inputs)

    def log_job_opening(self, job: Job, attempt: int = 1, resume: Sealed | None = None, host: str = "host-1") -> int:
        """Write the entry that a control plane writes before it hands out evidence; returns its index."""
        detail: dict[str, JSON] = {
            "attempt": attempt,
            "inputs": [item.object.trailer.digest for item in job.inputs],
            "resume": "" if resume is None else resume.object.trailer.digest,
        }
        subject = Subject("job", job.authorisation.job_id, job.statement.digest)
        return self.log.append(
            Event("job.open", Actor(host, "host", "00" * 32), subject, stage="intent", detail=detail)
        )

    def opening(
        self,
        job: Job,
        attempt: int = 1,
        since: int = 0,
        resume: tuple[Sealed, Statement] | None = None,
        host: str = "host-1",
    ) -> JobOpening:
        """An honest opening, logged."""
        index = self.log_job_opening(job, attempt, resume[0] if resume else None, host)
        return JobOpening(
            authorisation=job.statement,
            spec=job.spec,
            policy=job.policy,
            attempt=attempt,
            objects=tuple(item.object for item in job.inputs),
            resume=None if resume is None else Resume(resume[0].object, resume[1]),
            evidence=self.log.evidence(index, since),
        )

    # ------------------------------------------------------------ results and releases
    def result(
        self,
        job: Job,
        sealed: Sealed,
        host: str = "host-1",
        signer: SigningKey | None = None,
        **changes: object,
    ) -> Statement:
        """What a host says that it made; `changes` are fields of the statement."""
        manifest = Manifest.parse(sealed.object.manifest)
        result = Result(
            kind=manifest.kind,
            job_id=job.authorisation.job_id,
            authorisation_sha256=job.statement.digest,
            host=host,
            attempt=1,
            step=10,
            object_id=manifest.id,
            trailer_sha256=sealed.object.trailer.digest,
            files_sha256="0" * 64,
            metrics={"eval_accuracy": "0.9"},
            metrics_before={"eval_accuracy": "0.1"},
            sandboxed=True,
            created_at=self.now - 5,
        )
        changed = replace(result, **changes)  # type: ignore[arg-type]  # a test names real fields
        return changed.sign(signer or self.hosts[host].signing)

    def state(self, content: bytes = b"state", host: str = "host-1", **changes: object) -> Sealed:
        return self.seal("state", content, owner=host, **changes)  # type: ignore[arg-type]  # fields of the manifest

    def export(
        self, content: bytes = b"export", host: str = "host-1", layer: str = "adapter", **changes: object
    ) -> Sealed:
        fields: dict[str, object] = {"details": {"layer": layer}, **changes}
        return self.seal("export", content, owner=host, **fields)  # type: ignore[arg-type]  # fields of the manifest

    def release(
        self,
        job: Job,
        sealed: Sealed,
        result: Statement,
        *,
        approvers: Sequence[str] = (),
        attempt: int = 1,
        since: int = 0,
        **changes: object,
    ) -> ReleaseOpening:
        """An honest release to rita, asked for by alice, logged; `changes` are fields of the request."""
        request = ReleaseRequest(
            release_id=str(uuid.uuid4()),
            model_version=job.authorisation.job_id,
            result_sha256=result.digest,
            trailer_sha256=sealed.object.trailer.digest,
            policy_sha256=job.policy.digest,
            requester="alice",
            team="red",
            recipient="rita",
            reason="to try it",
            created_at=self.now - 3,
            expires_at=self.now + DAY,
        )
        request = replace(request, **changes)  # type: ignore[arg-type]  # a test names real fields
        statement = request.sign(self.people[request.requester].signing)
        detail: dict[str, JSON] = {
            "attempt": attempt,
            "inputs": [sealed.object.trailer.digest],
            "recipient": request.recipient,
        }
        subject = Subject("release", request.release_id, statement.digest)
        actor = Actor("host-1", "host", "00" * 32)
        index = self.log.append(Event("release.open", actor, subject, stage="intent", detail=detail))
        return ReleaseOpening(
            request=statement,
            approvals=tuple(self.approval(request.release_id, statement, name) for name in approvers),
            policy=job.policy,
            result=result,
            authorisation=job.statement,
            object=sealed.object,
            attempt=attempt,
            evidence=self.log.evidence(index, since),
        )

    def approval(self, release_id: str, request: Statement, approver: str) -> Statement:
        """By an approver who consents to an exception where one is asked for."""
        exception = ReleaseRequest.parse(request.payload).exception
        approval = Approval(release_id, request.digest, approver, "fine", self.now - 1, exception=exception)
        return approval.sign(self.people[approver].signing)


def recipient(holder: Keys) -> Recipient:
    """The public half of a holder's sealing key."""
    return holder.identity.recipient


def frozen_memory(content: bytes) -> int:
    """A memfd that nobody can change any more, at offset 0, as trainers hand over."""
    import fcntl

    fd = os.memfd_create("bundle", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd
