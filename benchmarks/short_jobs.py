# SPDX-License-Identifier: Apache-2.0
"""Two control planes on one PostgreSQL and eight worker hosts: fifty real short jobs, each run exactly once.

    python benchmarks/short_jobs.py [--jobs 50] [--hosts 8]

Every host is a key agent, an agent and a sandboxed trainer for each job; half of the hosts and half of the submissions
go to each control plane. A job fine-tunes a tiny encoder for one epoch. Printed: how many ended and how, jobs a minute
from the first submission to the last end, and how long a submission took. Exit status 1 where a job was leased, opened
or ended other than once, or did not succeed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from soaking.jobs import prepare, training

from cloister import Client
from cloister.admin.admit import admit_host
from cloister.admin.custody import Custody
from cloister.admin.sign import sign_next
from cloister.api.v1 import jobs_pb2
from cloister.home import Home, set_endpoint
from cloister_audit import query
from cloister_dev.found import ROSTER_DAYS, found_site, free_port
from cloister_dev.layout import POOL, Layout
from cloister_dev.processes import Program, start_all
from cloister_dev.site import accepts, programs, publish_policy
from cloister_server.database.engine import open_database
from cloister_server.migrations.schema import upgrade
from cloister_workers import init as worker

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from postgres_server import running_server

ONCE = ("job.submit", "job.lease", "job.open", "job.end")
"""What the log must have once for each job."""


@dataclass(frozen=True)
class Site:
    """A founded site: where its hosts lie, and the two addresses that it is served at."""

    layout: Layout
    hosts: tuple[Path, ...]
    endpoints: tuple[str, str]
    database: str


def found(folder: Path, hosts: int, database: str) -> Site:
    """A site with so many hosts on its roster, every second of which calls the second control plane."""
    layout = Layout(folder / "site")
    found_site(layout)
    custody = Custody(layout.root)
    directories = [layout.worker]
    for number in range(2, hosts + 1):
        directory = layout.directory / f"worker-{number}"
        request = worker.init_host(directory)
        worker.install_welcome(directory, admit_host(custody, request, directory.name, POOL, now=int(time.time())))
        directories.append(directory)
    sign_next(custody, ROSTER_DAYS, now=int(time.time()))
    first = Home(layout.home("alice")).pins().endpoint
    second = f"127.0.0.1:{free_port()}"
    config = layout.server_config.read_text()
    config = re.sub("^url = .*$", f'url = "{database}"', config, flags=re.MULTILINE)
    layout.server_config.write_text(config)
    second_config(layout).write_text(config.replace(first, second))
    for number, directory in enumerate(directories):
        (directory / "agent" / "agent.toml").write_text("threads = 1\npoll_seconds = 1\n")
        set_endpoint(Home(directory / "agent"), (first, second)[number % 2])
    made = open_database(database)
    upgrade(made)
    made.dispose()
    return Site(layout, tuple(directories), (first, second), database)


def second_config(layout: Layout) -> Path:
    """Of the second control plane, beside the first."""
    return layout.server_config.with_name("second.toml")


def all_programs(site: Site) -> list[Program]:
    """Both control planes, then the two services of each host."""
    first, keyagent, agent = programs(site.layout)
    serve = ("serve", "--config", str(second_config(site.layout)))
    found = [first, Program("second", "cloister_server", serve, lambda: answers(site.endpoints[1]))]
    for directory in site.hosts:
        at = ("--dir", str(directory))
        found += [
            Program(f"keyagent-{directory.name}", keyagent.module, ("keyagent", *at), partial(accepts, directory)),
            Program(f"agent-{directory.name}", agent.module, ("agent", *at), lambda: True),
        ]
    return found


def answers(endpoint: str) -> bool:
    """Whether somebody listens."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def run(site: Site, folder: Path, count: int) -> tuple[list[str], list[float], float]:
    """Submit all, wait for all: ids of those that succeeded, seconds of each submission, seconds of the whole."""
    homes = [site.layout.home("alice"), site.layout.home("alice-2")]
    shutil.copytree(*homes)
    set_endpoint(Home(homes[1]), site.endpoints[1])
    with ExitStack() as stack:
        clients = [stack.enter_context(Client.open(home)) for home in homes]
        prepare(clients[0], folder)
        start = time.perf_counter()
        with ThreadPoolExecutor(len(clients)) as pool:
            shares = pool.map(submit, clients, (range(0, count, 2), range(1, count, 2)))
            submitted = [found for share in shares for found in share]
        ended = [clients[0].jobs.wait(job_id) for job_id, _ in submitted]
        whole = time.perf_counter() - start
    succeeded = [job.id for job in ended if job.state == jobs_pb2.JOB_STATE_SUCCEEDED]
    return succeeded, [seconds for _, seconds in submitted], whole


def submit(client: Client, numbers: range) -> list[tuple[str, float]]:
    """Queue jobs one after the other: id, and the seconds that it took."""
    found = []
    for number in numbers:
        start = time.perf_counter()
        job_id = client.jobs.submit({**training(1), "suffix": f"short-{number}"}).id
        found.append((job_id, time.perf_counter() - start))
    return found


def problems(url: str, jobs: Sequence[str]) -> list[str]:
    """What the log does not have once for each job."""
    database, found = open_database(url), []
    with database.reader.connect() as connection:
        for action in ONCE:
            entries = query.entries(connection, query.Filter(action=action), -1, 10 * len(jobs))
            seen = Counter(json.loads(body)["object"]["id"] for _, body in entries)
            if seen != Counter(jobs):
                found.append(f"{action}: {len(entries)} entries, of {len(seen)} jobs, where {len(jobs)} succeeded")
    database.dispose()
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--hosts", type=int, default=8)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="short-jobs-")))
        site = found(folder, options.hosts, stack.enter_context(running_server()).create_database())
        running = start_all(stack, all_programs(site), site.layout.log)
        publish_policy(site.layout)
        jobs, seconds, whole = run(site, folder, options.jobs)
        wrong = problems(site.database, jobs)
        wrong += [f"{found.program.name} ended" for found in running if found.process.poll() is not None]
    wrong += [] if len(jobs) == options.jobs else [f"only {len(jobs)} of {options.jobs} jobs succeeded"]
    print(f"{options.jobs} jobs, 2 control planes, {options.hosts} hosts")
    print(f"each ran exactly once  {'no' if wrong else 'yes'}")
    print(f"ended                  {60 * len(jobs) / whole:8.1f} /min")
    print(f"submit p50             {1000 * statistics.median(seconds):8.1f} ms")
    print(f"submit slowest         {1000 * max(seconds):8.1f} ms")
    for problem in wrong:
        print(f"problem: {problem}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
