# SPDX-License-Identifier: Apache-2.0
"""A control plane that lies, against a real key agent: one attack, one refusal, one reason.

Every document here is what an honest party signed, except for the one thing that the control plane changed, withheld
or swapped.  In each test nothing is unwrapped: there is no session, or the pipe stays empty.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builders import DAY, Site
from cloister.evidence.authorisation import Authorisation
from cloister.evidence.manifest import SealedObject, context
from cloister.evidence.opening import JobOpening
from cloister.evidence.signatures import SigningKey
from cloister.sealed import keys
from cloister.sealed.keys import Identity
from cloister_workers.keyagent.errors import Refused
from keyagent_process import RunningKeyAgent, decrypt, refusal, running_keyagent, write_directory


@pytest.fixture
def site() -> Site:
    return Site(int(time.time()))


@pytest.fixture
def agent(site: Site, tmp_path: Path) -> Iterator[RunningKeyAgent]:
    with running_keyagent(write_directory(tmp_path / "host", site)) as running:
        yield running


# ---------------------------------------------------------------- keys and roster
def test_a_roster_with_swapped_keys_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A roster with the control plane's own keys is not signed by the pinned root."""
    forged = site.with_host("host-1", lambda host: replace(host, sealing_recipient=str(Identity.generate().recipient)))
    code, message = refusal(agent, site, site.opening(site.job()), site.sign_roster(forged, SigningKey.generate()))
    assert (code, "not signed by the site's root" in message) == ("BAD_SIGNATURE", True)


def test_an_old_roster_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Once a newer roster was seen, an older one, truly signed, is refused."""
    old = site.sign_roster()
    newer = site.sign_roster(replace(site.roster, version=2))
    agent.open_job(site, site.opening(site.job()), newer).close()
    code, _ = refusal(agent, site, site.opening(site.job(), since=1), old)
    assert code == "ROLLBACK"
    assert agent.status().roster_version == 2


def test_an_old_roster_is_refused_even_if_the_newer_job_was_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A newer roster is remembered when it is seen, whatever becomes of the request that brought it."""
    newer = site.sign_roster(replace(site.roster, version=2))
    refusal(agent, site, replace(site.opening(site.job()), spec=b"{}"), newer)
    code, _ = refusal(agent, site, site.opening(site.job()), site.sign_roster())
    assert code == "ROLLBACK"


def test_an_expired_roster_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A roster past its time opens nothing, so withholding a newer one does not help for ever."""
    expired = site.sign_roster(replace(site.roster, expires_at=site.now - 1))
    assert refusal(agent, site, site.opening(site.job()), expired)[0] == "EXPIRED"


def test_a_retired_host_opens_nothing(site: Site, agent: RunningKeyAgent) -> None:
    """A host that the root has retired refuses by itself."""
    roster = site.with_host("host-1", lambda host: replace(host, retired_at=site.now - 1))
    code, message = refusal(agent, site, site.opening(site.job()), site.sign_roster(roster))
    assert (code, "retired" in message) == ("NOT_ON_ROSTER", True)


def test_a_host_of_another_pool_opens_nothing(site: Site, agent: RunningKeyAgent) -> None:
    """A job for one pool is not opened by a host of another."""
    roster = site.with_host("host-1", lambda host: replace(host, pool="other"))
    assert refusal(agent, site, site.opening(site.job()), site.sign_roster(roster))[0] == "NOT_ON_ROSTER"


# ---------------------------------------------------------------- what the member signed
def test_a_forged_authorisation_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A job that no member signed is not opened."""
    job = site.job()
    forged = replace(job, statement=job.authorisation.sign(SigningKey.generate()))
    assert refusal(agent, site, site.opening(forged))[0] == "BAD_SIGNATURE"


def test_an_altered_authorisation_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A changed byte of the authorisation breaks its signature."""
    job = site.job()
    altered = replace(job.authorisation, max_attempts=9).to_payload()
    forged = replace(job, statement=replace(job.statement, payload=altered))
    assert refusal(agent, site, site.opening(forged))[0] == "BAD_SIGNATURE"


def test_a_job_of_another_team_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A member of another team cannot open this team's data, though they sign truly."""
    job = site.job(member="mallory")
    assert refusal(agent, site, site.opening(job))[0] == "NOT_ON_ROSTER"


def test_an_expired_authorisation_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """An authorisation past its time opens nothing."""
    job = site.job(created_at=site.now - 3 * DAY, expires_at=site.now - DAY)
    roster = replace(
        site.roster,
        people=tuple(
            replace(p, signing_keys=tuple(replace(k, not_before=0) for k in p.signing_keys)) for p in site.roster.people
        ),
    )
    code, message = refusal(agent, site, site.opening(job), site.sign_roster(roster))
    assert (code, "authorisation" in message) == ("EXPIRED", True)


def test_a_swapped_specification_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Another specification than the signed one is not run."""
    opening = site.opening(site.job())
    code, message = refusal(agent, site, replace(opening, spec=opening.spec.replace(b"helpdesk", b"stealing")))
    assert (code, "specification" in message) == ("BINDING", True)


# ---------------------------------------------------------------- inputs
def with_input(opening: JobOpening, number: int, other: SealedObject) -> JobOpening:
    objects = list(opening.objects)
    objects[number] = other
    return replace(opening, objects=tuple(objects))


def test_a_swapped_dataset_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Another dataset of the same owner, truly signed, does not stand in for the one that was named."""
    opening = with_input(site.opening(site.job()), 1, site.dataset(b"other").object)
    code, message = refusal(agent, site, opening)
    assert (code, "another object" in message) == ("BINDING", True)


def test_a_swapped_base_model_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Another base model, truly signed, does not stand in for the one that was named."""
    opening = with_input(site.opening(site.job()), 0, site.model({"config.json": b'{"a":1}'}).object)
    assert refusal(agent, site, opening)[0] == "BINDING"


def test_swapped_evaluation_data_are_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Easier evaluation data do not stand in for the ones that were named."""
    job = site.job(evaluation=site.dataset(b"hard"))
    assert refusal(agent, site, with_input(site.opening(job), 2, site.dataset(b"easy").object))[0] == "BINDING"


def test_withheld_evaluation_data_are_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A job with an input less than signed is not opened."""
    opening = site.opening(site.job(evaluation=site.dataset(b"hard")))
    assert refusal(agent, site, replace(opening, objects=opening.objects[:2]))[0] == "BINDING"


def test_a_swapped_owner_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A manifest that names another owner is not the one that the trailer was signed for."""
    job = site.job()
    real = job.inputs[1].object
    stolen = replace(real, manifest=real.manifest.replace(b'"owner":"alice"', b'"owner":"rita"'))
    code, message = refusal(agent, site, with_input(site.opening(job), 1, stolen))
    assert (code, "another manifest" in message) == ("BINDING", True)


def test_a_dataset_signed_by_another_than_its_owner_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A dataset in alice's name that rita's key signed is refused."""
    job = site.job(training=site.dataset(signer=site.people["rita"].signing))
    assert refusal(agent, site, site.opening(job))[0] == "BAD_SIGNATURE"


def test_a_dataset_of_another_team_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A dataset of another team is not opened for this one, whatever its member signs."""
    job = site.job(training=site.dataset(owner="mallory", team="blue"))
    code, message = refusal(agent, site, site.opening(job))
    assert (code, "another team" in message) == ("NOT_ON_ROSTER", True)


def test_a_dataset_for_another_purpose_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A dataset is used for what its owner allows only."""
    job = site.job(training=site.dataset(purposes=("research",)))
    assert refusal(agent, site, site.opening(job))[0] == "POLICY_NOT_MET"


def test_an_expired_dataset_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A dataset past its owner's time is not opened."""
    job = site.job(training=site.dataset(created_at=site.now - DAY + 60, expires_at=site.now - 1000))
    assert refusal(agent, site, site.opening(job))[0] == "EXPIRED"


def test_a_swapped_blob_is_refused_before_a_byte_flows(site: Site, agent: RunningKeyAgent) -> None:
    """Another ciphertext than the signed one leaves the pipe empty, even where only its last byte differs."""
    training = site.dataset(b"x" * 200_000)
    session = agent.open_job(site, site.opening(site.job(training=training)))
    for wrong in (training.ciphertext[:-1], training.ciphertext[:-1] + b"\0", training.ciphertext + b"\0"):
        with pytest.raises(Refused) as refused:
            decrypt(session, training, site.hosts["host-1"], ciphertext=wrong)
        assert (refused.value.code, session.received) == ("DIGEST_MISMATCH", b"")  # type: ignore[attr-defined]
    session.close()


def test_an_old_wrap_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """The wrap of another object, replayed, does not open under this object's manifest."""
    training, other = site.dataset(), site.dataset(b"other")
    session = agent.open_job(site, site.opening(site.job(training=training)))
    with pytest.raises(Refused) as refused:
        decrypt(session, training, site.hosts["host-1"], wrap=other.wrap_for(site.hosts["host-1"]))
    assert (refused.value.code, session.received) == ("WRONG_RECIPIENT", b"")  # type: ignore[attr-defined]
    session.close()


def test_a_wrap_of_the_control_planes_own_key_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A wrap that the control plane made, of a key that it knows, does not open the signed payload."""
    training = site.dataset()
    session = agent.open_job(site, site.opening(site.job(training=training)))
    recipient = site.hosts["host-1"].identity.recipient
    wrap = keys.wrap(b"k" * 32, recipient, context(training.object.manifest))
    with pytest.raises(Refused) as refused:
        decrypt(session, training, site.hosts["host-1"], wrap=wrap)
    assert (refused.value.code, session.received) == ("PAYLOAD_DAMAGED", b"")  # type: ignore[attr-defined]
    session.close()


def test_an_object_of_another_job_is_not_decrypted(site: Site, agent: RunningKeyAgent) -> None:
    """A session opens the inputs of its own job and nothing else that this host could open."""
    other = site.dataset(b"other")
    session = agent.open_job(site, site.opening(site.job()))
    with pytest.raises(Refused) as refused:
        decrypt(session, other, site.hosts["host-1"])
    assert (refused.value.code, session.received) == ("BAD_REQUEST", b"")  # type: ignore[attr-defined]
    session.close()


# ---------------------------------------------------------------- checkpoints of earlier attempts
def test_an_honest_checkpoint_is_resumed(site: Site, agent: RunningKeyAgent) -> None:
    """A checkpoint of this job's earlier attempt, made by a host of the pool, is opened."""
    job, state = site.job(), site.state(b"the state", host="host-2")
    opening = site.opening(job, 2, resume=(state, site.result(job, state, host="host-2")))
    session = agent.open_job(site, opening)
    assert decrypt(session, state, site.hosts["host-1"]) == b"the state"
    session.close()


def test_a_checkpoint_of_another_job_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A checkpoint made under another authorisation does not go into this job."""
    job, state = site.job(), site.state()
    opening = site.opening(job, 2, resume=(state, site.result(site.job(), state)))
    code, message = refusal(agent, site, opening)
    assert (code, "another authorisation" in message) == ("BINDING", True)


def test_a_checkpoint_by_a_foreign_signer_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A checkpoint that no certified host signed is not opened."""
    job, state = site.job(), site.state()
    forged = site.result(job, state, signer=SigningKey.generate())
    assert refusal(agent, site, site.opening(job, 2, resume=(state, forged)))[0] == "BAD_SIGNATURE"


def test_a_swapped_checkpoint_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Another checkpoint of the same host does not stand in for the one that its statement names."""
    job, state, other = site.job(), site.state(), site.state(b"other")
    assert refusal(agent, site, site.opening(job, 2, resume=(other, site.result(job, state))))[0] == "BINDING"


def test_a_dataset_as_checkpoint_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Only a checkpoint is opened as a checkpoint."""
    job, data = site.job(), site.dataset()
    result = site.result(job, data, kind="state")
    assert refusal(agent, site, site.opening(job, 2, resume=(data, result)))[0] == "BINDING"


def test_a_checkpoint_from_the_future_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A checkpoint of this or a later attempt is not resumed."""
    job, state = site.job(), site.state()
    opening = site.opening(job, 2, resume=(state, site.result(job, state, attempt=2)))
    assert refusal(agent, site, opening)[0] == "REPLAY"


# ---------------------------------------------------------------- replays
def test_a_replayed_attempt_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """The same attempt is opened once; an earlier one never after a later one."""
    job = site.job()
    first = site.opening(job)
    agent.open_job(site, first).close()
    assert refusal(agent, site, first)[0] == "REPLAY"
    agent.open_job(site, site.opening(job, 3, since=1)).close()
    assert refusal(agent, site, site.opening(job, 2, since=2))[0] == "REPLAY"


def test_more_attempts_than_authorised_are_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A job is not run more often than its member allows."""
    job = site.job(max_attempts=2)
    assert refusal(agent, site, site.opening(job, 3))[0] == "REPLAY"


def test_attempt_zero_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Attempts are counted from 1: none below can slip under the memory of what was opened."""
    assert refusal(agent, site, site.opening(site.job(), 0))[0] == "REPLAY"
    assert refusal(agent, site, site.opening(site.job(), -1))[0] == "REPLAY"


# ---------------------------------------------------------------- policy and sandbox
def test_a_foreign_policy_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A policy that no policy key signed is refused, though the job was authorised under it."""
    job = site.job(policy=site.policy(SigningKey.generate()))
    assert refusal(agent, site, site.opening(job))[0] == "BAD_SIGNATURE"


def test_a_swapped_policy_is_refused(site: Site, agent: RunningKeyAgent) -> None:
    """Another policy, truly signed, is not the one that the member's signature binds."""
    opening = replace(site.opening(site.job()), policy=site.policy(version=2))
    assert refusal(agent, site, opening)[0] == "BINDING"


def test_no_sandbox_is_refused_unless_the_policy_allows_it(site: Site, agent: RunningKeyAgent) -> None:
    """A host without a sandbox opens a job only under a signed policy that allows it."""
    code, message = refusal(agent, site, site.opening(site.job()), sandboxed=False)
    assert (code, "sandbox" in message) == ("POLICY_NOT_MET", True)
    allowed = site.job(policy=site.policy(allow_unsandboxed=True))
    agent.open_job(site, site.opening(allowed), sandboxed=False).close()


def test_digests_in_this_file_are_those_of_the_contract(site: Site) -> None:
    """The builders bind by SHA-256 of exact bytes, so that the attacks above are attacks on the real contract."""
    job = site.job()
    assert Authorisation.parse(job.statement.payload).spec_sha256 == hashlib.sha256(job.spec).hexdigest()
