# SPDX-License-Identifier: Apache-2.0
"""Uploads over real mTLS: resuming, verifying, refusing, deleting."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from cloister.api.v1 import blobs_pb2, datasets_pb2
from cloister.evidence.manifest import Trailer
from cloister_server.journal import Journal
from cloister_server.recovery import reconcile
from cloister_server.registry import objects
from served_site import Founded, ServedSite, refusal, served, sqlite_url
from site_objects import Made, create_dataset, owned, push_dataset, upload


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    directory: Path = tmp_path_factory.mktemp("site")
    with served(Founded(directory), sqlite_url(directory), Journal(io.StringIO())) as site:
        yield site


@pytest.fixture
def made(live: ServedSite) -> Made:
    """A dataset that is registered and not uploaded."""
    dataset = owned(live.founded, "alice", size=200_000)
    create_dataset(live.caller("alice"), dataset)
    return dataset


def progress(live: ServedSite, made: Made) -> blobs_pb2.GetUploadResponse:
    return live.caller("alice").blobs.GetUpload(blobs_pb2.GetUploadRequest(object_id=made.id), timeout=30)


def write(live: ServedSite, made: Made, offset: int, data: bytes, name: str = "alice") -> blobs_pb2.WriteBlobResponse:
    message = blobs_pb2.WriteBlobRequest(object_id=made.id, offset=offset, data=data)
    return live.caller(name).blobs.WriteBlob(iter([message]), timeout=30)


def test_an_upload_goes_on_where_it_stopped(live: ServedSite, made: Made) -> None:
    """After a broken stream the client asks for committed_size and continues; the whole is verified at the end."""
    first = write(live, made, 0, made.ciphertext[:70_000])
    assert (70_000, False) == (first.committed_size, first.complete)
    asked = progress(live, made)
    assert (70_000, 200_000, False) == (asked.committed_size, asked.size, asked.complete)
    assert upload(live.caller("alice"), made, start=70_000).complete
    assert progress(live, made).complete


def test_a_gap_or_an_overlap_is_refused(live: ServedSite, made: Made) -> None:
    """Data that do not start at committed_size are OFFSET_MISMATCH, and what was there stays."""
    write(live, made, 0, made.ciphertext[:1000])
    for offset in (0, 999, 1001):
        refused = refusal(lambda offset=offset: write(live, made, offset, b"x"))  # type: ignore[misc]
        assert ("OFFSET_MISMATCH", "1000") == (refused.reason, refused.metadata["committed"])
    assert 1000 == progress(live, made).committed_size


def test_wrong_bytes_are_discarded(live: ServedSite, made: Made) -> None:
    """An upload with another digest is DATA_LOSS and starts again from nothing."""
    refused = refusal(lambda: write(live, made, 0, bytes(200_000)))
    assert (grpc.StatusCode.DATA_LOSS, "DIGEST_MISMATCH") == (refused.code, refused.reason)
    assert (0, False) == (progress(live, made).committed_size, progress(live, made).complete)
    assert upload(live.caller("alice"), made).complete


def test_more_bytes_than_declared_are_refused(live: ServedSite, made: Made) -> None:
    """An upload cannot outgrow the size of its signed trailer."""
    assert "OFFSET_MISMATCH" == refusal(lambda: write(live, made, 0, bytes(200_001))).reason


def test_a_complete_upload_may_be_finished_again(live: ServedSite, made: Made) -> None:
    """A client that did not hear of the end sends an empty message and is told that it is complete."""
    upload(live.caller("alice"), made)
    assert write(live, made, 200_000, b"").complete
    assert 1 == len(live.entries(action="dataset.ready", object_id=made.id))


def test_an_incomplete_blob_is_read_by_nobody(live: ServedSite, made: Made) -> None:
    """Until the digest was verified the blob is BLOB_INCOMPLETE, however much of it is there."""
    write(live, made, 0, made.ciphertext[:1000])
    request = blobs_pb2.ReadBlobRequest(object_id=made.id)
    assert "BLOB_INCOMPLETE" == refusal(lambda: live.caller("alice").blobs.ReadBlob(request, timeout=30)).reason


def test_a_blob_is_read_from_any_offset(live: ServedSite) -> None:
    """A reader that was cut off goes on from the last byte that it has."""
    made = push_dataset(live, "alice", size=700_000)
    request = blobs_pb2.ReadBlobRequest(object_id=made.id, offset=300_001)
    parts = [part.data for part in live.caller("alice").blobs.ReadBlob(request, timeout=30)]
    assert made.ciphertext[300_001:] == b"".join(parts)
    assert max(len(part) for part in parts) <= 256 * 1024


def test_claiming_another_teams_digest_gives_nothing(live: ServedSite) -> None:
    """A trailer that names the digest of another team's blob does not make that blob readable."""
    theirs = push_dataset(live, "gina")
    mine = owned(live.founded, "alice")
    trailer = Trailer.parse(mine.sealed.trailer.payload)
    stolen = replace(trailer, ciphertext_sha256=Trailer.parse(theirs.sealed.trailer.payload).ciphertext_sha256)
    sealed = replace(mine.sealed, trailer=stolen.sign(live.founded.people["alice"].signing))
    mine = replace(mine, sealed=sealed)
    create_dataset(live.caller("alice"), mine)
    assert not progress(live, mine).complete
    request = blobs_pb2.ReadBlobRequest(object_id=mine.id)
    assert "BLOB_INCOMPLETE" == refusal(lambda: live.caller("alice").blobs.ReadBlob(request, timeout=30)).reason


def test_a_deleted_dataset_leaves_no_bytes_and_no_wraps(live: ServedSite) -> None:
    """Deleting removes ciphertext and wraps; the register entry stays, and doing it again changes nothing."""
    made, alice = push_dataset(live, "alice"), live.caller("alice")
    for _ in range(2):
        request = datasets_pb2.DeleteDatasetRequest(id=made.id)
        dataset = alice.datasets.DeleteDataset(request, timeout=30).dataset
        assert (datasets_pb2.DATASET_STATE_DELETED, []) == (dataset.state, list(dataset.recipient_key_ids))
    assert [] == [blob for blob in live.site.store.blobs() if blob.object_id == made.id]
    assert 1 == len(live.entries(action="dataset.delete", object_id=made.id))
    read = blobs_pb2.ReadBlobRequest(object_id=made.id)
    assert "NOT_FOUND" == refusal(lambda: alice.blobs.ReadBlob(read, timeout=30)).reason


def test_recovery_records_a_blob_that_was_renamed_only(live: ServedSite, made: Made) -> None:
    """A blob that a crash left complete but unrecorded becomes READY at the next start."""
    store = live.site.store
    with live.database.reader.connect() as connection:
        row = objects.find(connection, made.id)
    assert row is not None
    declared = objects.declared(row)
    store.append(declared, 0, made.ciphertext, sync=True)
    store.complete(declared)
    assert not progress(live, made).complete
    found = reconcile(live.site.unit_of_work, store, live.site.uploads)
    assert 1 == found.recorded
    assert progress(live, made).complete
    assert 1 == len(live.entries(action="dataset.ready", object_id=made.id))


def test_recovery_discards_what_nobody_wants(live: ServedSite) -> None:
    """A partial file of a finished or unknown object goes away at the next start."""
    made = push_dataset(live, "alice")
    partial = live.founded.directory / "store" / "partial"
    (partial / made.id).write_bytes(b"left over")
    (partial / "unknown-object").write_bytes(b"left over")
    found = reconcile(live.site.unit_of_work, live.site.store, live.site.uploads)
    assert 2 == found.discarded
    assert progress(live, made).complete
