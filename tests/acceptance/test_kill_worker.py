# SPDX-License-Identifier: Apache-2.0
"""Kill -9 of agent and trainer: a job ends once, with one result, and the log tells exactly that."""

from __future__ import annotations

import random
import signal
import subprocess
from os import kill
from pathlib import Path

import pytest

from cloister_workers.crashpoints import POINTS
from live_site import LiveSite
from main_job import has_ended, submit, write_spec
from process_tree import trainer_of
from site_log import check_ended_once
from waiting import eventually, let_pass

KILLS_PER_JOB = 7
LONGEST_WAIT = 6.0
"""An attempt takes a little longer than this, most of it before the first step."""


def queue(site: LiveSite, directory: Path) -> str:
    return submit(site, write_spec(directory, f"killed-{directory.name[-20:]}", epochs=6, attempts=10))


def await_end(site: LiveSite, job_id: str) -> None:
    said = site.said("alice", "cloister", "job", "watch", job_id)
    assert 0 == said.status, f"{said.err}\n{site.logs()}"


def die_at(site: LiveSite, point: str, job_id: str) -> bool:
    """Restart the agent so that it kills itself at a point; whether it did before the job ended."""
    process = site.start("agent", crash_at=point).process
    eventually(lambda: process.poll() is not None or has_ended(site, job_id), f"death at {point}", pause=0.2)
    if process.poll() is None:
        site.stop("agent")
        return False
    assert -signal.SIGKILL == process.returncode
    return True


def kill_trainer(site: LiveSite, chance: random.Random, job_id: str) -> bool:
    """Kill the next trainer at a moment of its life; whether there was one before the job ended."""
    agent = site.running("agent").process.pid
    found = eventually(lambda: trainer_of(agent) or (-1 if has_ended(site, job_id) else None), "a trainer", pause=0.05)
    let_pass(chance.uniform(0.0, LONGEST_WAIT - 1))
    try:
        if found == -1 or trainer_of(agent) != found:
            return False
        kill(found, signal.SIGKILL)
    except ProcessLookupError:
        return False
    eventually(lambda: trainer_of(agent) != found, "the trainer's end")
    return True


def kill_agent(site: LiveSite, chance: random.Random) -> bool:
    """Kill the agent at a moment after its start, and start it again."""
    try:
        site.running("agent").process.wait(chance.uniform(0.0, LONGEST_WAIT))
    except subprocess.TimeoutExpired:
        site.kill("agent")
    else:
        pytest.fail(f"the agent ended by itself\n{site.logs()}")
    site.start("agent")
    return True


def test_a_job_survives_the_deaths_of_agent_and_trainer(site: LiveSite, tmp_path: Path) -> None:
    """An agent killed after its opening, a killed trainer, and an agent killed before its last word leave one end."""
    site.stop("agent")
    job_id = queue(site, tmp_path)
    assert die_at(site, "after-opening", job_id)
    dying = site.start("agent", crash_at="before-finish").process
    # Killed as soon as it appears: it has not come to its first message yet.
    trainer = eventually(lambda: trainer_of(dying.pid), "a trainer")
    kill(trainer, signal.SIGKILL)
    eventually(lambda: dying.poll() is not None, "death at before-finish")
    site.start("agent")
    await_end(site, job_id)
    check_ended_once(site, job_id, tmp_path)


def test_a_key_agent_that_is_away_uses_up_one_attempt_at_most(site: LiveSite, tmp_path: Path) -> None:
    """The one that was handed out as it went; until it is back the agent asks for no work, then the job succeeds."""
    log = site.running("agent").log
    site.stop("keyagent")
    before = log.read_text().count("no_key_agent")
    job_id = submit(site, write_spec(tmp_path, "key-agent-away", attempts=2))
    eventually(lambda: log.read_text().count("no_key_agent") > before + 2, "the agent's own notice")
    site.start("keyagent")
    await_end(site, job_id)
    check_ended_once(site, job_id, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_agent_may_die_at_each_named_point(site: LiveSite, tmp_path: Path) -> None:
    """Killed at every named point in turn, one attempt each, the agents leave one end and one result."""
    site.stop("agent")
    job_id = queue(site, tmp_path)
    missed = [point for point in POINTS if not die_at(site, point, job_id)]
    assert [] == missed
    site.start("agent")
    await_end(site, job_id)
    check_ended_once(site, job_id, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("seed", "times"), [(1, 7), (2, 6)])
def test_an_agent_may_die_at_any_moment(site: LiveSite, tmp_path: Path, seed: int, times: int) -> None:
    """Killed at moments that a seed chose, the agents leave one end and one result of every job."""
    chance = random.Random(seed)
    killed, jobs = 0, []
    while killed < times:
        jobs.append(queue(site, tmp_path))
        here = 0
        while killed < times and here < KILLS_PER_JOB and not has_ended(site, jobs[-1]):
            kill_agent(site, chance)
            killed, here = killed + 1, here + 1
        await_end(site, jobs[-1])
    for job_id in jobs:
        check_ended_once(site, job_id, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("seed", "times"), [(3, 7), (4, 7), (5, 6)])
def test_a_trainer_may_die_at_any_moment(site: LiveSite, tmp_path: Path, seed: int, times: int) -> None:
    """Killed at moments that a seed chose, the trainers leave one end and one result of every job."""
    chance = random.Random(seed)
    killed, jobs = 0, []
    while killed < times:
        jobs.append(queue(site, tmp_path))
        here = 0
        while killed < times and here < KILLS_PER_JOB and not has_ended(site, jobs[-1]):
            done = kill_trainer(site, chance, jobs[-1])
            killed, here = killed + done, here + done
        await_end(site, jobs[-1])
    for job_id in jobs:
        check_ended_once(site, job_id, tmp_path)
