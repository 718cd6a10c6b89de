# SPDX-License-Identifier: Apache-2.0
"""Jobs on an adapted version: what is verified, signed and refused before anything is sent."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from cloister.api.v1 import models_pb2
from cloister.errors import UsageError
from cloister.evidence.authorisation import Authorisation, ObjectReference
from cloister.evidence.errors import BindingError, PolicyError, RosterError, SignatureError
from cloister.evidence.manifest import Manifest
from cloister.evidence.result import Result
from cloister.evidence.signatures import SigningKey
from cloister.wire import statement_from_proto, statement_to_proto
from memory_site import ADAPTER

NEXT = {"training_dataset": "tickets", "purpose": "routing", "suffix": "second", "method": {"classification": {}}}
LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["query"]}


@pytest.fixture
def first(site, spec):
    """A finished job named helpdesk."""
    job = site.client().jobs.submit({**spec(), "adapter": {"lora": LORA}})
    site.finish_job(job.id)
    return job


def signed_by(job):
    return Authorisation.parse(job.authorisation.payload)


def layer_of(site, job_id):
    sealed = site.versions[job_id].sealed
    digest = statement_from_proto(sealed.trailer).digest
    return ObjectReference(Manifest.parse(sealed.manifest).id, digest)


def test_a_version_is_signed_as_its_base_and_its_layer(site, first):
    """The authorisation names the first job's base and its export; the spec names the version."""
    second = site.client().jobs.submit({**NEXT, "model": "helpdesk"})
    assert signed_by(first).model == signed_by(second).model
    assert (layer_of(site, first.id),) == signed_by(second).model_layers
    assert first.id == json.loads(second.spec)["model"]


def test_a_version_of_a_version_has_one_layer(site, first):
    """The third generation stands on the base with the second's layer alone."""
    client = site.client()
    second = client.jobs.submit({**NEXT, "model": first.id})
    site.finish_job(second.id)
    third = client.jobs.submit({**NEXT, "model": "second", "suffix": ""})
    assert (layer_of(site, second.id),) == signed_by(third).model_layers
    assert signed_by(first).model == signed_by(third).model
    assert f"second-{third.id[:8]}" == json.loads(third.spec)["suffix"]


def test_a_version_of_a_version_is_released_and_pulled(site, first, tmp_path):
    """Its files come out as they were sealed; the version in between is not needed."""
    client = site.client()
    second = client.jobs.submit({**NEXT, "model": first.id})
    files = {**ADAPTER, "adapter_model.safetensors": b"newer" * 500}
    site.finish_job(second.id, files)
    site.grant(client.models.release("second", reason="pilot").id)
    folder = client.models.pull("second", tmp_path / "out")
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_clone_of_a_job_on_a_version_starts_there_again(site, first):
    """The clone is signed with the same base and layer."""
    client = site.client()
    second = client.jobs.submit({**NEXT, "model": first.id})
    again = client.jobs.clone(second.id)
    assert (signed_by(second).model, signed_by(second).model_layers) == (
        signed_by(again).model,
        signed_by(again).model_layers,
    )


def test_the_adapters_shape_is_spelled_out(site, first):
    """Shape and kind of the adapter that is trained on are signed again; another dropout may be asked for."""
    job = site.client().jobs.submit({**NEXT, "model": first.id, "adapter": {"lora": {"dropout": 0.1}}})
    assert {**LORA, "dropout": 0.1, "rslora": False, "dora": False} == json.loads(job.spec)["adapter"]["lora"]


@pytest.mark.parametrize(
    "change", [{"rank": 8}, {"alpha": 16}, {"target_modules": ["value"]}, {"rslora": True}, {"dora": True}]
)
def test_another_shape_is_refused_before_anything_is_sent(site, first, change):
    """A specification cannot give another shape to an adapter that is there."""
    before = len(site.jobs)
    with pytest.raises(UsageError, match=next(iter(change))):
        site.client().jobs.submit({**NEXT, "model": first.id, "adapter": {"lora": change}})
    assert before == len(site.jobs)


def test_whole_weights_take_any_adapter(site, first):
    """Where the layer is whole weights the adapter is a new one, of any shape."""
    site.finish_job(first.id, {"config.json": b"{}", "model.safetensors": b"weights"})
    job = site.client().jobs.submit({**NEXT, "model": first.id, "adapter": {"lora": {"rank": 32}}})
    assert 32 == json.loads(job.spec)["adapter"]["lora"]["rank"]


def test_another_purpose_than_the_versions_is_refused(site, first, rows):
    """A version learnt from rows that were given for one purpose; it does not serve another."""
    client = site.client()
    client.datasets.push(rows, "free", ["routing", "marketing"])
    wanted = {**NEXT, "model": first.id, "training_dataset": "free", "purpose": "marketing"}
    with pytest.raises(PolicyError, match="made for routing"):
        client.jobs.submit(wanted)


def test_a_base_model_is_still_a_base_model(site, spec):
    """A job on a base model is signed without layers."""
    assert () == signed_by(site.client().jobs.submit(spec())).model_layers


def other_base(site, first, tmp_path):
    """The control plane says that another base, truly signed, is the one of this id."""
    folder = tmp_path / "model"
    (folder / "config.json").write_text('{"other": 1}')
    other = site.client().models.import_dir(folder, "other", "Apache-2.0", "tests")
    honest = site.GetModelVersion

    def lie(request):
        answer = honest(request)
        return models_pb2.GetModelVersionResponse(version=other) if request.id == signed_by(first).model.id else answer

    site.channel.handlers["GetModelVersion"] = lie


def resealed_base(site, first, tmp_path):
    """The same base id, signed again by its owner over something else."""
    base = site.versions[signed_by(first).model.id]
    manifest = dataclasses.replace(Manifest.parse(base.sealed.manifest), name="minilm-2")
    digest = hashlib.sha256(manifest.to_payload()).hexdigest()
    trailer = dataclasses.replace(site.declared[base.id], manifest_sha256=digest)
    base.sealed.manifest = manifest.to_payload()
    base.sealed.trailer.CopyFrom(statement_to_proto(trailer.sign(site.homes["anna"].signing_key())))


def other_layer(site, first, tmp_path):
    """Another job's export in place of this version's."""
    other = site.client().jobs.clone(first.id)
    site.versions[first.id].sealed.CopyFrom(site.finish_job(other.id, {"config.json": b"backdoor"}).sealed)


def other_version(site, first, tmp_path):
    """Another job's whole version under this one's id."""
    other = site.client().jobs.clone(first.id)
    site.versions[first.id] = site.finish_job(other.id, {"config.json": b"backdoor"})


def forged_result(site, first, tmp_path):
    """A result that no certified host signed."""
    result = site.versions[first.id].dossier.result
    result.CopyFrom(statement_to_proto(SigningKey.generate().sign(result.payload_type, result.payload)))


def uncertified_host(site, first, tmp_path):
    """A result of a host that is not on the roster."""
    result = site.versions[first.id].dossier.result
    made = dataclasses.replace(Result.parse(result.payload), host="gpu-9").sign(site.host_key)
    result.CopyFrom(statement_to_proto(made))


def called_a_base(site, first, tmp_path):
    """The control plane says that the version is a base model."""
    site.versions[first.id].base = ""
    del site.versions[first.id].layers[:]


@pytest.mark.parametrize(
    ("attack", "error"),
    [
        (other_base, BindingError),
        (resealed_base, BindingError),
        (other_layer, BindingError),
        (other_version, BindingError),
        (forged_result, SignatureError),
        (uncertified_host, RosterError),
        (called_a_base, BindingError),
    ],
)
def test_a_control_plane_that_lies_gets_nothing_signed(site, first, tmp_path, attack, error):
    """One lie about the version, one refusal; no authorisation is sent."""
    attack(site, first, tmp_path)
    before = set(site.jobs)
    with pytest.raises(error):
        site.client().jobs.submit({**NEXT, "model": first.id})
    assert before == set(site.jobs)


def test_a_version_of_another_team_is_refused(site, first):
    """carl of team beta is shown alpha's version and does not sign for it."""
    with pytest.raises(BindingError, match="another job"):
        site.client("carl").models.start(first.id)
