# SPDX-License-Identifier: Apache-2.0
"""One attempt of one job, from its lease to its outcome.

    (1) fetch       the ciphertext of every input that is not cached, into the spool
    (2) open        the control plane logs the opening and proves it; the key agent checks everything
    (3) model       the base model in plaintext on this host's disk, by digest
    (4) train       a sandboxed trainer; the key agent pours plaintext into its pipes
    (5) follow      its words become events, its checkpoints are sealed and stored
    (6) result      sealed, stored, and the lease ended

Everything that is written carries the attempt and happens only while the lease is held.
"""

from __future__ import annotations

import hashlib
import json
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.api.v1 import jobs_pb2, workers_pb2
from cloister.errors import CloisterError
from cloister_workers.agent import events, openings, outcome
from cloister_workers.agent.debias import FigureBook
from cloister_workers.agent.errors import (
    AgentError,
    AttemptError,
    HostFault,
    JobFault,
    LeaseLostError,
    StopRequestedError,
)
from cloister_workers.agent.following import Follower
from cloister_workers.agent.host import Host
from cloister_workers.agent.lease import Lease, LeaseKeeper
from cloister_workers.agent.logging_openings import logged_opening
from cloister_workers.agent.outcome import Outcome
from cloister_workers.agent.reporter import Reporter
from cloister_workers.agent.training import Decrypt, Trainer
from cloister_workers.agent.transfer import Transfer
from cloister_workers.crashpoints import crash_here
from cloister_workers.errors import PeerClosed
from cloister_workers.keyagent import client
from cloister_workers.keyagent.client import JobSession
from cloister_workers.keyagent.errors import KeyAgentError, Refused
from cloister_workers.messages import DatasetRole

UNSANDBOXED = "this host has no sandbox: the signed policy lets the job run unsandboxed"
_LAYERS = (DatasetRole.LAYER, DatasetRole.LAYER_2, DatasetRole.LAYER_3)


@dataclass(frozen=True)
class Attempt:
    """What one attempt works with."""

    host: Host
    job: workers_pb2.JobLease
    lease: Lease
    reporter: Reporter
    transfer: Transfer
    folder: Path


def run_job(host: Host, job: workers_pb2.JobLease, lease: Lease) -> bool:
    """Run one attempt and end its lease, unless that is lost; returns whether this host did its part.

    Raises nothing that is the attempt's own affair.
    """
    crash_here("after-lease")
    host.log({"event": "job", "job": job.job_id, "attempt": job.attempt})
    try:
        with (
            LeaseKeeper(lease, host.control.heartbeat, host.clock),
            Reporter(host.control, lease) as reporter,
        ):
            ended = _outcome(host, job, lease, reporter)
            _finish(host, lease, reporter, ended)
            return ended.state != jobs_pb2.JOB_STATE_PREEMPTED
    except LeaseLostError:
        host.log({"event": "lease_lost", "job": job.job_id, "attempt": job.attempt})
    except AttemptError as error:
        # The control plane would not take the outcome; it decides when the lease expires.
        host.log({"event": "not_finished", "job": job.job_id, "code": error.code})
    return False


def _finish(host: Host, lease: Lease, reporter: Reporter, ended: Outcome) -> None:
    try:
        reporter.flush()
    except AttemptError as error:
        host.log({"event": "events_refused", "job": lease.work_id, "code": error.code})
    crash_here("before-finish")
    host.control.finish_job(lease, ended.request(lease))
    code = ended.error.code if ended.error is not None else ""
    host.log({"event": "finished", "job": lease.work_id, "state": jobs_pb2.JobState.Name(ended.state), "code": code})
    crash_here("after-finish")


def _outcome(host: Host, job: workers_pb2.JobLease, lease: Lease, reporter: Reporter) -> Outcome:
    """Whatever happens becomes an outcome; only a lost lease passes."""
    try:
        with host.cache.attempt(), host.spool.attempt(job.job_id, job.attempt) as folder:
            transfer = Transfer(host.control, lease, host.spool)
            return _run(Attempt(host, job, lease, reporter, transfer, folder))
    except LeaseLostError:
        raise
    except StopRequestedError as request:
        return outcome.of_stop(request.stop)
    except AttemptError as error:
        return outcome.of_error(error)
    except (Refused, KeyAgentError) as error:
        return outcome.of_error(_key_agent_failure(error))
    except (AgentError, CloisterError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        # A defect or a broken host must not keep the job: it ends as this host's fault, without the error's text.
        where = traceback.extract_tb(error.__traceback__)[-1]
        host.log({"event": "defect", "kind": type(error).__name__, "at": f"{Path(where.filename).name}:{where.lineno}"})
        return outcome.of_error(HostFault("AGENT_DEFECT", f"a defect in the worker's agent ({type(error).__name__})"))


def _key_agent_failure(error: KeyAgentError) -> AttemptError:
    if isinstance(error, Refused):
        return openings.refusal(error)
    return HostFault("KEY_AGENT_GONE", "the host's key agent does not answer")


def _run(attempt: Attempt) -> Outcome:
    attempt.reporter.add(events.step("unseal", "started"))
    files = _fetch(attempt)
    session = _open(attempt)
    try:
        job = attempt.job
        model = _model(attempt, session, job.model, files)
        second = _model(attempt, session, job.auxiliary, files) if job.HasField("auxiliary") else None
        for path in {files[item.object_id] for item in (job.model, job.auxiliary) if item.object_id in files}:
            path.unlink()
        attempt.reporter.add(events.step("unseal", "finished"))
        return _train(attempt, session, (model, second), _pours(attempt, session, files))
    finally:
        session.close()


def _fetch(attempt: Attempt) -> dict[str, Path]:
    """(1) The ciphertext of the inputs by object id; a base model that seems cached is left out."""
    job = attempt.job
    openings.check_names(job)
    if len(job.model_layers) > len(_LAYERS) or len(job.auxiliary_layers) > 1:
        raise JobFault("MODEL_UNSUPPORTED", "the version has more layers than one of each class; name another one")
    bases = {item.object_id: item for item in (job.model, job.auxiliary) if item.object_id}
    wanted = {item.object_id: item for item in openings.inputs(job)}
    for object_id, base in bases.items():
        if attempt.host.cache.find(_cache_key(base)) is not None:
            del wanted[object_id]
    if job.HasField("resume"):
        wanted[job.resume.object.object_id] = job.resume.object
    files: dict[str, Path] = {}
    for granted in wanted.values():
        attempt.lease.check_going()
        files[granted.object_id] = attempt.transfer.fetch(granted, attempt.folder)
    return files


def _cache_key(model: workers_pb2.GrantedObject) -> str:
    """The digest of the model's signed trailer, which the job's authorisation names.

    Not that of its files: a manifest claims those, and a member who claims another team's would run on its model.
    """
    return hashlib.sha256(model.sealed.trailer.payload).hexdigest()


def _open(attempt: Attempt) -> JobSession:
    """(2) Logged by the control plane, checked by the key agent."""
    host, lease = attempt.host, attempt.lease
    lease.check_going()
    connection = client.Connection(host.keyagent)
    try:
        logged = logged_opening(host.control, lease, connection)
    finally:
        connection.close()
    opening = openings.job_opening(attempt.job, logged)
    session = JobSession(host.keyagent, opening, openings.roster(logged), sandboxed=host.sandboxed)
    crash_here("after-opening")
    if not host.sandboxed:
        attempt.reporter.add(events.note("warn", UNSANDBOXED))
    return session


def _model(
    attempt: Attempt, session: JobSession, granted: workers_pb2.GrantedObject, files: Mapping[str, Path]
) -> Path:
    """(3) A base model's folder: the trailer and the files that the key agent verified."""
    cached = attempt.host.cache.find(_cache_key(granted))
    if cached is not None:
        return cached
    if granted.object_id not in files:
        raise HostFault("CACHE_CHANGED", "the host's model cache changed while the job was opened")
    path = files[granted.object_id]

    def pour(fd: int) -> None:
        try:
            _pour(session, granted, path)(fd)
        finally:
            os.close(fd)

    attempt.transfer.spool.check_space(path.stat().st_size)
    files_sha256 = session.files_sha256.get(granted.object_id, "")
    return attempt.host.cache.add(_cache_key(granted), files_sha256, pour)


def _pour(session: JobSession, granted: workers_pb2.GrantedObject, path: Path) -> Decrypt:
    def decrypt(target: int) -> None:
        with path.open("rb") as file:
            session.decrypt(granted.object_id, granted.wrap.wrap, file.fileno(), target)

    return decrypt


def _pours(attempt: Attempt, session: JobSession, files: Mapping[str, Path]) -> dict[DatasetRole, Decrypt]:
    job = attempt.job
    granted = {DatasetRole(role): getattr(job, role) for role in openings.DATA_ROLES if job.HasField(role)}
    # The key agent has verified that they are of different classes, in order.
    granted |= dict(zip(_LAYERS, job.model_layers, strict=False))
    granted |= dict(zip((DatasetRole.AUXILIARY_LAYER,), job.auxiliary_layers, strict=False))
    if job.HasField("resume"):
        granted[DatasetRole.CHECKPOINT] = job.resume.object
    return {role: _pour(session, item, files[item.object_id]) for role, item in granted.items()}


def _train(
    attempt: Attempt,
    session: JobSession,
    models: tuple[Path, Path | None],
    pours: Mapping[DatasetRole, Decrypt],
) -> Outcome:
    """(4) to (6); `models` are the folders of the job's model and of its second one."""
    attempt.lease.check_going()
    spec = json.loads(attempt.job.spec)
    with Trainer(attempt.host.place, models[0], attempt.host.clock, models[1]) as trainer:
        attempt.lease.on_lost(trainer.kill)
        crash_here("after-trainer-start")
        follower = Follower(
            trainer=trainer,
            session=session,
            lease=attempt.lease,
            reporter=attempt.reporter,
            transfer=attempt.transfer,
            folder=attempt.folder,
            clock=attempt.host.clock,
            book=FigureBook.of(attempt.job),
        )
        try:
            return follower.follow(spec, pours)
        except PeerClosed:
            attempt.lease.check()
            if trainer.feed_failure is not None:
                raise trainer.feed_failure from None
            raise outcome.trainer_lost(trainer.exit_code()) from None
