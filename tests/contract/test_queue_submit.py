# SPDX-License-Identifier: Apache-2.0
"""Submitting, on SQLite and on PostgreSQL."""

from dataclasses import replace

import pytest

from cloister_server.database import tables
from cloister_server.errors import (
    BlobIncompleteError,
    EvidenceRejectedError,
    IdConflictError,
    NoCapableWorkerError,
    NotFoundError,
    ServerError,
)
from queue_bench import Bench
from site_objects import PURPOSE, Made, owned, sign_job, success


def test_the_same_submission_twice_is_one_job(bench: Bench) -> None:
    """Sending a job again returns it and leaves one row and one entry."""
    signed = bench.signed()
    first, second = bench.submit(signed), bench.submit(signed)
    assert first == second
    assert (1, 1) == (bench.count("job"), len(bench.entries("job.submit", signed.id)))


def test_another_job_under_a_used_id_is_refused(bench: Bench) -> None:
    """A job id that is in use for something else is ID_CONFLICT."""
    signed = bench.queued()
    with pytest.raises(IdConflictError):
        bench.submit(bench.signed(job_id=signed.id, priority=5))


def test_a_job_that_no_host_could_run_is_refused(bench: Bench) -> None:
    """Without a wrap for any host of the pool a submission is NO_CAPABLE_WORKER."""
    grants = tables.object_grant
    hosts = [keys.key_id for keys in bench.founded.hosts.values()]
    bench.unit_of_work.run(
        "test", lambda tx: tx.connection.execute(grants.delete().where(grants.c.recipient_key_id.in_(hosts)))
    )
    with pytest.raises(NoCapableWorkerError):
        bench.submit(bench.signed())


def submit_faulty(bench: Bench, case: str) -> None:
    """Submit a job with one fault."""
    founded, digest = bench.founded, bench.policy.digest
    blue, model = bench.rows["blue"], bench.models["blue"]
    if case == "a dataset that is not uploaded":
        made = owned(founded, "alice")
        bench.create("alice", made)
        bench.submit(sign_job(founded, "alice", made, model, digest))
    elif case == "a dataset of another team":
        bench.submit(sign_job(founded, "alice", bench.rows["green"], model, digest))
    elif case == "a dataset that is not there":
        bench.submit(sign_job(founded, "alice", owned(founded, "alice"), model, digest))
    elif case == "a purpose that is not allowed":
        bench.submit(bench.signed(purpose="marketing"))
    elif case == "another policy":
        bench.submit(sign_job(founded, "alice", blue, model, "0" * 64))
    elif case == "another trailer":
        signed = bench.signed()
        changed = replace(signed.authorisation, training=replace(blue.reference, trailer_sha256="0" * 64))
        bench.submit(replace(signed, statement=changed.sign(founded.people["alice"].signing)))
    elif case == "another spec":
        signed = bench.signed()
        bench.submit(replace(signed, spec=signed.spec.replace(b"helpdesk", b"helpdisk")))
    elif case == "somebody else's signature":
        signed = bench.signed()
        statement = signed.authorisation.sign(founded.people["gina"].signing)
        bench.submit(replace(signed, statement=statement))
    elif case == "attempts that differ":
        signed = bench.signed(max_attempts=3)
        changed = replace(signed.authorisation, max_attempts=4)
        bench.submit(replace(signed, statement=changed.sign(founded.people["alice"].signing)))


def candidate(bench: Bench, member: str = "alice", purpose: str = PURPOSE) -> tuple[str, Made]:
    """A result of a job: its version id and its layer."""
    signed = bench.queued(member, purpose=purpose)
    bench.leased_job()
    layer = bench.artifact(signed, 1)
    bench.finish(success(signed, 1, layer))
    return signed.id, layer


def test_a_layer_that_the_version_does_not_have_is_refused(bench: Bench) -> None:
    """The spec's version and the signed layers must be the same thing: none, another one, or a base with a layer."""
    version, layer = candidate(bench)
    other, other_layer = candidate(bench)
    base = bench.models["blue"].id
    for model, layers in ((version, ()), (version, (other_layer,)), (other, (layer,)), (base, (layer,))):
        with pytest.raises(EvidenceRejectedError):
            bench.submit(bench.signed(version=model, model_layers=tuple(item.reference for item in layers)))


def test_what_is_no_layer_is_not_found_as_one(bench: Bench) -> None:
    """A dataset, a base model or another team's export in a layer's place is NOT_FOUND."""
    version, _ = candidate(bench)
    _, foreign = candidate(bench, "gina")
    for layer in (bench.rows["blue"], bench.models["blue"], foreign):
        with pytest.raises(NotFoundError):
            bench.submit(bench.signed(version=version, model_layers=(layer.reference,)))


def test_a_layer_for_another_purpose_is_refused_at_submit(bench: Bench) -> None:
    """A version serves the purposes of the job that made it."""
    for name in ("blue", "green"):
        owner = {"blue": "alice", "green": "gina"}[name]
        made = owned(bench.founded, owner, purposes=(PURPOSE, "marketing"))
        bench.create(owner, made)
        bench.set_ready(made)
        bench.rows[name] = made
    version, layer = candidate(bench, purpose="marketing")
    with pytest.raises(EvidenceRejectedError):
        bench.submit(bench.signed(version=version, model_layers=(layer.reference,)))


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("a dataset that is not uploaded", BlobIncompleteError),
        ("a dataset of another team", NotFoundError),
        ("a dataset that is not there", NotFoundError),
        ("a purpose that is not allowed", EvidenceRejectedError),
        ("another policy", EvidenceRejectedError),
        ("another trailer", EvidenceRejectedError),
        ("another spec", EvidenceRejectedError),
        ("somebody else's signature", EvidenceRejectedError),
        ("attempts that differ", EvidenceRejectedError),
    ],
)
def test_a_submission_with_a_fault_is_refused(bench: Bench, case: str, error: type[ServerError]) -> None:
    """What a key agent would refuse later is refused at submit, and leaves no job."""
    with pytest.raises(error):
        submit_faulty(bench, case)
    assert 0 == bench.count("job")
