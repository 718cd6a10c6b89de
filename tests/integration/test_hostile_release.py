# SPDX-License-Identifier: Apache-2.0
"""A control plane that lies about releases, against a real key agent: one attack, one refusal, one reason."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builders import Job, Sealed, Site
from cloister.evidence.canonical import canonical_bytes
from cloister.evidence.opening import ReleaseOpening
from cloister.evidence.policy import Rule
from cloister.evidence.release import Approval, Release, ReleaseRequest
from cloister.evidence.signatures import SigningKey, Statement
from cloister_workers.keyagent import client
from debias_job import verdict_metrics
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


# ---------------------------------------------------------------- exceptions to the de-biasing gate
def failed(site: Site, *, verdict: str = "FAIL", **policy: object) -> tuple[Job, Sealed, Statement]:
    """A de-biased version that did not pass, under a policy that releases by itself unless told otherwise."""
    job, version = site.job(policy=site.policy(**policy)), site.export()  # type: ignore[arg-type]  # fields of Policy
    return job, version, site.result(job, version, metrics=verdict_metrics(verdict))


def granted(agent: RunningKeyAgent, site: Site, opening: ReleaseOpening, version: Sealed) -> Release:
    connection = client.Connection(agent.paths.socket)
    try:
        made = client.open_release(connection, opening, site.sign_roster(), version.wrap_for(site.hosts["host-1"]))
    finally:
        connection.close()
    return Release.parse(made.statement.payload)


def approved(site: Site, opening: ReleaseOpening, approver: str = "bob", **changes: object) -> ReleaseOpening:
    """The same release with an approval of this very request; `changes` are fields of the approval."""
    asked = ReleaseRequest.parse(opening.request.payload)
    approval = Approval(asked.release_id, opening.request.digest, approver, "fine", site.now - 1)
    signed = replace(approval, **changes).sign(site.people[approver].signing)  # type: ignore[arg-type]
    return replace(opening, approvals=(*opening.approvals, signed))


def test_a_passed_gate_needs_no_exception(site: Site, agent: RunningKeyAgent) -> None:
    """A version whose gate says PASS leaves under an automatic policy, and the statement names no exception."""
    job, version, result = failed(site, verdict="PASS")
    assert not granted(agent, site, site.release(job, version, result), version).exception


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE"])
def test_a_failed_gate_stays_a_candidate(site: Site, agent: RunningKeyAgent, verdict: str) -> None:
    """Without an exception a version that did not pass is not released, whatever the policy says of approvals."""
    job, version, result = failed(site, verdict=verdict)
    code, message = release_refusal(agent, site, site.release(job, version, result), b"")
    assert (code, verdict in message) == ("POLICY_NOT_MET", True)
    job, version, result = failed(site, verdict=verdict, auto_release=False, approvals=1)
    opening = site.release(job, version, result, approvers=("bob",))
    assert release_refusal(agent, site, opening, b"")[0] == "POLICY_NOT_MET"


def test_an_approved_exception_is_released(site: Site, agent: RunningKeyAgent) -> None:
    """Asked for and approved as an exception it leaves, even under an automatic policy, and the host says so."""
    job, version, result = failed(site)
    opening = site.release(job, version, result, approvers=("bob",), exception=True)
    assert granted(agent, site, opening, version).exception


def test_an_exception_that_nobody_approved_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """An automatic policy releases no exception: a control plane that leaves the approvals out opens nothing."""
    job, version, result = failed(site)
    code, message = release_refusal(agent, site, site.release(job, version, result, exception=True), b"")
    assert (code, "nobody has approved" in message) == ("POLICY_NOT_MET", True)


def test_a_plain_approval_approves_no_exception(site: Site, agent: RunningKeyAgent) -> None:
    """An approver who did not sign for an exception has not given one."""
    job, version, result = failed(site)
    opening = approved(site, site.release(job, version, result, exception=True), exception=False)
    code, message = release_refusal(agent, site, opening, b"")
    assert (code, "lacks the consent" in message) == ("POLICY_NOT_MET", True)


def test_an_exception_that_nobody_asked_for_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A consent to an exception under a plain request lifts nothing."""
    job, version, result = failed(site)
    opening = approved(site, site.release(job, version, result), exception=True)
    assert release_refusal(agent, site, opening, b"")[0] == "POLICY_NOT_MET"


def test_nobody_approves_their_own_exception(site: Site, agent: RunningKeyAgent) -> None:
    """The requester's own approval counts for nothing, approver or not."""
    job, version, result = failed(site)
    opening = site.release(job, version, result, requester="bob", approvers=("bob",), exception=True)
    code, message = release_refusal(agent, site, opening, b"")
    assert (code, "their own request" in message) == ("POLICY_NOT_MET", True)


def test_an_exception_by_somebody_without_the_role_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A member who is no approver gives no exception."""
    job, version, result = failed(site)
    opening = site.release(job, version, result, approvers=("rita",), exception=True)
    assert release_refusal(agent, site, opening, b"")[0] == "NOT_ON_ROSTER"


@pytest.mark.parametrize("part", ["request", "approval"])
def test_a_forged_exception_is_refused(site: Site, agent: RunningKeyAgent, part: str) -> None:
    """A flag that the control plane writes into a signed document breaks its signature."""
    job, version, result = failed(site)
    opening = approved(site, site.release(job, version, result, exception=part == "approval"))
    signed = opening.request if part == "request" else opening.approvals[0]
    fields = {**json.loads(signed.payload), "exception": True}
    forged = replace(signed, payload=canonical_bytes(fields))
    changed = {"request": forged} if part == "request" else {"approvals": (forged,)}
    tampered = replace(opening, **changed)
    assert release_refusal(agent, site, tampered, b"")[0] == "BAD_SIGNATURE"


def test_an_exception_of_another_request_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A consent to an exception is for one request; it cannot be carried over to the next."""
    job, version, result = failed(site)
    other = site.release(job, version, result, approvers=("bob",), exception=True)
    opening = replace(site.release(job, version, result, exception=True, reason="another"), approvals=other.approvals)
    assert release_refusal(agent, site, opening, b"")[0] == "BINDING"


def test_a_verdict_left_out_of_the_result_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A control plane that strips or turns the verdict of a signed result releases nothing."""
    job, version, result = failed(site)
    for metrics in ({"eval_accuracy": "0.9"}, verdict_metrics("PASS")):
        fields = {**json.loads(result.payload), "metrics": metrics}
        forged = replace(result, payload=canonical_bytes(fields))
        assert release_refusal(agent, site, site.release(job, version, forged), b"")[0] == "BAD_SIGNATURE"


def test_an_exception_lifts_the_gate_and_nothing_else(site: Site, agent: RunningKeyAgent) -> None:
    """The policy's own bounds hold for exceptions too."""
    job, version, _ = failed(site)
    result = site.result(job, version, metrics={**verdict_metrics("FAIL"), "eval_accuracy": "0.4"})
    opening = site.release(job, version, result, approvers=("bob",), exception=True)
    code, message = release_refusal(agent, site, opening, b"")
    assert (code, "eval_accuracy" in message) == ("POLICY_NOT_MET", True)
