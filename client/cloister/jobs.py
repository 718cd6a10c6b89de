# SPDX-License-Identifier: Apache-2.0
"""Jobs: specified in YAML, checked against what the site shows, signed here, and watched."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cloister.api.v1 import common_pb2, jobs_pb2
from cloister.channel import messages
from cloister.comparing import Compared
from cloister.curves import Curves, Step, curves_of, step_of
from cloister.datasets import Datasets
from cloister.dry_run import DryRun, plan
from cloister.errors import ConnectError, ServerError, UsageError
from cloister.evidence.authorisation import Authorisation, verify_authorisation_signature
from cloister.evidence.canonical import sha256_hex
from cloister.evidence.errors import BindingError, PolicyError
from cloister.evidence.manifest import Manifest, VerifiedObject
from cloister.evidence.policy import Policy
from cloister.evidence.signatures import Statement
from cloister.lineage import Start, earlier_specs, reference_to
from cloister.models import Models
from cloister.replay import bind_replay
from cloister.reports import JobReport, fetch_report, open_report
from cloister.sealed.keys import Identity
from cloister.session import DAY_SECONDS, Session, check_name, is_id, pages
from cloister.spec import NO_TRAINING, Spec, SpecSource, from_bytes, read_spec, resolve, spec_bytes
from cloister.training_report import TrainingReport, provenance_of
from cloister.upload import Progress, no_progress
from cloister.wire import statement_from_proto, statement_to_proto

EXPIRES_DAYS = 7
ROLES = ("training", "validation", "evaluation", "replay")
RECONNECTS = 10
SUCCEEDED = jobs_pb2.JOB_STATE_SUCCEEDED


def no_remark(text: str) -> None:
    """Tells nobody."""


class Jobs:
    """`client.jobs`."""

    def __init__(self, session: Session, datasets: Datasets, models: Models) -> None:
        self._session = session
        self._datasets = datasets
        self._models = models

    def submit(
        self,
        spec: SpecSource,
        *,
        expires_days: int = EXPIRES_DAYS,
        remark: Callable[[str], object] = no_remark,
    ) -> jobs_pb2.Job:
        """Verify every input, sign, and queue a job.

        Model and datasets may be named; what is signed holds ids, and the digests of what was verified here: a
        control plane that swaps one later is refused by the host.  The model may be the result of an earlier job.
        `remark` is told what the specification leaves open, before it is signed.
        Raises UsageError for the specification, an EvidenceError for what the site shows.
        """
        job_id = self._session.new_id()
        ready, policy = self._prepared(spec, job_id)
        for text in ready.remarks:
            remark(text)
        wanted, start, second = ready.spec, ready.start, ready.auxiliary
        data = {role: reference_to(found) for role, found in ready.data.items()}
        me, now, signed = self._session.site.me(), self._session.clock(), spec_bytes(wanted)
        authorisation = Authorisation(
            job_id=job_id,
            member=me.id,
            team=me.team,
            purpose=wanted.purpose,
            pool=wanted.pool,
            spec_sha256=sha256_hex(signed),
            policy_sha256=policy.digest,
            model=reference_to(start.base),
            model_layers=tuple(reference_to(layer) for layer in start.layers),
            training=data.get("training"),
            validation=data.get("validation"),
            evaluation=data.get("evaluation"),
            max_attempts=wanted.max_attempts,
            created_at=now,
            expires_at=now + expires_days * DAY_SECONDS,
            replay=data.get("replay"),
            auxiliary=None if second is None else reference_to(second.base),
            auxiliary_layers=() if second is None else tuple(reference_to(layer) for layer in second.weights),
        )
        return self._create(authorisation, signed)

    def dry_run(self, spec: SpecSource) -> DryRun:
        """What `submit` would sign, with every input verified, and what a de-biasing gate asks for.

        Nothing is signed, and nothing is asked of the site but its names, manifests and policy.
        """
        return self._prepared(spec, self._session.new_id())[0]

    def _prepared(self, spec: SpecSource, job_id: str) -> tuple[DryRun, Statement]:
        given = read_spec(spec)
        wanted = resolve(given)
        # (1) The inputs are what their owners and hosts signed, of this team, for this purpose and pool.
        start = self._models.start(wanted.model)
        if start.adapter_spec is not None:
            wanted = resolve(given, start.adapter_spec)
        second = self._models.start(wanted.auxiliary_model) if wanted.auxiliary_model else None
        named = {role: getattr(wanted, f"{role}_dataset") for role in ROLES}
        data = {role: self._dataset(wanted, name) for role, name in named.items() if name}
        _check_start(start, wanted, start.layers)
        if second is not None:
            _check_start(second, wanted, second.weights)
        _check_distinct(*data.values())
        # (2) The specification names them by id.
        wanted.model = start.id
        wanted.auxiliary_model = "" if second is None else second.id
        for role, found in data.items():
            setattr(wanted, f"{role}_dataset", found.manifest.id)
        wanted.suffix = check_name("model", wanted.suffix or f"{start.name[:80]}-{job_id[:8]}")
        bind_replay(wanted, given, list(earlier_specs(self._session, start)) if wanted.replay_dataset else [])
        # (3) The policy under which the result may leave is bound too, and its bars are not widened.
        policy = self._models.policy()
        return plan(wanted, start, data, Policy.parse(policy.payload), second), policy

    def _create(self, authorisation: Authorisation, data: bytes) -> jobs_pb2.Job:
        statement = statement_to_proto(authorisation.sign(self._session.home.signing_key()))
        stubs = self._session.connection
        request = jobs_pb2.CreateJobRequest(authorisation=statement, spec=data)
        job = stubs.call(stubs.jobs.CreateJob, request).job
        if job.id != authorisation.job_id or job.spec != data:
            raise ServerError("the control plane queued something other than was signed; tell its administrator")
        return job

    def get(self, job_id: str) -> jobs_pb2.Job:
        """One job.  Raises NotFoundError."""
        stubs = self._session.connection
        return stubs.call(stubs.jobs.GetJob, jobs_pb2.GetJobRequest(id=_checked_id(job_id))).job

    def list(self, limit: int | None = None) -> Iterator[jobs_pb2.Job]:
        """Jobs, newest first."""
        stubs = self._session.connection

        def fetch(page: common_pb2.PageRequest) -> jobs_pb2.ListJobsResponse:
            return stubs.call(stubs.jobs.ListJobs, jobs_pb2.ListJobsRequest(page=page))

        for answer in pages(fetch, limit):
            yield from answer.jobs

    def cancel(self, job_id: str) -> jobs_pb2.Job:
        """Ask for the end of a job; a running one stops within a step."""
        stubs = self._session.connection
        return stubs.call(stubs.jobs.CancelJob, jobs_pb2.CancelJobRequest(id=_checked_id(job_id))).job

    def pause(self, job_id: str) -> jobs_pb2.Job:
        """Ask for a pause: a running job stops after its step, with a checkpoint.  Refused where it cannot."""
        stubs = self._session.connection
        return stubs.call(stubs.jobs.PauseJob, jobs_pb2.PauseJobRequest(id=_checked_id(job_id))).job

    def resume(self, job_id: str) -> jobs_pb2.Job:
        """Let a paused job go on from its checkpoint; it takes one of the attempts that were signed."""
        stubs = self._session.connection
        return stubs.call(stubs.jobs.ResumeJob, jobs_pb2.ResumeJobRequest(id=_checked_id(job_id))).job

    def watch(self, job_id: str, after_seq: int = 0) -> Iterator[jobs_pb2.WatchJobResponse]:
        """Events after a sequence number, heartbeats, and at last the terminal message; reconnects by itself.

        Raises ConnectError when the control plane stays away.
        """
        last, failures = after_seq, 0
        while True:
            try:
                for message in self._stream(_checked_id(job_id), last):
                    failures = 0
                    if message.WhichOneof("kind") == "event":
                        if message.event.seq <= last:
                            continue  # a replay overlaps what was seen
                        last = message.event.seq
                    yield message
                    if message.WhichOneof("kind") == "terminal":
                        return
            except ConnectError:
                if failures + 1 >= RECONNECTS:
                    raise
            failures += 1
            if failures >= RECONNECTS:
                raise ConnectError(f"the stream of job {job_id} ends again and again; watch it later, it goes on")
            self._session.connection.back_off(failures)

    def wait(self, job_id: str) -> jobs_pb2.Job:
        """Watch a job to its end, and return it as it ended.  Raises ConnectError."""
        for message in self.watch(job_id):
            if message.WhichOneof("kind") == "terminal":
                return message.terminal
        raise ConnectError(f"the stream of job {job_id} ended; watch it again")

    def progress(self, job_id: str) -> Iterator[Step]:
        """Steps of training as they are reported, until the job ends."""
        for message in self.watch(job_id):
            if message.WhichOneof("kind") == "event" and message.event.type == "progress":
                yield step_of(message.event)

    def _stream(self, job_id: str, after_seq: int) -> Iterator[jobs_pb2.WatchJobResponse]:
        request = jobs_pb2.WatchJobRequest(id=job_id, after_seq=after_seq)
        call = self._session.connection.jobs.WatchJob(request)
        try:
            yield from messages(call)
        finally:
            call.cancel()

    def clone(
        self, job_id: str, changes: Mapping[str, str] | None = None, *, remark: Callable[[str], object] = no_remark
    ) -> jobs_pb2.Job:
        """Submit the specification of an earlier job again, with some top-level text fields changed.

        The old one is only believed as its member signed it.
        """
        job = self.get(job_id)
        signed = verify_authorisation_signature(
            statement_from_proto(job.authorisation), self._session.site.roster, now=self._session.clock()
        )
        if signed.job_id != job_id or signed.spec_sha256 != sha256_hex(job.spec):
            raise BindingError(f"job {job_id}: the specification shown is not the one that {signed.member} signed")
        spec = from_bytes(job.spec)
        spec.suffix = ""
        spec.data.ClearField("replay_split")  # that of the model and the dataset, which may be others now
        for name, value in (changes or {}).items():
            if name not in CLONE_FIELDS:
                raise UsageError(f"{name} cannot be changed in a clone; fields are {', '.join(CLONE_FIELDS)}")
            setattr(spec, name, int(value) if name == "seed" else value)
        return self.submit(spec, remark=remark)

    def is_training(self, job_id: str) -> bool:
        """Whether a job trains a model, rather than de-biasing one, or measuring or answering with it."""
        method = from_bytes(self.get(job_id).spec).method.WhichOneof("type")
        return method != "debias" and method not in NO_TRAINING

    def compared(self, job_id: str) -> Compared:
        """What was asked of a job and what came of it; figures are the host's, signed, where it made a model."""
        job = self.get(job_id)
        if job.fine_tuned_model and job.team == self._session.site.me().team:
            lineage = self._models.lineage(job.fine_tuned_model)
            before, after = (
                {name: float(text) for name, text in table.items()}
                for table in (lineage.result.metrics_before, lineage.result.metrics)
            )
            return Compared(job, lineage.spec.suffix, before, after, signed=True)
        shown = {name: value for name, value in job.metrics.items() if "." not in name}
        return Compared(job, job.id[:8], {}, shown, signed=False)

    def curves(self, job_id: str) -> Curves:
        """Losses of training and validation, from the job's events so far."""
        return curves_of(self._events(_checked_id(job_id)))

    def _events(self, job_id: str) -> Iterator[jobs_pb2.JobEvent]:
        """What is recorded now.  The stream of a running job goes on: it is left at the step that it had come to."""
        job = self.get(job_id)
        come_to = math.inf if job.finished_at.seconds else job.progress.current
        for message in self._stream(job_id, 0) if come_to else ():
            if message.WhichOneof("kind") != "event":
                return
            yield message.event
            if message.event.type == "progress" and message.event.data.get("step", 0) >= come_to:
                return

    def training_report(self, job_id: str) -> TrainingReport:
        """Curves, figures and provenance of a training job that has ended; `cloister.training_report` writes them."""
        compared = self.compared(job_id)
        if not compared.signed:
            raise UsageError(f"job {job_id} has made no model of this team; see: cloister job show {job_id}")
        lineage = self._models.lineage(compared.job.fine_tuned_model)
        return TrainingReport(compared, self.curves(job_id), provenance_of(lineage))

    def report(self, job_id: str) -> JobReport:
        """What a de-biasing, evaluation or inference job found, verified; see `cloister.reports`."""
        return fetch_report(self._session, _checked_id(job_id))

    def open_report(
        self,
        report: JobReport,
        folder: str | Path,
        identity: Identity | None = None,
        progress: Progress = no_progress,
    ) -> Path:
        """Open a sealed report into a new folder, with this home's identity or another, such as the recovery key."""
        mine = identity or Identity.parse(self._session.home.recipient_secret())
        return open_report(self._session, report, mine, Path(folder), progress)

    def _dataset(self, spec: Spec, name_or_id: str) -> VerifiedObject:
        found = self._datasets.verified(name_or_id)
        manifest = found.manifest
        if spec.purpose not in manifest.purposes:
            allowed = ", ".join(manifest.purposes)
            raise PolicyError(f"dataset {name_or_id} may be used for {allowed}, not for {spec.purpose!r}")
        if manifest.minimum_epsilon is not None:
            raise PolicyError(f"dataset {name_or_id} asks for differential privacy, which no job gives yet")
        _check_pool(manifest, spec.pool)
        return found


CLONE_FIELDS = (
    "model",
    "training_dataset",
    "validation_dataset",
    "evaluation_dataset",
    "replay_dataset",
    "suffix",
    "seed",
)


def _check_start(start: Start, spec: Spec, layers: tuple[VerifiedObject, ...]) -> None:
    """A layer has learnt from its rows: what those may be used for binds it too.  `layers` are those to be opened."""
    for found in (start.base, *layers):
        _check_pool(found.manifest, spec.pool)
    for layer in layers:
        if spec.purpose not in layer.manifest.purposes:
            allowed = ", ".join(layer.manifest.purposes)
            raise PolicyError(f"model {start.name} was made for {allowed}, it may not be used for {spec.purpose!r}")


def _check_pool(manifest: Manifest, pool: str) -> None:
    if manifest.pool != pool:
        raise UsageError(
            f"{manifest.kind} {manifest.name} is sealed for pool {manifest.pool!r}, the job wants {pool!r}; "
            "push it for that pool"
        )


def _check_distinct(*objects: VerifiedObject) -> None:
    ids = [found.manifest.id for found in objects]
    if len(set(ids)) != len(ids):
        raise UsageError("spec: a dataset is named twice; evaluating on training rows proves nothing")


def _checked_id(job_id: str) -> str:
    if not is_id(job_id):
        raise UsageError(f"{job_id[:60]!r} is not a job id; see: cloister job list")
    return job_id
