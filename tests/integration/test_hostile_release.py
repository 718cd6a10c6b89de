# SPDX-License-Identifier: Apache-2.0
"""A control plane that lies about releases, against a real key agent: one attack, one refusal, one reason."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builders import Site
from cloister.evidence.policy import Rule
from cloister.evidence.signatures import SigningKey, Statement
from cloister_workers.keyagent import client
from keyagent_process import RunningKeyAgent, release_refusal, running_keyagent, write_directory


@pytest.fixture
def site() -> Site:
    return Site(int(time.time()))


@pytest.fixture
def agent(site: Site, tmp_path: Path) -> Iterator[RunningKeyAgent]:
    with running_keyagent(write_directory(tmp_path / "host", site)) as running:
        yield running


def test_a_replayed_release_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """One attempt of a release gives one wrap."""
    job, version = site.job(), site.export()
    opening = site.release(job, version, site.result(job, version))
    wrap = version.wrap_for(site.hosts["host-1"])
    connection = client.Connection(agent.paths.socket)
    client.open_release(connection, opening, site.sign_roster(), wrap)
    connection.close()
    assert release_refusal(agent, site, opening, wrap)[0] == "REPLAY"


def test_an_adapter_swapped_at_release_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Another model than the evaluated one, truly made by the host, is not released in its place."""
    job, version, other = site.job(), site.export(), site.export(b"backdoored")
    opening = replace(site.release(job, version, site.result(job, version)), object=other.object)
    code, message = release_refusal(agent, site, opening, other.wrap_for(site.hosts["host-1"]))
    assert (code, "not the one that was evaluated" in message) == ("BINDING", True)


def test_an_adapter_by_a_foreign_signer_is_refused_at_release(site: Site, agent: RunningKeyAgent) -> None:
    """A model that no certified host sealed is not released."""
    job = site.job()
    forged = site.export(signer=SigningKey.generate())
    opening = site.release(job, forged, site.result(job, forged))
    assert release_refusal(agent, site, opening, forged.wrap_for(site.hosts["host-1"]))[0] == "BAD_SIGNATURE"


def test_the_evaluation_of_another_job_is_refused_at_release(site: Site, agent: RunningKeyAgent) -> None:
    """A good evaluation of another job does not release this one's model."""
    job, version = site.job(), site.export()
    result = site.result(site.job(), version)
    assert release_refusal(agent, site, site.release(job, version, result), b"")[0] == "BINDING"


def test_a_forged_evaluation_is_refused_at_release(site: Site, agent: RunningKeyAgent) -> None:
    """Metrics that the host did not sign release nothing."""
    job, version = site.job(), site.export()
    result = site.result(job, version, metrics={"eval_accuracy": "0.1"})
    better = replace(result, payload=result.payload.replace(b'"eval_accuracy":"0.1"', b'"eval_accuracy":"1.0"', 1))
    assert better.payload != result.payload
    assert release_refusal(agent, site, site.release(job, version, better), b"")[0] == "BAD_SIGNATURE"


def test_a_metric_below_the_policy_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A model below the signed bound is not released."""
    job, version = site.job(), site.export()
    result = site.result(job, version, metrics={"eval_accuracy": "0.4"})
    code, message = release_refusal(agent, site, site.release(job, version, result), b"")
    assert (code, "eval_accuracy" in message) == ("POLICY_NOT_MET", True)


def test_a_missing_metric_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A metric that the policy bounds and nobody measured is not taken as met."""
    job, version = site.job(policy=site.policy(rules=(Rule("bias_gap", at_most="0.1"),))), site.export()
    opening = site.release(job, version, site.result(job, version))
    assert release_refusal(agent, site, opening, b"")[0] == "POLICY_NOT_MET"


def test_an_unsandboxed_model_is_not_released(site: Site, agent: RunningKeyAgent) -> None:
    """What ran without a sandbox is not released where the policy wants one."""
    job, version = site.job(), site.export()
    opening = site.release(job, version, site.result(job, version, sandboxed=False))
    assert release_refusal(agent, site, opening, b"")[0] == "POLICY_NOT_MET"


def test_a_weaker_policy_is_refused_at_release(site: Site, agent: RunningKeyAgent) -> None:
    """A policy other than the one the job was bound to does not release it, though it is truly signed."""
    job, version = site.job(), site.export()
    weaker = site.policy(version=2, rules=())
    opening = site.release(replace(job, policy=weaker), version, site.result(job, version))
    assert release_refusal(agent, site, opening, b"")[0] == "BINDING"


def approved_site(site: Site) -> Statement:
    return site.policy(auto_release=False, approvals=1)


def test_an_approved_release_is_granted(site: Site, agent: RunningKeyAgent) -> None:
    """With the approval that the policy asks for, the release is carried out."""
    job, version = site.job(policy=approved_site(site)), site.export()
    opening = site.release(job, version, site.result(job, version), approvers=("bob",))
    connection = client.Connection(agent.paths.socket)
    granted = client.open_release(connection, opening, site.sign_roster(), version.wrap_for(site.hosts["host-1"]))
    connection.close()
    assert granted.wrap.recipient_key_id == site.people["rita"].identity.recipient.key_id


def test_a_missing_approval_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Without the approval that the policy asks for, nothing leaves."""
    job, version = site.job(policy=approved_site(site)), site.export()
    opening = site.release(job, version, site.result(job, version))
    assert release_refusal(agent, site, opening, b"")[0] == "POLICY_NOT_MET"


def test_an_approval_by_the_requester_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Nobody approves their own request, approver or not."""
    job, version = site.job(policy=approved_site(site)), site.export()
    opening = site.release(job, version, site.result(job, version), requester="bob", approvers=("bob",))
    code, message = release_refusal(agent, site, opening, b"")
    assert (code, "their own request" in message) == ("POLICY_NOT_MET", True)


def test_an_approval_by_somebody_without_the_role_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A member who is no approver approves nothing."""
    job, version = site.job(policy=approved_site(site)), site.export()
    opening = site.release(job, version, site.result(job, version), approvers=("rita",))
    assert release_refusal(agent, site, opening, b"")[0] == "NOT_ON_ROSTER"


def test_an_approval_of_another_request_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """An approval is for one request; it cannot be carried over to another."""
    job, version = site.job(policy=approved_site(site)), site.export()
    result = site.result(job, version)
    other = site.release(job, version, result, approvers=("bob",))
    opening = replace(site.release(job, version, result, reason="another"), approvals=other.approvals)
    assert release_refusal(agent, site, opening, b"")[0] == "BINDING"


def test_one_approver_counts_once(site: Site, agent: RunningKeyAgent) -> None:
    """The same approval twice is one approval."""
    job, version = site.job(policy=site.policy(auto_release=False, approvals=2)), site.export()
    opening = site.release(job, version, site.result(job, version), approvers=("bob", "bob"))
    assert release_refusal(agent, site, opening, b"")[0] == "POLICY_NOT_MET"


def test_a_recipient_of_another_team_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A team's model is released within the team."""
    job, version = site.job(), site.export()
    opening = site.release(job, version, site.result(job, version), recipient="mallory")
    assert release_refusal(agent, site, opening, b"")[0] == "NOT_ON_ROSTER"


def test_a_wrap_of_another_object_is_refused_at_release(site: Site, agent: RunningKeyAgent) -> None:
    """A dataset's wrap, slipped into a release, is not opened for its recipient."""
    job, version, data = site.job(), site.export(), site.dataset()
    opening = site.release(job, version, site.result(job, version))
    assert release_refusal(agent, site, opening, data.wrap_for(site.hosts["host-1"]))[0] == "WRONG_RECIPIENT"


def test_a_release_without_an_entry_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A release whose entry names another recipient is not carried out."""
    job, version = site.job(), site.export()
    result = site.result(job, version)
    other = site.release(job, version, result, recipient="bob")
    opening = replace(site.release(job, version, result), evidence=other.evidence)
    assert release_refusal(agent, site, opening, version.wrap_for(site.hosts["host-1"]))[0] == "BINDING"


def test_a_dataset_is_never_released(site: Site, agent: RunningKeyAgent) -> None:
    """A dataset dressed up as a version is refused, even with a host's true signature on the evaluation."""
    job, data = site.job(), site.dataset()
    result = site.result(job, data, kind="export")
    opening = site.release(job, data, result)
    assert release_refusal(agent, site, opening, data.wrap_for(site.hosts["host-1"]))[0] == "BINDING"
