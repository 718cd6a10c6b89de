# SPDX-License-Identifier: Apache-2.0
"""Faults of keys, clocks, connections and disks: one clear line each, nothing half-written, and a way on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cloister import Client
from cloister.admin.admit import admit_person
from cloister.admin.certificates import identity_uri, issue_certificate
from cloister.admin.custody import Custody
from cloister.cli.exits import exit_code_of
from cloister.enrolment import EnrolmentRequest
from cloister.errors import CloisterError
from cloister.evidence.errors import EvidenceError
from cloister.home import Home, install_welcome, keygen
from cloister.tls import generate_tls_key, make_csr, spki_sha256, tls_key_pem
from cloister_dev.layout import SITE, TEAM
from live_site import BIN, LiveSite, Said
from main_job import submit, write_spec
from second_host import publish_roster
from site_log import about, entries_of, verified_log
from tiny_models import classification_rows
from waiting import eventually

DAY = 24 * 3600
LARGE = 48 << 20


def one_line(said: Said, status: int, *words: str) -> None:
    """The command ended with this status and one line on stderr that has these words."""
    assert status == said.status, f"{said.status}\n{said.err}"
    lines = said.err.strip().splitlines()
    assert 1 == len(lines), said.err
    assert [] == [word for word in words if word not in lines[0]], lines[0]


def copied_home(site: LiveSite, directory: Path, person: str = "alice") -> Home:
    """A copy of a home, so that what is broken in it stays broken there."""
    return Home(Path(shutil.copytree(site.layout.home(person), directory / person)))


def said_at(site: LiveSite, home: Home, *arguments: str) -> Said:
    return site.said("alice", *arguments, env={"CLOISTER_HOME": str(home.directory)})


def small_rows(directory: Path) -> Path:
    path = directory / "few.jsonl"
    path.write_bytes(classification_rows(30))
    return path


def large_rows(directory: Path) -> Path:
    """Rows that take a moment to send."""
    path = directory / "many.jsonl"
    row = json.dumps({"text": "alpha " * 20_000, "label": "a"}).encode()
    path.write_bytes(b"\n".join([row] * (LARGE // len(row))))
    return path


def pushing(path: Path, name: str) -> tuple[str, ...]:
    return ("cloister", "dataset", "push", str(path), "--name", name, "--purpose", "triage")


def named(site: LiveSite, name: str) -> list[dict[str, str]]:
    """The datasets of a name, complete or not, as `dataset list` shows them."""
    with Client.open(site.layout.home("alice")) as client:
        return [
            {"id": dataset.id, "ready": str(dataset.state == 2)}
            for dataset in client.datasets.list()
            if json.loads(dataset.sealed.manifest)["name"] == name
        ]


# ------------------------------------------------------------------------------------------------ keys and clocks
def test_an_expired_certificate_is_named(site: LiveSite, tmp_path: Path) -> None:
    """An expired certificate ends with one line that says so; the server refuses it too, and a new one works."""
    home = copied_home(site, tmp_path)
    request = EnrolmentRequest.from_json(home.read("request.json"))
    authority = Custody(site.layout.root).authority()
    names = (identity_uri(SITE, "person", "alice"),)
    past, good = int(time.time()) - 100 * DAY, home.read("tls.crt")
    old = issue_certificate(authority, request.csr_pem, names, 90, now=past)
    (home.directory / "tls.crt").write_text(old)
    one_line(said_at(site, home, "cloister", "dataset", "list"), 2, "certificate expired", "request.json", "enrol")
    assert not server_answers(site, home)  # one that does not look at its own certificate meets the server
    (home.directory / "tls.crt").write_bytes(good)
    assert server_answers(site, home)
    assert 0 == said_at(site, home, "cloister", "dataset", "list").status


def server_answers(site: LiveSite, home: Home) -> bool:
    """Whether the control plane speaks to a bare TLS client with this certificate."""
    host, _, port = home.pins().endpoint.partition(":")
    context = ssl.create_default_context(cadata=home.pins().ca_pem)
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(home.directory / "tls.crt", home.directory / "tls.key")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            return bool(secured.recv(1))
    except (ssl.SSLError, ConnectionError):
        return False


def test_a_key_that_does_not_match_is_named(site: LiveSite, tmp_path: Path) -> None:
    """A TLS key of another certificate ends with one line that names both files."""
    home = copied_home(site, tmp_path)
    (home.directory / "tls.key").write_bytes(tls_key_pem(generate_tls_key()))
    one_line(said_at(site, home, "cloister", "dataset", "list"), 2, "tls.key", "tls.crt")


def test_a_foreign_signing_key_is_refused(site: LiveSite, tmp_path: Path) -> None:
    """What a key that is not on the roster signed is refused by the site, and nothing of it is kept."""
    home = copied_home(site, tmp_path)
    other = Home(tmp_path / "other")
    keygen(other)
    (home.directory / "signing.key").write_bytes(other.read("signing.key"))
    one_line(said_at(site, home, *pushing(small_rows(tmp_path), "foreign")), 6, "sign")
    assert [] == named(site, "foreign")


def test_a_replaced_tls_key_is_pinned_out(site: LiveSite, tmp_path: Path) -> None:
    """Once the roster names another TLS key of a person, their old certificate is not known any more."""
    custody, home = Custody(site.layout.root), Home(tmp_path / "erin")
    request = keygen(home)
    install_welcome(home, admit_person(custody, request, "erin", TEAM, ("member",), now=int(time.time())))
    publish_roster(site)
    assert 0 == said_at(site, home, "cloister", "dataset", "list").status
    draft = custody.draft()
    key = generate_tls_key()
    people = tuple(replace(p, tls_sha256=(spki_sha256(key),)) if p.id == "erin" else p for p in draft.people)
    custody.save_draft(replace(draft, people=people))
    publish_roster(site)
    one_line(said_at(site, home, "cloister", "dataset", "list"), 5, "certificate")
    # The person comes back with the key that the roster names.
    names = (identity_uri(SITE, "person", "erin"),)
    renewed = issue_certificate(custody.authority(), make_csr(key), names, 90, now=int(time.time()))
    (home.directory / "tls.key").write_bytes(tls_key_pem(key))
    (home.directory / "tls.crt").write_text(renewed)
    assert 0 == said_at(site, home, "cloister", "dataset", "list").status


def test_a_clock_that_runs_ahead_is_named(site: LiveSite, tmp_path: Path) -> None:
    """What is signed twenty minutes ahead is refused with a word about the clock; set right, the same push works."""
    rows = small_rows(tmp_path)
    with (
        Client.open(site.layout.home("alice"), clock=lambda: int(time.time()) + 1200) as client,
        pytest.raises((CloisterError, EvidenceError)) as refused,
    ):
        client.datasets.push(rows, "ahead", ["triage"])
    assert 6 == exit_code_of(refused.value)
    assert "clock" in str(refused.value)
    assert [] == named(site, "ahead")
    site.ok("alice", *pushing(rows, "ahead"))
    assert ["True"] == [found["ready"] for found in named(site, "ahead")]


# ------------------------------------------------------------------------------------------------ interrupted pushes
@contextmanager
def push_in_flight(site: LiveSite, path: Path, name: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A push of which the server holds a part: the process, stopped, and the part."""
    environment = {**os.environ, "CLOISTER_HOME": str(site.layout.home("alice")), "COLUMNS": "200"}
    command = [str(BIN / "cloister"), *pushing(path, name)[1:]]
    partial = site.layout.server / "blobs" / "partial"
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            part = eventually(lambda: _growing(partial), "a part of the blob", pause=0.001)
            process.send_signal(signal.SIGSTOP)
            yield process, part
        finally:
            process.kill()


def _growing(partial: Path) -> Path | None:
    for path in partial.iterdir():
        if path.stat().st_size > 0:
            return path
    return None


def test_a_killed_push_goes_on_where_it_stood(site: LiveSite, tmp_path: Path) -> None:
    """After kill -9 of a client in mid-upload the same command sends the rest of the same object."""
    path = large_rows(tmp_path)
    with push_in_flight(site, path, "killed-push") as (process, part):
        process.kill()
        process.wait()
        assert part.exists()
        object_id = part.name
    assert [{"id": object_id, "ready": "False"}] == named(site, "killed-push")
    held = part.stat().st_size
    assert 0 < held < LARGE
    assert object_id == site.ok("alice", *pushing(path, "killed-push")).out.strip()
    assert [{"id": object_id, "ready": "True"}] == named(site, "killed-push")
    assert not part.exists()


def test_a_server_that_dies_during_a_push_is_named(site: LiveSite, tmp_path: Path) -> None:
    """A push whose server went away ends with status 3 and one line; run again later, it completes."""
    path = large_rows(tmp_path)
    try:
        with push_in_flight(site, path, "server-gone") as (process, part):
            site.kill("server")
            process.send_signal(signal.SIGCONT)
            said = Said(process.wait(90), "", process.stderr.read() if process.stderr else "")
            object_id = part.name
        one_line(said, 3, "cannot be reached")
    finally:
        site.start("server")
    assert object_id == site.ok("alice", *pushing(path, "server-gone")).out.strip()
    assert [{"id": object_id, "ready": "True"}] == named(site, "server-gone")


# ------------------------------------------------------------------------------------------------ disks and files
def test_a_full_store_says_so(site: LiveSite, tmp_path: Path) -> None:
    """A store without room refuses an upload in one line that says who must act; with room, the same push works."""
    config = site.layout.server_config
    good = config.read_text()
    rows = small_rows(tmp_path)
    site.stop("server")
    config.write_text(good.replace("reserve_bytes = 268435456", f"reserve_bytes = {1 << 50}"))
    try:
        site.start("server")
        one_line(site.said("alice", *pushing(rows, "full")), 1, "no room", "administrator")
        assert ["False"] == [found["ready"] for found in named(site, "full")]
    finally:
        site.stop("server")
        config.write_text(good)
        site.start("server")
    site.ok("alice", *pushing(rows, "full"))
    assert ["True"] == [found["ready"] for found in named(site, "full")]


def importing(folder: Path) -> tuple[str, ...]:
    return ("cloister", "model", "import", str(folder), "--name", "odd", "--licence", "x", "--source", "t")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling.py"])
def test_a_model_with_code_in_it_is_refused(site: LiveSite, tiny_model: Path, tmp_path: Path, name: str) -> None:
    """A file that can run code is named, and nothing of the model is sealed."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / name).write_bytes(b"\x80\x04.")
    one_line(site.said("alice", *importing(folder)), 8, name, "remove it")


def test_a_model_without_safetensors_is_refused(site: LiveSite, tiny_model: Path, tmp_path: Path) -> None:
    """A folder without weights in safetensors is refused before anything is sealed."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))
    one_line(site.said("alice", *importing(folder)), 2, "safetensors")


@contextmanager
def damaged(blob: Path, how: str) -> Iterator[None]:
    """What a failing disk, or a hand in the store, does; healed afterwards, for the tests that share the site."""
    good = blob.read_bytes()
    data = bytearray(good)
    if how == "cut":
        del data[-100:]
    else:
        data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    try:
        yield
    finally:
        blob.write_bytes(good)


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_blob_is_never_opened(site: LiveSite, tmp_path: Path, how: str) -> None:
    """A blob that was changed on the server's disk ends the job with a clear error, before anything is opened."""
    name = f"blob-{how}"
    object_id = site.ok("alice", *pushing(small_rows(tmp_path), name)).out.strip()
    (blob,) = (site.layout.server / "blobs" / "blobs").glob(f"*/*.{object_id}")
    spec = write_spec(tmp_path, name, attempts=1)
    spec.write_text(spec.read_text().replace("training_dataset: rows", f"training_dataset: {name}"))
    with damaged(blob, how):
        job_id = submit(site, spec)
        said = site.said("alice", "cloister", "job", "watch", job_id)
    assert 7 == said.status
    job = site.read("alice", "cloister", "job", "show", job_id)
    assert ("JOB_STATE_FAILED", "BLOB_DAMAGED") == (job["state"], job["error"]["code"])  # type: ignore[index]
    verified_log(site, tmp_path)
    actions = [entry["action"] for entry in about(entries_of(tmp_path / "log.tar"), job_id)]
    assert "job.open" not in actions
    assert 1 == actions.count("job.end")
