# SPDX-License-Identifier: Apache-2.0
"""Two things at the same moment, and a worker that dies under a job with a report, with real processes."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloister import Client
from cloister.api.v1 import jobs_pb2
from cloister.errors import CloisterError
from cloister_dev.site import publish_policy
from live_site import LiveSite, live_site
from main_job import prepare, submit, write_spec
from site_log import about, verified_log
from tiny_models import classification_rows
from waiting import eventually

MANY_EPOCHS = 3000
POINTS = ("after-opening", "before-upload", "before-finish", "after-finish")
EVALUATION = """\
model: {model}
evaluation_dataset: rows
purpose: triage
max_attempts: 4
method: {{evaluation: {{task: classification}}}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[LiveSite]:
    directory = tmp_path_factory.mktemp("site")
    with live_site(directory / "site", start=False) as running:
        running.set_lease(8)
        running.start_all()
        publish_policy(running.layout)
        prepare(running, tiny_model, directory)
        yield running


def at_once(*calls: Callable[[], object]) -> list[object]:
    """What calls that start together give, an error of the client in place of an answer."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        gate.wait()
        try:
            return call()
        except CloisterError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_of_two_revisions_that_append_at_once_one_is_refused(site: LiveSite, tmp_path: Path) -> None:
    """Two people who append to one dataset at the same moment make one chain: the other is told what to do."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(classification_rows(60))
    site.ok("alice", "cloister", "dataset", "push", str(path), "--name", "shared", "--purpose", "triage")
    for number in range(2):
        (tmp_path / f"{number}.jsonl").write_bytes(classification_rows(61 + number))

    def append(number: int) -> Callable[[], object]:
        arguments = ("cloister", "dataset", "push", str(tmp_path / f"{number}.jsonl"), "--appends", "shared")
        return lambda: site.said("alice", *arguments)

    said = at_once(append(0), append(1))
    # Where the second began after the first had ended, it appends to that one: a chain all the same.
    refused = [one for one in said if one.status != 0]  # type: ignore[attr-defined]  # what a command said
    for one in refused:
        assert "append to the newest revision" in one.err, one.err  # type: ignore[attr-defined]
    listed = json.loads(site.ok("alice", "cloister", "dataset", "list", "--json").out)
    numbers = sorted(revision(entry) for entry in listed if name_of(entry) == "shared")
    assert list(range(1, 4 - len(refused))) == numbers


def test_pause_and_cancel_at_the_same_moment_end_the_job(site: LiveSite, tmp_path: Path) -> None:
    """Whichever comes first, the job is cancelled, once, and nothing lets it go on."""
    job_id = submit(site, write_spec(tmp_path, "both", epochs=MANY_EPOCHS))
    with Client.open(site.layout.home("alice")) as client:
        eventually(lambda: client.jobs.curves(job_id).training, "a step", pause=0.05)
        at_once(
            lambda: client.jobs.pause(job_id), lambda: client.jobs.cancel(job_id), lambda: client.jobs.pause(job_id)
        )
        job = client.jobs.wait(job_id)
        assert jobs_pb2.JOB_STATE_CANCELLED == job.state
        refused = at_once(lambda: client.jobs.resume(job_id), lambda: client.jobs.pause(job_id))
        assert ["WRONG_STATE"] * 2 == [getattr(error, "reason", error) for error in refused]
    actions = [entry["action"] for entry in about(verified_log(site, tmp_path), job_id)]
    assert 1 == actions.count("job.end")


def test_resumed_twice_at_once_a_job_goes_on_once(site: LiveSite, tmp_path: Path) -> None:
    """Two people who let a paused job go on start one attempt; cancelled while it is paused again, it ends."""
    job_id = submit(site, write_spec(tmp_path, "twice", epochs=MANY_EPOCHS))
    with Client.open(site.layout.home("alice")) as client:

        def state() -> int:
            return client.jobs.get(job_id).state

        eventually(lambda: client.jobs.curves(job_id).training, "a step", pause=0.05)
        client.jobs.pause(job_id)
        eventually(lambda: state() == jobs_pb2.JOB_STATE_PAUSED, "the pause", pause=0.1)
        said = at_once(*[lambda: client.jobs.resume(job_id)] * 4)
        assert [] == [one for one in said if isinstance(one, CloisterError)]
        eventually(lambda: state() == jobs_pb2.JOB_STATE_RUNNING, "the second attempt", pause=0.1)
        client.jobs.pause(job_id)
        eventually(lambda: state() == jobs_pb2.JOB_STATE_PAUSED, "the second pause", pause=0.1)
        at_once(*[lambda: client.jobs.cancel(job_id)] * 2)
        assert (jobs_pb2.JOB_STATE_CANCELLED, 2) == (state(), client.jobs.get(job_id).attempt)
    actions = [entry["action"] for entry in about(verified_log(site, tmp_path), job_id)]
    assert (1, 2, 1) == tuple(actions.count(f"job.{name}") for name in ("resume", "lease", "end"))


@pytest.mark.slow
@pytest.mark.timeout(400)  # an attempt for each point, and every attempt starts a trainer
def test_an_agent_killed_under_an_evaluation_leaves_one_report(site: LiveSite, tmp_path: Path) -> None:
    """Killed at every point of a job that ends with a report, the agents leave one end and the report that it names."""
    first = submit(site, write_spec(tmp_path, "judged", epochs=2))
    site.ok("alice", "cloister", "job", "watch", first)
    spec = tmp_path / "evaluation.yaml"
    spec.write_text(EVALUATION.format(model="judged"))
    site.stop("agent")
    job_id = submit(site, spec)
    for point in POINTS:
        running = site.start("agent", crash_at=point, wait=False)
        eventually(lambda: running.process.poll() is not None, f"the agent's death {point}", pause=0.1)  # noqa: B023
    site.start("agent")
    site.ok("alice", "cloister", "job", "watch", job_id)
    said = site.read("alice", "cloister", "job", "report", job_id, "-o", str(tmp_path / "report"))
    assert "eval_accuracy" in said["metrics"]  # type: ignore[operator]  # a table of figures
    actions = [entry["action"] for entry in about(verified_log(site, tmp_path), job_id)]
    assert (1, len(POINTS)) == (actions.count("job.end"), actions.count("job.lease"))


def manifest_of(entry: dict[str, object]) -> dict[str, object]:
    values = json.loads(base64.b64decode(entry["sealed"]["manifest"]))  # type: ignore[index]  # the JSON of a Dataset
    assert isinstance(values, dict)
    return values


def name_of(entry: dict[str, object]) -> object:
    return manifest_of(entry)["name"]


def revision(entry: dict[str, object]) -> int:
    details = manifest_of(entry)["details"]
    assert isinstance(details, dict)
    return int(details.get("revision", "1"))
