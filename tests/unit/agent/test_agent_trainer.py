# SPDX-License-Identifier: Apache-2.0
"""How a trainer is started, and that its last words are heard."""

import dataclasses
import threading
from collections.abc import Sequence

import pytest

from cloister_workers.agent.training import Process
from cloister_workers.protocol import Failed, FailureCode, Ready
from cloister_workers.sandbox.spec import SandboxSpec
from fake_run import good_trainer, run
from fake_site import FakeHost
from fake_trainer import TrainerSide


@pytest.mark.parametrize(("threads", "environment"), [(0, {}), (3, {"OMP_NUM_THREADS": "3"})])
def test_a_trainer_computes_with_the_threads_of_the_host(
    host: FakeHost, threads: int, environment: dict[str, str]
) -> None:
    """A host's setting reaches the trainer's environment; without one the trainer counts its cores."""
    host.scripts.append(good_trainer)
    host.host = dataclasses.replace(host.host, place=dataclasses.replace(host.host.place, threads=threads))
    run(host)
    assert host.processes[0].side.sandbox.env == environment


def test_a_trainer_that_fails_before_it_gets_the_job_is_heard(host: FakeHost) -> None:
    """Last words that were said, and the socket closed, before the job was handed over are the outcome."""
    gone = threading.Event()

    def trainer(side: TrainerSide) -> None:
        side.channel.send(Ready())
        side.channel.send(Failed(code=FailureCode.SCRATCH_FULL))
        side.channel.close()
        gone.set()

    host.scripts.append(trainer)
    launch = host.host.place.launch

    def slow_launch(argv: Sequence[str], spec: SandboxSpec) -> Process:
        process = launch(argv, spec)
        assert gone.wait(10)
        return process

    place = dataclasses.replace(host.host.place, launch=slow_launch)
    host.host = dataclasses.replace(host.host, place=place)
    ended = run(host)
    assert ended is not None
    assert ended.error.code == "SCRATCH_FULL"
