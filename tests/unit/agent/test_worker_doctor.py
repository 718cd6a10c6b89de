# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of a worker host: each thing is broken, found, and has a remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.admin.admit import admit_host
from cloister.admin.root import create_root
from cloister.errors import CloisterError, ConnectError, PermissionDeniedError
from cloister.findings import Diagnosis, exit_status
from cloister_workers.config import AgentConfig, load_agent
from cloister_workers.doctor import Answer, Senses, diagnose
from cloister_workers.init import init_host, install_welcome
from cloister_workers.keyagent.client import Status
from cloister_workers.keyagent.errors import KeyAgentGone
from cloister_workers.sandbox.probe import ProbeResult

NOW = 1_800_000_000
DAY = 24 * 3600
GOOD = Status("host-1", "seal", "sign", roster_version=3, roster_expires_at=NOW + 60 * DAY, checkpoint_size=9)
WELL = Senses(
    status=lambda socket: GOOD,
    sandbox=lambda: ProbeResult(True, ""),
    gpus=lambda: 2,
    free=lambda place: 1 << 40,
    ask=lambda config: Answer(NOW, NOW + 0.5, NOW),
)


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    custody = create_root(tmp_path / "root", "test", endpoint="localhost:1")
    request = init_host(tmp_path / "host")
    install_welcome(tmp_path / "host", admit_host(custody, request, "host-1", "default", now=NOW))
    return load_agent(tmp_path / "host")


def bad(found: list[Diagnosis]) -> list[tuple[str, str]]:
    return [(d.check, f.level) for d in found for f in d.findings if f.level != "ok" and "own user" not in f.message]


def gone(socket: Path) -> Status:
    raise KeyAgentGone("the key agent does not answer")


def refusing(error: CloisterError) -> Callable[[AgentConfig], Answer]:
    def ask(config: AgentConfig) -> Answer:
        raise error

    return ask


def test_a_host_in_order_has_nothing_to_do(config: AgentConfig) -> None:
    """Every check says ok, and the exit status is 0."""
    found = diagnose(config, WELL, NOW)
    assert ([], 0) == (bad(found), exit_status(found))


@pytest.mark.parametrize(
    ("senses", "expected"),
    [
        (replace(WELL, status=gone), ("key agent", "failure")),
        (replace(WELL, status=lambda _: replace(GOOD, host="host-2")), ("key agent", "failure")),
        (replace(WELL, status=lambda _: replace(GOOD, roster_expires_at=NOW)), ("key agent", "failure")),
        (replace(WELL, status=lambda _: replace(GOOD, roster_expires_at=NOW + DAY)), ("key agent", "warning")),
        (replace(WELL, sandbox=lambda: ProbeResult(False, "no user namespaces")), ("sandbox", "failure")),
        (replace(WELL, gpus=lambda: 0), ("device", "warning")),
        (replace(WELL, free=lambda _: 1 << 20), ("disk", "failure")),
        (replace(WELL, free=lambda _: 1 << 30), ("disk", "warning")),
        (replace(WELL, ask=refusing(ConnectError("no"))), ("control plane", "failure")),
        (replace(WELL, ask=refusing(PermissionDeniedError("unknown host"))), ("control plane", "failure")),
        (replace(WELL, ask=lambda _: Answer(NOW, NOW + 1, NOW + 7)), ("control plane", "warning")),
        (replace(WELL, ask=lambda _: Answer(NOW, NOW + 1, NOW - 601)), ("control plane", "failure")),
    ],
)
def test_what_is_wrong_is_found(config: AgentConfig, senses: Senses, expected: tuple[str, str]) -> None:
    """One thing is broken, that one is told with a remedy, and nothing else is."""
    found = diagnose(config, senses, NOW)
    assert [expected] == bad(found)
    assert all(f.remedy for d in found for f in d.findings if f.level != "ok")


def test_a_key_that_others_can_read_is_found(config: AgentConfig) -> None:
    """The file is named with its mode."""
    (config.paths.agent / "tls.key").chmod(0o644)
    assert [("files", "failure")] == bad(diagnose(config, WELL, NOW))


def test_a_certificate_is_warned_of_before_it_ends(config: AgentConfig) -> None:
    """Fourteen days ahead a warning, afterwards a failure."""
    assert [("certificate", "warning")] == bad(diagnose(config, WELL, NOW + 80 * DAY))[:1]
    assert ("certificate", "failure") in bad(diagnose(config, WELL, NOW + 400 * DAY))


@pytest.mark.parametrize(
    ("answer", "skew"),
    [
        (Answer(10.2, 10.4, 10), 0.0),
        (Answer(10.9, 11.1, 10), 0.0),
        (Answer(10.9, 11.1, 11), 0.0),
        (Answer(10.0, 70.0, 40), 0.0),
        (Answer(10.0, 10.5, 20), 9.5),
        (Answer(20.5, 20.75, 10), -9.5),
    ],
)
def test_skew_is_what_the_bounds_leave(answer: Answer, skew: float) -> None:
    """A second that may have been now is no skew, however slow the answer; beyond that, the least that it can be."""
    assert skew == answer.skew


def test_a_control_plane_that_tells_no_time_is_not_judged(config: AgentConfig) -> None:
    """An older control plane leaves the field out, and the doctor finds nothing wrong."""
    older = replace(WELL, ask=lambda _: Answer(NOW, NOW, 0))
    assert [] == bad(diagnose(config, older, NOW))
