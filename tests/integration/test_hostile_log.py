# SPDX-License-Identifier: Apache-2.0
"""A hostile control plane against the key agent, where the log is what it lies about."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builders import Site
from cloister.evidence.entry import Actor, Entry, Event, Subject
from keyagent_process import RunningKeyAgent, refusal, running_keyagent, write_directory
from memory_log import MemoryLog


@pytest.fixture
def site() -> Site:
    return Site(int(time.time()))


@pytest.fixture
def agent(site: Site, tmp_path: Path) -> Iterator[RunningKeyAgent]:
    with running_keyagent(write_directory(tmp_path / "host", site)) as running:
        yield running


def test_an_opening_without_an_entry_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """An entry that is in the log, but records something else, does not stand in for the opening."""
    job = site.job()
    honest = site.opening(job)
    subject = Subject("job", job.authorisation.job_id, job.statement.digest)
    index = site.log.append(Event("job.read", Actor("alice", "person"), subject))
    code, message = refusal(agent, site, replace(honest, evidence=site.log.evidence(index)))
    assert (code, "refusing to open unlogged" in message) == ("BINDING", True)


def test_an_entry_that_is_not_in_the_log_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """An entry made up for the key agent, without a place in the tree, is refused."""
    opening = site.opening(site.job())
    site.log.entries.pop()
    site.log.append(Event("site.start", Actor("", "system"), Subject("log", "")))
    evidence = replace(opening.evidence, checkpoint=site.log.checkpoint())
    assert refusal(agent, site, replace(opening, evidence=evidence))[0] == "TAMPERED"


@pytest.mark.parametrize("changed", ["attempt", "host", "inputs", "resume"])
def test_an_entry_that_says_less_than_the_truth_is_refused(site: Site, agent: RunningKeyAgent, changed: str) -> None:
    """The entry must name this attempt, this host and exactly these inputs."""
    job = site.job()
    opening = site.opening(job)
    if changed == "attempt":
        index = site.log_job_opening(job, 2)
    elif changed == "host":
        index = site.log_job_opening(job, 1, host="host-2")
    elif changed == "inputs":
        index = site.log_job_opening(replace(job, inputs=job.inputs[:1]))
    else:
        index = site.log_job_opening(job, 1, site.state())
    assert refusal(agent, site, replace(opening, evidence=site.log.evidence(index)))[0] == "BINDING"


@pytest.mark.parametrize("changed", ["denied", "other-kind"])
def test_an_entry_that_an_auditor_would_misread_is_refused(site: Site, agent: RunningKeyAgent, changed: str) -> None:
    """An opening that the log calls denied, or that it files under another kind of object, does not count."""
    job = site.job()
    opening = site.opening(job)
    honest = Entry.parse(opening.evidence.entry).event
    if changed == "denied":
        event = replace(honest, outcome="denied", reason="ROLE_REQUIRED")
    else:
        event = replace(honest, object=replace(honest.object, type="dataset"))
    index = site.log.append(event)
    assert refusal(agent, site, replace(opening, evidence=site.log.evidence(index)))[0] == "BINDING"


def test_a_log_that_was_rolled_back_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """After the database was put back, the log is shorter than the one remembered: nothing is opened."""
    for _ in range(3):
        site.log.append(Event("dataset.read", Actor("alice", "person"), Subject("dataset", "d")))
    agent.open_job(site, site.opening(site.job())).close()
    del site.log.entries[1:]
    code, message = refusal(agent, site, site.opening(site.job()))
    assert (code, "rolled back" in message) == ("ROLLBACK", True)
    assert agent.status().checkpoint_size == 4


def test_a_forked_log_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A log that grew from another history than the one remembered is a fork."""
    agent.open_job(site, site.opening(site.job())).close()
    site.log.entries[0] = site.log.entries[0].replace(b'"ts":1', b'"ts":2')
    site.log.append(Event("dataset.read", Actor("alice", "person"), Subject("dataset", "d")))
    assert refusal(agent, site, site.opening(site.job(), since=1))[0] == "FORK"


def test_a_log_of_another_key_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A head that the log key of the roster did not sign is refused."""
    other = MemoryLog()
    other.entries = site.log.entries
    opening = site.opening(site.job())
    evidence = replace(opening.evidence, checkpoint=other.checkpoint())
    assert refusal(agent, site, replace(opening, evidence=evidence))[0] == "BAD_SIGNATURE"
