# SPDX-License-Identifier: Apache-2.0
"""Pushing files of foreign formats: sealed as rows, resumable, and in plaintext nowhere else."""

from __future__ import annotations

import io
import json

import grpc
import pytest

from cloister.api.v1 import datasets_pb2
from cloister.cli.exits import run
from cloister.cli.main import cli
from cloister.client import Client
from cloister.errors import ConnectError, UsageError
from cloister.evidence.manifest import Manifest, Trailer, context
from cloister.formats.reading import Options
from cloister.formats.stream import RowStream
from cloister.sealed import keys
from cloister.sealed.payload import open_stream
from fake_channel import Refusal
from foreign_files import CROWS, LABELLED, WINOBIAS


@pytest.fixture
def files(tmp_path):
    """CrowS-Pairs, WinoBias and a labelled table."""
    for name, text in (("c.csv", CROWS), ("anti_stereotyped_type1.txt.test", WINOBIAS), ("l.csv", LABELLED)):
        (tmp_path / name).write_text(text)
    return [tmp_path / "c.csv", tmp_path / "anti_stereotyped_type1.txt.test", tmp_path / "l.csv"]


def opened(site, made):
    """The rows as a host of the pool finds them."""
    request = next(call for call in site.created if Manifest.parse(call.sealed.manifest).id == made.id)
    key_id = site.host_identity.recipient.key_id
    wrap = next(entry.wrap for entry in request.wraps if entry.recipient_key_id == key_id)
    bound_to = context(request.sealed.manifest)
    trailer, sink = Trailer.parse(request.sealed.trailer.payload), io.BytesIO()
    open_stream(
        io.BytesIO(bytes(site.blobs[made.id])),
        sink,
        keys.unwrap(wrap, site.host_identity, bound_to),
        bound_to,
        expected_sha256=trailer.ciphertext_sha256,
        expected_size=trailer.ciphertext_size,
    )
    assert trailer.rows == sum(bool(line.strip()) for line in sink.getvalue().splitlines())
    return [json.loads(line) for line in sink.getvalue().splitlines()]


@pytest.fixture
def remembering(site):
    """The site keeps what was asked of it."""
    site.created = []

    def create(request):
        site.created.append(request)
        return site.CreateDataset(request)

    site.channel.handlers["CreateDataset"] = create
    return site


def test_files_become_one_sealed_dataset(remembering, files):
    """A host that opens the dataset finds the rows of all files in order."""
    stream = RowStream(files, options=Options({"gender": "sex"}))
    made = remembering.client().datasets.push(stream, "tests", ["p"])
    assert datasets_pb2.DATASET_STATE_READY == made.state
    rows = opened(remembering, made)
    assert ["crows_pairs"] * 3 + ["winobias"] * 4 + [None] * 2 == [row.get("kind") for row in rows]
    assert {"gender": "m"} == rows[-1]["groups"]


def test_an_interrupted_push_of_converted_files_goes_on(remembering, files, tmp_path):
    """The same files and settings find what was sealed before: one object, and nothing left in the spool."""
    site = remembering
    kept = site.channel.handlers["CreateDataset"]

    def gone(request):
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "gone")

    site.channel.handlers["CreateDataset"] = gone
    with pytest.raises(ConnectError):
        site.client().datasets.push(RowStream(files), "tests", ["p"])
    (spooled,) = site.homes["anna"].spool.iterdir()
    sealed = spooled.read_bytes()
    site.channel.handlers["CreateDataset"] = kept
    made = site.client().datasets.push(RowStream(files), "tests", ["p"])
    assert sealed.endswith(bytes(site.blobs[made.id])[-64:]) or bytes(site.blobs[made.id]) in sealed
    assert [made.id] == list(site.datasets)
    assert [] == list(site.homes["anna"].spool.iterdir())


def test_no_plaintext_is_left_while_a_push_waits(remembering, files, tmp_path):
    """Between sealing and sending no file of the home, and none beside the sources, holds a word of them."""
    site = remembering
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    found: list[object] = []

    def look(request):
        new = [path for path in tmp_path.rglob("*") if path.is_file() and path not in before]
        found.extend(path for path in new if b"brother" in path.read_bytes() or b"baker" in path.read_bytes())
        assert any(path.parent.name == "spool" for path in new)
        return site.CreateDataset(request)

    site.channel.handlers["CreateDataset"] = look
    site.client().datasets.push(RowStream(files), "tests", ["p"])
    assert [] == found


def test_a_converted_file_that_changes_is_refused(site, files):
    """What is sealed is what was checked, also through a reader."""
    stream = RowStream(files)
    stream.check()
    files[0].write_text(CROWS.replace("late", "early"))
    with pytest.raises(UsageError, match="changed while it was sealed"):
        site.client().datasets.push(stream, "d", ["p"])
    assert [] == list(site.homes["anna"].spool.iterdir())


@pytest.fixture
def push(site, monkeypatch, capsys):
    """Run `cloister dataset push`: exit code, standard output, standard error."""
    monkeypatch.setattr(Client, "open", lambda home: site.client(home.name))

    def command(*arguments):
        home = ("--home", str(site.homes["anna"].directory))
        code = run("cloister", cli, ["dataset", "push", *map(str, arguments), "--name", "d", "--purpose", "p", *home])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_the_command_says_which_rows_came_from_where(push, files, site):
    """Format, row numbers and axes of each file go to standard error, the id alone to standard output."""
    code, out, err = push(*files, "--group", "gender=sex")
    assert (0, 1, [out.strip()]) == (code, len(out.splitlines()), list(site.datasets))
    assert "c.csv: crows_pairs, rows 1 to 3: age 1, ethnicity 1, gender 1" in err
    assert "anti_stereotyped_type1.txt.test: winobias, rows 4 to 7" in err
    assert "l.csv: labelled, rows 8 to 9" in err


def test_plain_rows_are_pushed_as_before(push, rows):
    """One file of JSONL says nothing more than its id."""
    code, out, err = push(rows)
    assert (0, 1) == (code, len(out.splitlines()))
    assert "rows.jsonl" not in err


@pytest.mark.parametrize("wrong", [("--group", "gender"), ("--option", "=x"), ("--group", "a=b", "--group", "a=c")])
def test_settings_have_a_name_and_a_value(push, files, wrong):
    """A setting of another form ends with a usage error."""
    code, out, _ = push(files[2], *wrong)
    assert (2, "") == (code, out)


def test_a_named_format_is_taken(push, files, site):
    """--format overrides the look, and one that does not fit is refused with the column that it lacks."""
    code, _, err = push(files[2], "--format", "crows_pairs")
    assert 2 == code
    assert "names no column sent_more" in err
    assert {} == site.datasets
