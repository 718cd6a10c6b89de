# SPDX-License-Identifier: Apache-2.0
"""Pushing: resumable, idempotent, and never half done."""

import grpc
import pytest

from cloister.api.v1 import datasets_pb2
from cloister.errors import ConnectError, NotFoundError, RowsError, UploadError, UsageError
from cloister.evidence.manifest import Manifest
from cloister.formats.stream import RowStream
from cloister.sealed.errors import FileNotAllowedError
from cloister.sealed.filelist import file_list
from fake_channel import Refusal


def breaking_write(site, after):
    """WriteBlob that breaks after so many messages, each time."""
    honest = site.WriteBlob

    def handler(requests):
        def some():
            for number, request in enumerate(requests):
                if number > after:
                    return
                yield request

        honest(some())
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "gone")

    return handler


def big(rows):
    rows.write_bytes(b'{"text": "' + b"x" * 1000 + b'", "label": "a"}\n')
    rows.write_bytes(rows.read_bytes() * 2000)


def test_upload_continues_on_a_bad_line(site, rows):
    """A line that breaks after every piece still carries the whole file, each byte once."""
    big(rows)
    site.channel.handlers["WriteBlob"] = breaking_write(site, 1)
    made = site.client().datasets.push(rows, "d", ["p"])
    assert datasets_pb2.DATASET_STATE_READY == made.state
    assert 8 == site.channel.calls.count("WriteBlob")


def test_second_run_continues(site, rows):
    """After a push that broke off, the same command sends the rest of the same object."""
    big(rows)
    honest = site.channel.handlers["GetUpload"]
    site.channel.handlers["WriteBlob"] = breaking_write(site, 3)
    polls = iter(range(2))

    def goes_away(request):
        if next(polls, None) is None:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "gone")
        return honest(request)

    site.channel.handlers["GetUpload"] = goes_away
    with pytest.raises(ConnectError):
        site.client().datasets.push(rows, "d", ["p"])
    sent = len(next(iter(site.blobs.values())))
    assert 0 < sent < 2_000_000
    site.channel.handlers.update(site.honest)
    made = site.client().datasets.push(rows, "d", ["p"])
    assert [made.id] == list(site.datasets)
    assert [] == list(site.homes["anna"].spool.iterdir())


def test_other_terms_are_another_dataset(site, rows):
    """The same rows under another purpose are sealed anew."""
    first = site.client().datasets.push(rows, "d", ["p"])
    second = site.client().datasets.push(rows, "d", ["q"])
    assert first.id != second.id


def test_spool_of_an_older_pool_is_not_used(site, rows):
    """What was sealed for other hosts than today's is sealed again."""
    from cloister.admin.draft import retire_host
    from cloister.admin.sign import sign_next

    site.channel.handlers["CreateDataset"] = refuse_once(site.CreateDataset)
    with pytest.raises(ConnectError):
        site.client().datasets.push(rows, "d", ["p"])
    site.custody.save_draft(retire_host(site.custody.draft(), "gpu-1", now=site.clock()))
    site.roster = sign_next(site.custody, 30, now=site.clock())
    with pytest.raises(UsageError, match="no certified host"):
        site.client().datasets.push(rows, "d", ["p"])


def refuse_once(honest):
    def handler(request):
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "gone")

    return handler


def test_damaged_spool_is_sealed_anew(site, rows):
    """A spool file that this disk damaged is found out and not used a second time."""
    honest = site.CreateDataset

    def damages(request):
        (spooled,) = site.homes["anna"].spool.iterdir()
        data = bytearray(spooled.read_bytes())
        data[len(data) // 2] ^= 1
        spooled.write_bytes(bytes(data))
        return honest(request)

    site.channel.handlers["CreateDataset"] = damages
    big(rows)
    with pytest.raises(UploadError, match="damaged on this machine"):
        site.client().datasets.push(rows, "d", ["p"])
    assert [] == list(site.homes["anna"].spool.iterdir())


def test_bad_rows_are_never_sealed(site, rows):
    """A bad row stops the push before a byte is sealed or sent."""
    rows.write_bytes(b"not json\n")
    with pytest.raises(RowsError):
        site.client().datasets.push(rows, "d", ["p"])
    assert "CreateDataset" not in site.channel.calls
    assert [] == list(site.homes["anna"].spool.iterdir())


@pytest.mark.parametrize("found", [b"sale", b"\n", b"fires and floods"])
def test_file_changed_while_sealed(site, rows, found):
    """A file that changes between check and seal is refused, also where its rows are bad by then; nothing is left."""
    stream = RowStream([rows])
    stream.check()
    rows.write_bytes(rows.read_bytes().replace(b"fire", found))
    with pytest.raises(UsageError, match="changed while it was sealed"):
        site.client().datasets.push(stream, "d", ["p"])
    assert [] == list(site.homes["anna"].spool.iterdir())


def test_file_name_stays_here(site, rows, tmp_path):
    """The name of the file is nowhere in what is sent."""
    secret = tmp_path / "CANARY-file.jsonl"
    secret.write_bytes(rows.read_bytes())
    made = site.client().datasets.push(secret, "d", ["p"])
    assert b"CANARY" not in made.SerializeToString()


def test_recipients_are_the_rosters(site, rows):
    """A dataset is sealed to the pool's hosts and the team's recovery key, whatever the control plane says."""
    made = site.client().datasets.push(rows, "d", ["p"])
    assert site.host_identity.recipient.key_id == made.recipient_key_ids[0]
    assert 2 == len(made.recipient_key_ids)


def test_names(site, rows):
    """By name the newest that is ready is meant; ids and nonsense are no names."""
    client = site.client()
    client.datasets.push(rows, "d", ["p"])
    site.clock.now += 10
    newer = client.datasets.push(rows, "d", ["q"])
    assert newer.id == client.datasets.get("d").id
    for name in ("", " d", "x" * 101, "a\nb", newer.id):
        with pytest.raises(UsageError):
            client.datasets.push(rows, name, ["p"])
    with pytest.raises(NotFoundError):
        client.datasets.get("unknown")


def test_model_files_are_checked_before_sealing(site, model_dir):
    """A folder with a file that could run code is refused."""
    (model_dir / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(FileNotAllowedError, match=r"pytorch_model\.bin"):
        site.client().models.import_dir(model_dir, "m", "MIT", "x")
    (model_dir / "pytorch_model.bin").unlink()
    (model_dir / "config.json").unlink()
    with pytest.raises(UsageError, match=r"config\.json"):
        site.client().models.import_dir(model_dir, "m", "MIT", "x")


def test_model_changed_while_sealed(site, model_dir, monkeypatch):
    """A model that changes between digest and bundle is refused, and nothing is left."""

    def then_changes(folder, allow):
        files = file_list(folder, allow)
        (folder / "model.safetensors").write_bytes(b"other")
        return files

    monkeypatch.setattr("cloister.models.file_list", then_changes)
    with pytest.raises(UsageError, match="changed"):
        site.client().models.import_dir(model_dir, "m", "MIT", "x")
    assert [] == list(site.homes["anna"].spool.iterdir())


def test_model_manifest(site, model_dir):
    """Licence, source and the digest of the file list are in the signed manifest."""
    version = site.client().models.import_dir(model_dir, "m", "MIT", "x")
    details = Manifest.parse(version.sealed.manifest).details
    assert {"licence", "source", "files_sha256"} == set(details)
