# SPDX-License-Identifier: Apache-2.0
"""Kill -9 of the control plane, at every named point of the main path and at random.

The caller does what the contract says: after a failure it sends the same request again.  At the end the job has
ended once, with one result, every change has its entry, every entry its change, and the ledger is whole.
"""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from sqlalchemy import create_engine

from cloister.api.v1 import blobs_pb2, identity_pb2, jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.note import NoteVerifier
from cloister.tls import tls_key_pem
from cloister.wire import statement_to_proto
from cloister_audit import fsck
from served_site import Caller, Founded, read_refusal, sqlite_url
from server_process import environment, write_config
from site_objects import (
    Made,
    artifact,
    artifact_request,
    create_dataset,
    create_model,
    grant,
    owned,
    policy,
    release_request,
    sign_job,
    success,
    upload,
)

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
UNITS = (
    "dataset.create",
    "model.create",
    "blob.ready",
    "policy.publish",
    "job.submit",
    "job.pause",
    "job.resume",
    "job.lease",
    "job.open",
    "job.report",
    "artifact.create",
    "job.finish",
    "release.request",
    "release.finish",
)
POINTS = [*(f"{unit}.{side}_commit" for unit in UNITS for side in ("before", "after")), "blob.synced", "blob.renamed"]
IN_EVERY_RUN = ("blob.renamed", "job.lease.after_commit", "job.finish.before_commit", "job.finish.after_commit")


class Restarted:
    """A server process that comes back whenever it is found dead, and callers who try again."""

    def __init__(self, founded: Founded, crash_at: str = "") -> None:
        self.founded = founded
        self.deaths = 0
        self._directory = founded.directory
        self._config = write_config(founded, sqlite_url(founded.directory), lease_seconds=600)
        self._channels: list[grpc.Channel] = []
        self.start(crash_at)

    def start(self, crash_at: str = "") -> None:
        port_file = self._directory / "server.port"
        port_file.unlink(missing_ok=True)
        given = environment({"CLOISTER_TESTING_CRASH_AT": crash_at} if crash_at else {})
        command = [sys.executable, "-m", "cloister_server", "serve", "--config", str(self._config)]
        with (self._directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env=given)
        while not port_file.exists():
            try:
                status = self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            # Killed while it started: that must be survived too.
            assert -signal.SIGKILL == status, (self._directory / "server.log").read_text()
            self.deaths += 1
            self.start()
            return
        self._connect(int(port_file.read_text()))

    def _connect(self, port: int) -> None:
        for channel in self._channels:
            channel.close()
        self._callers: dict[str, Caller] = {}
        for name, keys in (*self.founded.people.items(), *self.founded.hosts.items()):
            pair = (tls_key_pem(keys.tls), self.founded.certificates[name].encode())
            credentials = grpc.ssl_channel_credentials(self.founded.ca_pem.encode(), *pair)
            channel = grpc.secure_channel(f"localhost:{port}", credentials)
            self._channels.append(channel)
            self._callers[name] = Caller(name, keys, channel)

    def caller(self, name: str) -> Caller:
        return self._callers[name]

    def again(self, call: Callable[[], T]) -> T:
        """Make a call until it is answered; bring the server back where it died."""
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                if read_refusal(error).code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                    raise
            if self.process.poll() is not None or _dying(self.process):
                assert -signal.SIGKILL == self.process.wait()
                self.deaths += 1
                self.start()

    def stop(self) -> int:
        for channel in self._channels:
            channel.close()
        self.process.terminate()
        return self.process.wait(60)


def _dying(process: subprocess.Popen[bytes]) -> bool:
    """A killed process may take a moment to be gone."""
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.fixture
def founded(tmp_path: Path) -> Founded:
    return Founded(tmp_path)


def push(server: Restarted, who: str, made: Made, attempt: int = 0) -> None:
    """Send a blob as a client does: ask how far it is, and go on from there."""

    def go_on() -> bool:
        caller = server.caller(who)
        asked = caller.blobs.GetUpload(blobs_pb2.GetUploadRequest(object_id=made.id), timeout=30)
        start = asked.committed_size
        return asked.complete or upload(caller, made, attempt=attempt, start=start).complete

    while not server.again(go_on):
        continue


def main_path(server: Restarted) -> str:
    """From the push to the release; the job's id."""
    founded = server.founded
    signed_policy = policy(founded)
    publish = models_pb2.PublishPolicyRequest(policy=statement_to_proto(signed_policy))
    server.again(lambda: server.caller("dana").models.PublishPolicy(publish, timeout=30))
    training, model = owned(founded, "alice", size=200_000), owned(founded, "alice", "model")
    server.again(lambda: create_dataset(server.caller("alice"), training))
    server.again(lambda: create_model(server.caller("alice"), model))
    push(server, "alice", training)
    push(server, "alice", model)
    signed = sign_job(founded, "alice", training, model, signed_policy.digest, max_attempts=10)
    server.again(lambda: server.caller("alice").jobs.CreateJob(signed.request(), timeout=30))
    pause, resume = jobs_pb2.PauseJobRequest(id=signed.id), jobs_pb2.ResumeJobRequest(id=signed.id)
    paused = server.again(lambda: server.caller("alice").jobs.PauseJob(pause, timeout=30)).job
    assert jobs_pb2.JOB_STATE_PAUSED == paused.state
    server.again(lambda: server.caller("alice").jobs.ResumeJob(resume, timeout=30))
    job = server.again(
        lambda: server.caller("host-1").workers.LeaseWork(workers_pb2.LeaseWorkRequest(), timeout=30)
    ).job
    attempt = job.attempt
    opening = workers_pb2.RequestOpeningRequest(work_id=signed.id, attempt=attempt)
    server.again(lambda: server.caller("host-1").workers.RequestOpening(opening, timeout=30))
    events = workers_pb2.ReportEventsRequest(job_id=signed.id, attempt=attempt)
    for seq, status in ((1, "started"), (2, "finished")):
        step = jobs_pb2.JobStep(name="validate", status=status)
        events.events.append(workers_pb2.WorkerEvent(stream_seq=seq, type="step", level="info", step=step))
    server.again(lambda: server.caller("host-1").workers.ReportEvents(events, timeout=30))
    made, result = artifact(founded, "host-1", signed, attempt)
    register = artifact_request(signed, attempt, made, result)
    server.again(lambda: server.caller("host-1").workers.CreateArtifact(register, timeout=30))
    push(server, "host-1", made, attempt)
    finish = success(signed, attempt, made)
    done = server.again(lambda: server.caller("host-1").workers.FinishJob(finish, timeout=30))
    assert jobs_pb2.JOB_STATE_SUCCEEDED == done.state
    asked = models_pb2.CreateReleaseRequest(
        request=statement_to_proto(release_request(founded, "alice", signed, made, result, "alice"))
    )
    server.again(lambda: server.caller("alice").models.CreateRelease(asked, timeout=30))
    lease = server.again(lambda: server.caller("host-1").workers.LeaseWork(workers_pb2.LeaseWorkRequest(), timeout=30))
    answer = grant(founded, "host-1", lease.release)
    server.again(lambda: server.caller("host-1").workers.FinishRelease(answer, timeout=30))
    return signed.id


def check(founded: Founded, jobs: list[str]) -> None:
    """State and log agree, and the ledger is whole."""
    verifier = NoteVerifier.parse(founded.roster.log_vkey)
    engine = create_engine(sqlite_url(founded.directory))
    with engine.connect() as connection:
        fsck.check(connection, verifier)
    engine.dispose()
    with closing(sqlite3.connect(founded.directory / "site.db")) as database:
        counted = dict(database.execute("SELECT action, count(*) FROM audit_index GROUP BY action").fetchall())
        rows = {
            action: database.execute(query).fetchone()[0]
            for action, query in {
                "dataset.create": "SELECT count(*) FROM sealed_object WHERE kind = 'dataset'",
                "dataset.ready": "SELECT count(*) FROM sealed_object WHERE kind = 'dataset' AND state = 'READY'",
                "model.create": "SELECT count(*) FROM sealed_object WHERE kind = 'model'",
                "artifact.create": "SELECT count(*) FROM artifact",
                "artifact.ready": "SELECT count(*) FROM sealed_object WHERE kind = 'export' AND state = 'READY'",
                "job.submit": "SELECT count(*) FROM job",
                "job.pause": "SELECT count(*) FROM job",
                "job.resume": "SELECT count(*) FROM job",
                "job.lease": "SELECT count(*) FROM job_attempt",
                "job.open": "SELECT count(*) FROM opening o JOIN job j ON j.id = o.work_id",
                "job.end": "SELECT count(*) FROM job WHERE state = 'SUCCEEDED'",
                "release.end": "SELECT count(*) FROM release WHERE state = 'GRANTED'",
                "policy.publish": "SELECT count(*) FROM policy",
            }.items()
        }
        made = database.execute("SELECT job_id FROM model_version WHERE job_id != ''").fetchall()
    assert rows == {action: counted.get(action, 0) for action in rows}
    assert (len(jobs), len(jobs)) == (rows["job.end"], rows["release.end"])
    assert sorted(jobs) == sorted(row[0] for row in made)


@pytest.mark.parametrize(
    "point", [point if point in IN_EVERY_RUN else pytest.param(point, marks=pytest.mark.slow) for point in POINTS]
)
def test_a_kill_at_a_named_point_loses_and_doubles_nothing(founded: Founded, point: str) -> None:
    """Whatever the point at which the server is killed, the main path ends once and the log tells exactly it."""
    server = Restarted(founded, point)
    try:
        job_id = main_path(server)
        assert 1 == server.deaths
    finally:
        status = server.stop()
    assert 0 == status
    check(founded, [job_id])


def kill_at_random(server: Restarted, times: int, ended: threading.Event, chance: random.Random) -> None:
    """Kill whatever process is the server at moments that the seed decides."""
    for _ in range(times):
        if ended.wait(chance.uniform(0.02, 0.6)):
            return
        server.process.kill()
        while server.process.poll() is not None and not ended.wait(0.05):
            continue


@pytest.mark.parametrize("times", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_at_random_lose_and_double_nothing(founded: Founded, times: int) -> None:
    """Under kills at random moments the main path ends once each time and the log tells exactly it."""
    server = Restarted(founded)
    ended = threading.Event()
    killer = threading.Thread(target=kill_at_random, args=(server, times, ended, random.Random(times)))
    killer.start()
    jobs: list[str] = []
    try:
        while killer.is_alive() or not jobs:
            jobs.append(main_path(server))
    finally:
        ended.set()
        killer.join()
    server.again(lambda: server.caller("alice").identity.WhoAmI(identity_pb2.WhoAmIRequest(), timeout=30))
    assert 0 == server.stop()
    check(founded, jobs)


def test_sigterm_stops_in_order_and_says_so_in_the_log(founded: Founded) -> None:
    """SIGTERM ends the process with status 0, and the last entry of the log is site.stop."""
    server = Restarted(founded)
    assert 0 == server.stop()
    with closing(sqlite3.connect(founded.directory / "site.db")) as database:
        actions = [row[0] for row in database.execute("SELECT action FROM audit_index ORDER BY seq")]
    assert ("site.start", "site.stop") == (actions[-2], actions[-1])
