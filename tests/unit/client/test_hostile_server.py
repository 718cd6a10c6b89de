# SPDX-License-Identifier: Apache-2.0
"""A hostile control plane against the client: each attack is refused by a check, never by luck."""

from __future__ import annotations

import dataclasses

import pytest

from cloister.admin.policy import read_policy
from cloister.admin.rotation import rotate_root
from cloister.admin.sign import sign_next
from cloister.api.v1 import datasets_pb2, models_pb2
from cloister.errors import CloisterError
from cloister.evidence.errors import (
    BindingError,
    ExpiredError,
    ForkError,
    PolicyError,
    RollbackError,
    SignatureError,
    TamperedError,
)
from cloister.evidence.manifest import Manifest
from cloister.evidence.roster import ROSTER_TYPE, Roster
from cloister.evidence.signatures import SigningKey
from cloister.evidence.succession import sign_succession
from cloister.wire import statement_to_proto
from memory_site import POLICY
from set_clock import NOW


def test_old_roster(site):
    """A roster older than the newest seen is refused."""
    old = site.roster
    site.roster = sign_next(site.custody, 30, now=NOW)
    site.client().site.refresh()
    site.roster = old
    with pytest.raises(RollbackError, match="roster version 1 is older than version 2"):
        site.client().site.refresh()


def test_forged_roster(site):
    """A roster that another root signed is refused."""
    site.roster = SigningKey.generate().sign(ROSTER_TYPE, site.roster.payload)
    with pytest.raises(SignatureError):
        site.client().site.refresh()


def test_the_root_that_was_succeeded(site):
    """Once the client has followed to a new root, nothing that the old one signs counts, a new succession included."""
    stolen = site.custody.root_key()
    rotate_root(site.custody, now=NOW)
    site.roster = sign_next(site.custody, 30, now=NOW)
    site.client().site.refresh()
    assert site.custody.root_key().public == site.homes["anna"].pins().root_public
    newest = site.roster
    roster = Roster.parse(newest.payload)
    thief = SigningKey.generate()
    step = sign_succession("test", stolen, thief, now=NOW)
    for key, successions in ((stolen, ()), (thief, (step,)), (thief, (*roster.successions, step))):
        forged = dataclasses.replace(roster, version=roster.version + 1, successions=successions)
        site.roster = key.sign(ROSTER_TYPE, forged.to_payload())
        with pytest.raises(SignatureError):
            site.client().site.refresh()
    site.roster = newest
    site.client().site.refresh()


def test_expired_roster(site):
    """An expired roster is refused, so a withheld revocation ends by itself."""
    site.clock.now = NOW + 31 * 24 * 3600
    with pytest.raises(ExpiredError):
        site.client().site.refresh()


def test_rolled_back_log(site):
    """A log that is shorter than the head that was kept is refused."""
    site.log("job.submit")
    site.client().site.refresh()
    del site.entries[1:]
    with pytest.raises(RollbackError):
        site.client().site.refresh()


def test_forked_log(site):
    """A log of the right length with another past is refused."""
    site.log("job.submit")
    site.client().site.refresh()
    site.entries[1] = site.entries[1].replace(b"job.submit", b"job.cancel")
    for _ in range(5):
        site.log("job.read")
    with pytest.raises(ForkError):
        site.client().site.refresh()


def test_fork_of_equal_size(site):
    """Two heads of one size with different roots are a fork."""
    client = site.client()
    site.channel.handlers["GetSite"] = quiet(site)
    client.site.refresh()
    site.entries[0] = site.entries[0].replace(b"site.start", b"site.stop_")
    with pytest.raises(ForkError):
        client.site.refresh()


def quiet(site):
    """GetSite without an entry of its own."""
    honest = site.GetSite

    def answer(request):
        response = honest(request)
        site.entries.pop()
        response.checkpoint = site.checkpoint()
        return response

    return answer


def test_head_of_another_key(site):
    """A head that another key signed is refused."""
    from cloister.admin.log_key import make_log_key

    site.signer = make_log_key("test/log")
    with pytest.raises(SignatureError):
        site.client().site.refresh()


def test_refused_state_is_not_kept(site):
    """After a refusal the remembered head is what it was."""
    for _ in range(3):
        site.log("job.read")
    site.client().site.refresh()
    before = site.homes["anna"].state()
    del site.entries[1:]
    with pytest.raises(RollbackError):
        site.client().site.refresh()
    assert before == site.homes["anna"].state()


def test_swapped_dataset(site, spec, rows):
    """Another dataset in place of the one asked for is refused at submit."""
    wanted = spec()
    rows.write_bytes(b'{"text": "other", "label": "x"}\n')
    other = site.client().datasets.push(rows, "other", ["routing"])
    first = next(iter(site.datasets.values()))
    site.channel.handlers["GetDataset"] = lambda request: datasets_pb2.GetDatasetResponse(
        dataset=renamed(other, first.id)
    )
    with pytest.raises(BindingError):
        site.client().jobs.submit({**wanted, "training_dataset": first.id})
    assert {} == site.jobs


def renamed(dataset, dataset_id):
    """The same sealed object under another id, as only a liar would show it."""
    made = datasets_pb2.Dataset()
    made.CopyFrom(dataset)
    made.id = dataset_id
    return made


def test_swapped_trailer(site, spec):
    """A trailer that its owner did not sign is refused: the ciphertext behind it could be anything."""
    wanted = spec()
    dataset = next(iter(site.datasets.values()))
    forged = SigningKey.generate().sign(dataset.sealed.trailer.payload_type, dataset.sealed.trailer.payload)
    dataset.sealed.trailer.CopyFrom(statement_to_proto(forged))
    with pytest.raises(SignatureError):
        site.client().jobs.submit(wanted)


def test_swapped_owner(site, spec):
    """A dataset whose manifest names another owner than the one who signed it is refused."""
    wanted = spec()
    dataset = next(iter(site.datasets.values()))
    manifest = Manifest.parse(dataset.sealed.manifest)
    dataset.sealed.manifest = dataclasses.replace(manifest, owner="ben").to_payload()
    with pytest.raises(BindingError):
        site.client().jobs.submit(wanted)


def test_swapped_purpose(site, spec):
    """The purposes that the owner signed count, not those that the control plane shows."""
    wanted = spec()
    next(iter(site.datasets.values())).purposes.append("anything")
    with pytest.raises(PolicyError):
        site.client().jobs.submit({**wanted, "purpose": "anything"})


def test_swapped_base_model(site, spec, model_dir):
    """Another base model in place of the one asked for is refused at submit."""
    wanted = spec()
    (model_dir / "model.safetensors").write_bytes(b"poisoned")
    other = site.client().models.import_dir(model_dir, "poisoned", "MIT", "elsewhere")
    site.channel.handlers["GetModelVersion"] = lambda _: models_pb2.GetModelVersionResponse(
        version=models_pb2.ModelVersion(id=other.id, name="minilm", sealed=other.sealed)
    )
    with pytest.raises(BindingError):
        site.client().jobs.submit(wanted)


def test_dataset_of_another_team(site, spec, rows):
    """A dataset that another team sealed is refused."""
    wanted = spec()
    foreign = site.client("carl").datasets.push(rows, "theirs", ["routing"])
    with pytest.raises(BindingError):
        site.client().jobs.submit({**wanted, "training_dataset": foreign.id})


def test_forged_policy(site, spec):
    """A release policy that no policy key signed is not bound into a job."""
    wanted = spec()
    site.policy = read_policy(POLICY, 30, now=NOW).sign(SigningKey.generate())
    with pytest.raises(SignatureError):
        site.client().jobs.submit(wanted)


def test_old_policy(site, spec):
    """A release policy older than the newest seen is refused."""
    wanted = spec()
    site.client().jobs.submit(wanted)
    site.policy = read_policy(POLICY.replace("version: 2", "version: 1"), 30, now=NOW).sign(site.policy_key)
    with pytest.raises(RollbackError):
        site.client().jobs.submit(wanted)


def test_another_job_queued(site, spec):
    """A control plane that queues something other than was signed is found out."""
    wanted = spec()
    honest = site.CreateJob

    def swaps(request):
        answer = honest(request)
        answer.job.spec = answer.job.spec.replace(b'"42"', b'"43"')
        return answer

    site.channel.handlers["CreateJob"] = swaps
    with pytest.raises(CloisterError):
        site.client().jobs.submit(wanted)


def test_clone_of_a_changed_spec(site, spec):
    """A specification that its member did not sign is not cloned."""
    client = site.client()
    job = client.jobs.submit(spec())
    site.jobs[job.id].spec = job.spec.replace(b'"42"', b'"43"')
    with pytest.raises(BindingError):
        client.jobs.clone(job.id)


def test_tampered_export(site, tmp_path):
    """An export with a changed entry does not verify."""
    client = site.client("dora")
    client.site.refresh()
    checkpoint = site.checkpoint()
    site.entries[0] = site.entries[0].replace(b"site.start", b"site.stop_")
    site.checkpoint = lambda: checkpoint
    with pytest.raises(TamperedError):
        client.audit.export(tmp_path / "log.tar")


def test_export_of_a_shorter_log(site, tmp_path):
    """An export that ends before the head that was kept is a rollback, though it is whole in itself."""
    client = site.client("dora")
    for _ in range(4):
        site.log("job.read")
    client.site.refresh()
    del site.entries[2:]
    with pytest.raises(RollbackError):
        client.audit.export(tmp_path / "log.tar")


def test_approval_of_another_request(site, spec):
    """An approver who asks for one release is not shown another one to sign."""
    client = site.client()
    job = client.jobs.submit(spec())
    site.finish_job(job.id)
    shown = client.models.release(job.id, reason="pilot")
    site.channel.handlers["GetRelease"] = lambda _: models_pb2.GetReleaseResponse(release=shown)
    with pytest.raises(BindingError):
        site.client("ben").models.approve("00000000-0000-4000-8000-999999999999", reason="fine")
