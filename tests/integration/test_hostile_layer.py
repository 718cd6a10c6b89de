# SPDX-License-Identifier: Apache-2.0
"""A control plane that lies about the layer of an adapted version, against a real key agent.

As in `test_hostile_control_plane.py`: one thing is changed, withheld or swapped, and nothing is unwrapped.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import DAY, Job, Sealed, Site
from cloister.evidence.manifest import SealedObject
from cloister.evidence.opening import JobOpening
from cloister.evidence.signatures import SigningKey
from keyagent_process import RunningKeyAgent, decrypt, refusal, running_keyagent, write_directory


@pytest.fixture
def site() -> Site:
    return Site(int(time.time()))


@pytest.fixture
def agent(site: Site, tmp_path: Path) -> Iterator[RunningKeyAgent]:
    with running_keyagent(write_directory(tmp_path / "host", site)) as running:
        yield running


def with_input(opening: JobOpening, number: int, other: SealedObject) -> JobOpening:
    objects = list(opening.objects)
    objects[number] = other
    return replace(opening, objects=tuple(objects))


def layered(site: Site, **changes: Any) -> tuple[Job, Sealed]:  # noqa: ANN401 - fields of the manifest
    """A job on a version whose layer host-2 sealed; `changes` are fields of the layer's manifest."""
    layer = site.export(b"the layer", host="host-2", **changes)
    return site.job(layers=[layer]), layer


def test_an_honest_layer_is_opened(site: Site, agent: RunningKeyAgent) -> None:
    """The export that the member names is decrypted for the job on it, whichever host of the pool made it."""
    job, layer = layered(site)
    session = agent.open_job(site, site.opening(job))
    assert decrypt(session, layer, site.hosts["host-1"]) == b"the layer"
    session.close()


def test_a_swapped_layer_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Another export of the same host and team, truly signed, does not stand in for the one that was named."""
    job, _ = layered(site)
    code, message = refusal(agent, site, with_input(site.opening(job), 1, site.export(b"backdoor").object))
    assert (code, "another object" in message) == ("BINDING", True)


def test_an_older_sealing_of_the_layer_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """An export under the very id that was named, with other content, is not the signed one."""
    job, layer = layered(site)
    other = site.export(b"older", host="host-2", id=layer.id)
    assert refusal(agent, site, with_input(site.opening(job), 1, other.object))[0] == "BINDING"


def test_a_withheld_layer_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A job on a version does not become a job on its base."""
    opening = site.opening(layered(site)[0])
    assert refusal(agent, site, replace(opening, objects=(opening.objects[0], opening.objects[2])))[0] == "BINDING"


def test_a_layer_of_another_team_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A member of this team cannot have another team's version opened, though they sign for it truly."""
    code, message = refusal(agent, site, site.opening(layered(site, team="blue")[0]))
    assert (code, "another team" in message) == ("NOT_ON_ROSTER", True)


def test_a_member_of_another_team_gets_no_layer(site: Site, agent: RunningKeyAgent) -> None:
    """mallory of team blue, with data and a base of her own, is not given red's layer."""
    layer = site.export(b"red's", host="host-2")
    model, training = (make(owner="mallory", team="blue") for make in (site.model, site.dataset))
    job = site.job(member="mallory", team="blue", model=model, training=training, layers=[layer])
    code, message = refusal(agent, site, site.opening(job))
    assert (code, "export" in message, "another team" in message) == ("NOT_ON_ROSTER", True, True)


def test_a_layer_for_another_purpose_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A version learnt from rows given for one purpose; it serves no other."""
    code, message = refusal(agent, site, site.opening(layered(site, purposes=("research",))[0]))
    assert (code, "may not be used" in message) == ("POLICY_NOT_MET", True)


def test_an_expired_layer_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A version does not outlive the data that it was made from."""
    job, _ = layered(site, created_at=site.now - DAY + 60, expires_at=site.now - 1000)
    assert refusal(agent, site, site.opening(job))[0] == "EXPIRED"


def test_a_layer_of_another_pool_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A layer that was sealed for another pool is not opened in this one."""
    assert refusal(agent, site, site.opening(layered(site, pool="other")[0]))[0] == "BINDING"


def test_a_layer_by_a_host_of_another_pool_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A host of another pool was never certified for this team's jobs, whatever it signs."""
    job, _ = layered(site)
    roster = site.with_host("host-2", lambda host: replace(host, pool="other"))
    code, message = refusal(agent, site, site.opening(job), site.sign_roster(roster))
    assert (code, "another pool" in message) == ("BINDING", True)


def test_a_layer_that_no_host_signed_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A layer in a host's name by another key, a member's too, is refused."""
    for signer in (SigningKey.generate(), site.people["alice"].signing):
        layer = site.export(b"backdoor", host="host-2", signer=signer)
        assert refusal(agent, site, site.opening(site.job(layers=[layer])))[0] == "BAD_SIGNATURE"


@pytest.mark.parametrize("kind", ["base model", "dataset", "checkpoint"])
def test_only_an_export_is_a_layer(site: Site, agent: RunningKeyAgent, kind: str) -> None:
    """A base model, a dataset or a checkpoint in a layer's place is refused, even where a member signs for it."""
    model = site.model()
    layer = {"base model": model, "dataset": site.dataset(), "checkpoint": site.state()}[kind]
    code, message = refusal(agent, site, site.opening(site.job(model=model, layers=[layer])))
    assert (code, "wants a export" in message) == ("BINDING", True)


def test_a_layer_is_no_dataset(site: Site, agent: RunningKeyAgent) -> None:
    """A version in the place of training rows is refused, also where the same version is the job's layer."""
    layer = site.export()
    for layers in ([], [layer]):
        code, message = refusal(agent, site, site.opening(site.job(training=layer, layers=layers)))
        assert (code, "wants a dataset" in message) == ("BINDING", True)


def test_a_layer_is_no_base_model(site: Site, agent: RunningKeyAgent) -> None:
    """A version in the base's place is refused: hosts keep base models in plaintext, and only those."""
    code, message = refusal(agent, site, site.opening(site.job(model=site.export())))
    assert (code, "wants a model" in message) == ("BINDING", True)


def test_an_unlogged_layer_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """An entry that leaves the layer out does not record this opening."""
    job, _ = layered(site)
    bare = replace(job, inputs=(job.inputs[0], job.inputs[2]))
    index = site.log_job_opening(bare)
    opening = replace(site.opening(job), evidence=site.log.evidence(index, 0))
    code, message = refusal(agent, site, opening)
    assert (code, "unlogged" in message) == ("BINDING", True)
