# SPDX-License-Identifier: Apache-2.0
"""Two control planes on one PostgreSQL and eight agents whose engine does nothing: every job is leased exactly once.

    python benchmarks/leases.py [--jobs 2000] [--agents 8] [--members 2]

Real processes, mutual TLS, signed jobs, an audit entry with every change, the database's durability as in production.
Half of the jobs wait already when the agents start; members submit the other half while agents lease and end jobs (as
failed: an engine that does nothing has no result). Half of the agents and of the members call each control plane.
Printed: jobs a second from the agents' start to the last end, how long a question for work that was answered with a
job took, how long a submission took while agents worked. Exit status 1 where a job was leased twice or never, or the
log does not say the same.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from cloister.admin.admit import admit_host
from cloister.api.v1 import jobs_pb2, models_pb2, workers_pb2
from cloister.wire import statement_to_proto
from cloister_audit import query
from cloister_server.database.engine import Database, open_database
from cloister_server.migrations.schema import upgrade
from postgres_server import running_server
from served_site import POOL, Caller, Founded, Keys, random_wraps
from server_process import ServerProcess, server_process
from site_objects import Made, Signed, create_dataset, create_model, owned, policy, sign_job, upload

MEMBER, ADMIN = "alice", "dana"
DEADLINE = 60.0
OUTCOME = "nothing_to_do"


@dataclass
class Figures:
    """What all threads saw."""

    leased: list[str] = field(default_factory=list)
    """Job ids, as often as each was handed out."""
    lease_seconds: list[float] = field(default_factory=list)
    submit_seconds: list[float] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    """The same once their end was taken; lists, because an append needs no lock."""
    broken: threading.Event = field(default_factory=threading.Event)
    """A thread failed: the others stop."""


def found(folder: Path, agents: int) -> Founded:
    """A site with so many hosts in its pool."""
    founded = Founded(folder)
    for number in range(len(founded.hosts) + 1, agents + 1):
        name, keys = f"host-{number}", Keys()
        welcome = admit_host(founded.custody, keys.request("host"), name, POOL, now=founded.now)
        founded.hosts[name], founded.certificates[name] = keys, welcome.certificate_pem
    founded.sign_roster()
    return founded


def sealed(founded: Founded, caller: Caller, kind: str) -> Made:
    """An uploaded dataset or base model, wrapped to every host."""
    made = owned(founded, MEMBER, kind)
    recovery = founded.recovery[made.manifest.team].recipient.key_id
    made = replace(made, wraps=random_wraps([*(keys.key_id for keys in founded.hosts.values()), recovery]))
    if kind == "model":
        create_model(caller, made)
    else:
        create_dataset(caller, made)
    upload(caller, made)
    return made


def signed_jobs(founded: Founded, server: ServerProcess, count: int) -> list[Signed]:
    """Jobs as a member's client would sign them; made before the clock starts."""
    release_policy = policy(founded)
    request = models_pb2.PublishPolicyRequest(policy=statement_to_proto(release_policy))
    server.caller(ADMIN).models.PublishPolicy(request, timeout=DEADLINE)
    member = server.caller(MEMBER)
    rows, model = sealed(founded, member, "dataset"), sealed(founded, member, "model")
    return [sign_job(founded, MEMBER, rows, model, release_policy.digest) for _ in range(count)]


def submit(caller: Caller, jobs: list[Signed], seconds: list[float]) -> None:
    """Queue jobs one after the other, and note how long each took."""
    for job in jobs:
        start = time.perf_counter()
        caller.jobs.CreateJob(job.request(), timeout=DEADLINE)
        seconds.append(time.perf_counter() - start)


def work(caller: Caller, wanted: int, figures: Figures) -> None:
    """Lease and end, until every job of the run has ended."""
    while len(figures.ended) < wanted and not figures.broken.is_set():
        start = time.perf_counter()
        leased = caller.workers.LeaseWork(workers_pb2.LeaseWorkRequest(wait_seconds=1), timeout=DEADLINE).job
        if not leased.job_id:
            continue
        figures.lease_seconds.append(time.perf_counter() - start)
        figures.leased.append(leased.job_id)
        end = workers_pb2.FinishJobRequest(
            job_id=leased.job_id, attempt=leased.attempt, state=jobs_pb2.JOB_STATE_FAILED
        )
        end.error.code = OUTCOME
        caller.workers.FinishJob(end, timeout=DEADLINE)
        figures.ended.append(leased.job_id)


def run(servers: list[ServerProcess], founded: Founded, jobs: list[Signed], members: int) -> tuple[Figures, float]:
    """Everybody at once, on a queue that is half full; the seconds from the agents' start to the last end."""
    figures = Figures()
    hosts = [servers[n % len(servers)].fresh(name) for n, name in enumerate(founded.hosts)]
    people = [servers[n % len(servers)].fresh(MEMBER) for n in range(members)]
    waiting, coming = jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]
    together(figures.broken, [partial(submit, person, waiting[n::members], []) for n, person in enumerate(people)])
    start = time.perf_counter()
    together(
        figures.broken,
        [partial(work, host, len(jobs), figures) for host in hosts]
        + [partial(submit, person, coming[n::members], figures.submit_seconds) for n, person in enumerate(people)],
    )
    return figures, time.perf_counter() - start


def together(broken: threading.Event, tasks: list[Callable[[], None]]) -> None:
    """Each in a thread of its own, to the end.  Raises what one of them raised."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for done in as_completed([pool.submit(task) for task in tasks]):
            if done.exception() is not None:
                broken.set()
            done.result()


def problems(database: Database, jobs: list[Signed], figures: Figures) -> list[str]:
    """Jobs that were not leased and ended exactly once, by what agents saw and by what the log says."""
    wanted = Counter(job.id for job in jobs)
    found = [] if Counter(figures.leased) == wanted else ["what the agents were given is not each job once"]
    for action in ("job.submit", "job.lease", "job.end"):
        with database.reader.connect() as connection:
            entries = query.entries(connection, query.Filter(action=action), -1, 10 * len(jobs))
        if len(entries) != len(jobs):
            found.append(f"the log has {len(entries)} entries {action} for {len(jobs)} jobs")
    return found


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    return 1000 * statistics.quantiles(values, n=1000, method="inclusive")[round(1000 * share) - 1]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--members", type=int, default=2)
    options = parser.parse_args()
    with ExitStack() as stack:
        url = stack.enter_context(running_server()).create_database()
        founded = found(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leases-"))), options.agents)
        database = open_database(url)
        stack.callback(database.dispose)
        upgrade(database)
        servers = [stack.enter_context(server_process(founded, url, name)) for name in ("first", "second")]
        jobs = signed_jobs(founded, servers[0], options.jobs)
        figures, seconds = run(servers, founded, jobs, options.members)
        wrong = problems(database, jobs, figures)
    print(f"{len(jobs)} jobs, {len(servers)} control planes, {options.agents} agents, {options.members} members")
    print(f"each leased and ended exactly once  {'no' if wrong else 'yes'}")
    print(f"leased and ended                    {len(jobs) / seconds:8.1f} /s")
    for name, values in (("lease", figures.lease_seconds), ("submit", figures.submit_seconds)):
        print(f"{name:<7} p50 {percentile(values, 0.5):8.1f} ms   p99 {percentile(values, 0.99):8.1f} ms")
    for problem in wrong:
        print(f"problem: {problem}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
