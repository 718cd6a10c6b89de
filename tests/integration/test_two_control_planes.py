# SPDX-License-Identifier: Apache-2.0
"""Two control-plane processes on one PostgreSQL and one store: either answers for both."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from cloister.api.v1 import audit_pb2, blobs_pb2, identity_pb2, jobs_pb2, workers_pb2
from cloister.evidence.entry import Entry
from cloister.evidence.log import verify_log
from cloister.evidence.note import NoteVerifier
from cloister.evidence.roster import Roster
from cloister.wire import statement_from_proto, statement_to_proto
from cloister_audit import fsck
from cloister_server.database.engine import open_database
from cloister_server.migrations.schema import upgrade
from postgres_server import PostgresServer
from served_site import HOSTS, Founded, read_refusal
from server_process import ServerProcess, server_process
from site_objects import create_dataset, owned, policy, publish_policy, push_dataset, push_model, sign_job, upload
from waiting import eventually

JOBS = 16


@dataclass(frozen=True)
class Pair:
    """Two processes, `one` and `two`, and their database."""

    one: ServerProcess
    two: ServerProcess
    url: str

    @property
    def founded(self) -> Founded:
        return self.one.founded

    def turns(self) -> Iterator[tuple[ServerProcess, ServerProcess]]:
        """One and the other, then the other way round, and so on."""
        return itertools.cycle([(self.one, self.two), (self.two, self.one)])


@contextmanager
def two_processes(postgres: PostgresServer, directory: Path) -> Iterator[Pair]:
    """A founded site, its empty database, and both processes, which end with the context."""
    founded, url = Founded(directory), postgres.create_database()
    database = open_database(url)
    upgrade(database)
    database.dispose()
    # Both start at once, on a database that no control plane has seen: only one of them stores the first roster.
    with ExitStack() as stack:
        stack.callback(postgres.drop_database, url)
        with ThreadPoolExecutor(2) as starting:
            both = [starting.submit(stack.enter_context, server_process(founded, url, name)) for name in ("one", "two")]
        one, two = (started.result() for started in both)
        yield Pair(one, two, url)


@pytest.fixture(scope="module")
def pair(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_processes(postgres_server, tmp_path_factory.mktemp("pair")) as both:
        yield both


def entries(server: ServerProcess) -> list[Entry]:
    """The whole log as an auditor exports it, verified."""
    export = list(server.caller("carol").audit.ExportLog(audit_pb2.ExportLogRequest(), timeout=60))
    bodies = [part.entry for part in export[1:]]
    verify_log(bodies, export[0].checkpoint, NoteVerifier.parse(server.founded.roster.log_vkey))
    return [Entry.parse(body) for body in bodies]


def submitter(pair: Pair) -> Callable[[ServerProcess], str]:
    """Submits a job to one of the two; what it needs was pushed to both in turns."""
    digest = publish_policy(pair.one, policy(pair.founded))
    training, model = push_dataset(pair.two, "alice"), push_model(pair.one, "alice")

    def make(server: ServerProcess) -> str:
        signed = sign_job(pair.founded, "alice", training, model, digest)
        return server.caller("alice").jobs.CreateJob(signed.request(), timeout=60).job.id

    return make


@pytest.fixture(scope="module")
def submit(pair: Pair) -> Callable[[ServerProcess], str]:
    return submitter(pair)


def work_off(pair: Pair, host: str, done: list[str]) -> None:
    """Lease at one, open at the other, heartbeat and finish at the first, until nothing waits any more."""
    for here, there in pair.turns():
        job = here.caller(host).workers.LeaseWork(workers_pb2.LeaseWorkRequest(wait_seconds=0), timeout=60).job
        if not job.job_id:
            return
        opening = workers_pb2.RequestOpeningRequest(work_id=job.job_id, attempt=job.attempt)
        there.caller(host).workers.RequestOpening(opening, timeout=60)
        beat = workers_pb2.HeartbeatRequest(work_id=job.job_id, attempt=job.attempt)
        here.caller(host).workers.Heartbeat(beat, timeout=60)
        end = workers_pb2.FinishJobRequest(
            job_id=job.job_id,
            attempt=job.attempt,
            state=jobs_pb2.JOB_STATE_FAILED,
            error=jobs_pb2.JobError(code="ROWS", message="two rows are wrong"),
        )
        there.caller(host).workers.FinishJob(end, timeout=60)
        done.append(job.job_id)


def test_each_job_is_leased_once(pair: Pair, submit: Callable[[ServerProcess], str]) -> None:
    """Hosts that ask both in turns get each job exactly once, each with its opening and end, and the log is whole."""
    turns = pair.turns()
    wanted = [submit(next(turns)[0]) for _ in range(JOBS)]
    done: list[str] = []
    with ThreadPoolExecutor(len(HOSTS)) as hosts:
        for work in [hosts.submit(work_off, pair, host, done) for host in HOSTS]:
            work.result()
    assert sorted(wanted) == sorted(done)
    for server in (pair.one, pair.two):
        log = entries(server)
        for action in ("job.submit", "job.lease", "job.open", "job.end"):
            found = Counter(e.event.object.id for e in log if e.event.action == action and e.event.object.id in wanted)
            assert dict.fromkeys(wanted, 1) == found, action
    database = open_database(pair.url)
    with database.reader.connect() as connection:
        assert fsck.check(connection, NoteVerifier.parse(pair.founded.roster.log_vkey)) >= JOBS * 4
    database.dispose()


def test_a_watch_on_one_sees_what_the_other_did(pair: Pair, submit: Callable[[ServerProcess], str]) -> None:
    """A member who watches at one sees the job that was cancelled at the other end, with every event in between."""
    job_id = submit(pair.one)
    watch = pair.two.caller("alice").jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id), timeout=60)
    first = next(watch)
    pair.one.caller("alice").jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job_id), timeout=60)
    seen = [first, *watch]
    assert jobs_pb2.JOB_STATE_CANCELLED == seen[-1].terminal.state
    numbers = [message.event.seq for message in seen if message.HasField("event")]
    assert list(range(1, len(numbers) + 1)) == numbers


def test_an_upload_goes_on_at_the_other(pair: Pair) -> None:
    """Half of a blob sent to one and the rest to the other is one blob, which either gives back."""
    made = owned(pair.founded, "alice", size=300_000)
    one, two = pair.one.caller("alice"), pair.two.caller("alice")
    create_dataset(one, made)
    half = 128 * 1024
    piece = blobs_pb2.WriteBlobRequest(object_id=made.id, offset=0, data=made.ciphertext[:half])
    assert not one.blobs.WriteBlob(iter([piece]), timeout=60).complete
    assert half == two.blobs.GetUpload(blobs_pb2.GetUploadRequest(object_id=made.id), timeout=60).committed_size
    assert upload(two, made, start=half).complete
    read = one.blobs.ReadBlob(blobs_pb2.ReadBlobRequest(object_id=made.id), timeout=60)
    assert made.ciphertext == b"".join(part.data for part in read)


def test_heads_are_signed_by_both_at_once(pair: Pair) -> None:
    """However many ask both for checkpoints while the log grows, each gets one that extends what was seen."""
    failed: list[grpc.RpcError] = []
    start = threading.Barrier(8)

    def ask(server: ServerProcess) -> None:
        seen = 0
        start.wait()
        for _ in range(12):
            try:
                answer = server.caller("carol").audit.GetCheckpoint(
                    audit_pb2.GetCheckpointRequest(since_size=seen), timeout=60
                )
            except grpc.RpcError as error:
                failed.append(error)
                return
            seen = int(answer.checkpoint.split(b"\n")[1])

    pair.one.caller("carol"), pair.two.caller("carol")
    threads = [threading.Thread(target=ask, args=(server,)) for server in (pair.one, pair.two) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == [read_refusal(error) for error in failed]
    assert entries(pair.one)


def test_a_roster_published_at_one_is_in_force_at_both(pair: Pair) -> None:
    """Who hands out rosters at the other hands out the new one from the next call on; somebody whom it leaves out is
    refused there too, on a watch that was open before.
    """
    watcher = pair.two.fresh("gina")
    assert "gina" == watcher.identity.WhoAmI(identity_pb2.WhoAmIRequest(), timeout=60).id

    def without_gina(roster: Roster) -> Roster:
        return replace(roster, people=tuple(person for person in roster.people if person.id != "gina"))

    statement = pair.founded.sign_roster(without_gina)
    publish = identity_pb2.PublishRosterRequest(roster=statement_to_proto(statement))
    version = pair.one.caller("dana").identity.PublishRoster(publish, timeout=60).version
    shown = pair.two.caller("alice").identity.GetSite(identity_pb2.GetSiteRequest(), timeout=60).roster
    assert version == Roster.parse(statement_from_proto(shown).payload).version

    def refused() -> str:
        try:
            watcher.identity.WhoAmI(identity_pb2.WhoAmIRequest(), timeout=60)
        except grpc.RpcError as error:
            return read_refusal(error).reason
        return ""

    assert "UNKNOWN_IDENTITY" == eventually(refused, "gina's refusal at the other")


def test_one_that_stops_leaves_the_work_to_the_other(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """With one of them gone the other submits and leases, and the log tells of two starts and one stop."""
    with two_processes(postgres_server, tmp_path) as pair:
        submit = submitter(pair)
        pair.one.process.terminate()
        assert 0 == pair.one.process.wait(60)
        job_id = submit(pair.two)
        lease = pair.two.caller("host-1").workers.LeaseWork(workers_pb2.LeaseWorkRequest(wait_seconds=0), timeout=60)
        assert job_id == lease.job.job_id
        actions = [entry.event.action for entry in entries(pair.two)]
        assert (2, 1) == (actions.count("site.start"), actions.count("site.stop"))
