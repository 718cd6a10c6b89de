# SPDX-License-Identifier: Apache-2.0
"""A hostile control plane against a pull: nothing is opened that the host and the release do not prove."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from cloister.api.v1 import models_pb2
from cloister.errors import CloisterError
from cloister.evidence.errors import (
    BindingError,
    RosterError,
    SignatureError,
    TamperedError,
)
from cloister.evidence.manifest import Manifest
from cloister.evidence.release import ReleaseRequest
from cloister.evidence.result import Result
from cloister.evidence.signatures import SigningKey
from cloister.sealed import keys
from cloister.sealed.errors import DigestMismatchError, SealedError
from cloister.sealed.keys import Identity
from cloister.wire import statement_from_proto, statement_to_proto


def released(site, spec, tmp_path):
    """A job whose result is released to anna; nothing is pulled yet."""
    client = site.client()
    job = client.jobs.submit(spec())
    site.finish_job(job.id)
    release = client.models.release(job.id, reason="pilot")
    return client, job, site.grant(release.id)


def nothing_left(site, tmp_path):
    assert not (tmp_path / "out").exists()
    assert [] == [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_swapped_adapter(site, spec, tmp_path):
    """Another job's adapter in place of the released one is refused."""
    client, job, _ = released(site, spec, tmp_path)
    other = client.jobs.clone(job.id)
    swapped = site.finish_job(other.id, {"adapter_model.safetensors": b"backdoor"})
    site.versions[job.id].sealed.CopyFrom(swapped.sealed)
    with pytest.raises(BindingError):
        client.models.pull(job.id, tmp_path / "out")
    nothing_left(site, tmp_path)


def test_swapped_version(site, spec, tmp_path):
    """A version that another job made, under the name that was asked for, is refused."""
    client, job, _ = released(site, spec, tmp_path)
    other = client.jobs.clone(job.id)
    swapped = site.finish_job(other.id)
    site.channel.handlers["GetModelVersion"] = lambda _: models_pb2.GetModelVersionResponse(version=swapped)
    with pytest.raises(BindingError):
        client.models.pull("helpdesk", tmp_path / "out")


def test_forged_result(site, spec, tmp_path):
    """A result that no certified host signed is refused."""
    client, job, _ = released(site, spec, tmp_path)
    result = site.versions[job.id].dossier.result
    result.CopyFrom(statement_to_proto(SigningKey.generate().sign(result.payload_type, result.payload)))
    with pytest.raises(SignatureError):
        client.models.pull(job.id, tmp_path / "out")


def test_result_of_an_uncertified_host(site, spec, tmp_path):
    """A result of a host that the roster does not name is refused."""
    client, job, _ = released(site, spec, tmp_path)
    result = site.versions[job.id].dossier.result
    made = dataclasses.replace(Result.parse(result.payload), host="gpu-9").sign(site.host_key)
    result.CopyFrom(statement_to_proto(made))
    with pytest.raises(RosterError):
        client.models.pull(job.id, tmp_path / "out")


def test_swapped_ciphertext(site, spec, tmp_path):
    """Ciphertext of the right length with other bytes is refused, and nothing is unpacked or kept."""
    client, job, _ = released(site, spec, tmp_path)
    object_id = Manifest.parse(site.versions[job.id].sealed.manifest).id
    site.blobs[object_id][100] ^= 1
    with pytest.raises(SealedError):
        client.models.pull(job.id, tmp_path / "out")
    nothing_left(site, tmp_path)
    assert [] == list(site.homes["anna"].cache.iterdir())


def test_genuine_ciphertext_of_another_sealing(site, spec, tmp_path):
    """Ciphertext that opens, but is not the one of the signed trailer, is refused."""
    import io

    from cloister.sealed.payload import seal_stream

    client, job, _ = released(site, spec, tmp_path)
    dek, bound_to = site.deks[job.id]
    object_id = Manifest.parse(site.versions[job.id].sealed.manifest).id
    plain, sealed = io.BytesIO(bytes(site.versions[job.id].size)), io.BytesIO()
    seal_stream(plain, sealed, dek, bound_to)
    site.blobs[object_id] = bytearray(sealed.getvalue()[: site.versions[job.id].size])
    with pytest.raises(SealedError) as caught:
        client.models.pull(job.id, tmp_path / "out")
    assert isinstance(caught.value, SealedError | DigestMismatchError)
    nothing_left(site, tmp_path)


def test_endless_blob(site, spec, tmp_path):
    """A blob longer than was signed for does not fill the disk."""
    client, job, _ = released(site, spec, tmp_path)
    chunk = b"x" * 4096
    site.channel.handlers["ReadBlob"] = lambda _: (blob(chunk) for _ in itertools.count())
    with pytest.raises(CloisterError, match="more than"):
        client.models.pull(job.id, tmp_path / "out")
    nothing_left(site, tmp_path)


def blob(data):
    from cloister.api.v1 import blobs_pb2

    return blobs_pb2.ReadBlobResponse(data=data)


def test_swapped_wrap(site, spec, tmp_path):
    """A wrap that the host did not release is refused, though it opens with the right key."""
    client, job, release = released(site, spec, tmp_path)
    dek, bound_to = site.deks[job.id]
    recipient = Identity.parse(site.homes["anna"].recipient_secret()).recipient
    release.wrap.wrap = keys.wrap(dek, recipient, bound_to)
    with pytest.raises(BindingError, match="wrap"):
        client.models.pull(job.id, tmp_path / "out")


def test_forged_release(site, spec, tmp_path):
    """A release that no certified host signed is refused."""
    client, job, release = released(site, spec, tmp_path)
    forged = SigningKey.generate().sign(release.statement.payload_type, release.statement.payload)
    release.statement.CopyFrom(statement_to_proto(forged))
    with pytest.raises(SignatureError):
        client.models.pull(job.id, tmp_path / "out")


def test_release_of_another_request(site, spec, tmp_path):
    """A release that answers another request is refused."""
    client, job, release = released(site, spec, tmp_path)
    asked = ReleaseRequest.parse(release.request.payload)
    other = dataclasses.replace(asked, reason="other").sign(site.homes["anna"].signing_key())
    release.request.CopyFrom(statement_to_proto(other))
    with pytest.raises(BindingError):
        client.models.pull(job.id, tmp_path / "out")


def test_release_of_another_version(site, spec, tmp_path):
    """An old release is not carried over to another version."""
    client, job, release = released(site, spec, tmp_path)
    other = client.jobs.clone(job.id)
    site.finish_job(other.id)
    release.model_version = other.id
    with pytest.raises(BindingError, match="another result"):
        client.models.pull(other.id, tmp_path / "out")


def test_release_under_another_policy(site, spec, tmp_path):
    """A release under another policy than the job was signed under is refused."""
    client, job, release = released(site, spec, tmp_path)
    site.grant(release.id, policy_sha256="0" * 64)
    with pytest.raises(BindingError, match="policy"):
        client.models.pull(job.id, tmp_path / "out")


def test_wrong_files_inside(site, spec, tmp_path):
    """Files other than those that the result names are not kept, though everything opens."""
    client = site.client()
    job = client.jobs.submit(spec())
    version = site.finish_job(job.id)
    said = Result.parse(version.dossier.result.payload)
    lying = dataclasses.replace(said, files_sha256="0" * 64).sign(site.host_key)
    version.dossier.result.CopyFrom(statement_to_proto(lying))
    site.grant(client.models.release(job.id, reason="pilot").id)
    with pytest.raises(TamperedError):
        client.models.pull(job.id, tmp_path / "out")
    nothing_left(site, tmp_path)


def test_release_statement_is_of_the_signed_object(site, spec, tmp_path):
    """The honest path still opens after all of this: the checks refuse attacks, not releases."""
    client, job, release = released(site, spec, tmp_path)
    assert statement_from_proto(release.statement).payload
    assert (tmp_path / "out") == client.models.pull(job.id, tmp_path / "out")
