# SPDX-License-Identifier: Apache-2.0
"""The key agent as a real process, used as an honest agent uses it, and what a broken one would meet."""

import array
import io
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from builders import Site
from cloister.evidence.manifest import Manifest, verify_object
from cloister.evidence.release import verify_release
from cloister.evidence.result import verify_result
from cloister.sealed import keys
from cloister.sealed.bundle import read_bundle, write_bundle
from cloister.sealed.payload import open_stream
from cloister_workers.keyagent import client, protocol
from cloister_workers.keyagent.errors import KeyAgentGone, Refused
from cloister_workers.keyagent.protocol import socket_address
from keyagent_process import RunningKeyAgent, decrypt, running_keyagent, seal, write_directory


@pytest.fixture
def site() -> Site:
    return Site(int(time.time()))


@pytest.fixture
def agent(site: Site, tmp_path: Path) -> Iterator[RunningKeyAgent]:
    with running_keyagent(write_directory(tmp_path / "host", site)) as running:
        yield running


def bundle(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    write_bundle(list(files.items()), sink)
    return sink.getvalue()


def test_an_approved_job_gets_its_plaintext(site: Site, agent: RunningKeyAgent) -> None:
    """After an honest opening, every input flows as it was sealed, and the highest roster and head are remembered."""
    rows = b"".join(b'{"text":"row %d","label":"x"}\n' % n for n in range(5000))
    training, evaluation = site.dataset(rows), site.dataset()
    job = site.job(training=training, evaluation=evaluation)
    session = agent.open_job(site, site.opening(job))
    assert decrypt(session, training, site.hosts["host-1"]) == rows
    assert decrypt(session, evaluation, site.hosts["host-1"]) == b'{"text":"a","label":"b"}\n'
    assert (
        session.files_sha256[job.inputs[0].id] == Manifest.parse(job.inputs[0].object.manifest).details["files_sha256"]
    )
    status = agent.status()
    assert (status.roster_version, status.checkpoint_size, status.host) == (1, 1, "host-1")
    session.close()


def test_a_result_is_sealed_to_every_host_of_the_pool_alone(site: Site, agent: RunningKeyAgent) -> None:
    """What is sealed verifies as this host's, opens for each host of the pool, and for nobody else."""
    job = site.job()
    content = bundle({"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights" * 9999})
    session = agent.open_job(site, site.opening(job))
    made, ciphertext = seal(session, "export", content)
    session.close()
    assert made.result is not None
    found = verify_object(made.object, site.roster, now=int(time.time()))
    result = verify_result(
        made.result, site.roster, kind="export", authorisation_sha256=job.statement.digest, now=int(time.time())
    )
    assert (found.manifest.owner, found.manifest.kind, found.manifest.name) == ("host-1", "export", "helpdesk")
    assert (result.trailer_sha256, result.object_id) == (made.object.trailer.digest, made.object_id)
    assert (result.metrics, result.metrics_before) == ({"eval_accuracy": "0.9"}, {"eval_accuracy": "0.125"})
    assert result.files_sha256 == made.files_sha256 == found.manifest.details["files_sha256"]
    identities = {held.identity.recipient.key_id: held.identity for held in site.hosts.values()}
    assert {wrap.recipient_key_id for wrap in made.wraps} == set(identities)
    for wrap in made.wraps:
        dek = keys.unwrap(wrap.wrap, identities[wrap.recipient_key_id], found.context)
        sink = io.BytesIO()
        open_stream(io.BytesIO(ciphertext), sink, dek, found.context, expected_sha256=found.trailer.ciphertext_sha256)
        assert sink.getvalue() == content


def test_what_stands_between_the_files_of_a_bundle_is_not_sealed(
    site: Site, agent: RunningKeyAgent, tmp_path: Path
) -> None:
    """Bytes that a trainer hides in padding or behind the end of its tar do not leave the host."""
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("config.json")
        entry.size, entry.uname, entry.mtime = 2, "SECRET-NAME", 7
        tar.addfile(entry, io.BytesIO(b"{}"))
    session = agent.open_job(site, site.opening(site.job()))
    made, ciphertext = seal(session, "state", archive.getvalue() + b"SECRET-TAIL")
    session.close()
    wrap = next(w for w in made.wraps if w.recipient_key_id == site.hosts["host-1"].identity.recipient.key_id)
    bound_to = verify_object(made.object, site.roster, now=int(time.time())).context
    sink = io.BytesIO()
    open_stream(io.BytesIO(ciphertext), sink, keys.unwrap(wrap.wrap, site.hosts["host-1"].identity, bound_to), bound_to)
    assert b"SECRET" not in sink.getvalue()
    sink.seek(0)
    assert [item.name for item in read_bundle(sink, tmp_path)] == ["config.json"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"model.bin": b"pickle"}, "FILE_NOT_ALLOWED"),
        ({"a/b/config.json": b"{}"}, "UNSAFE_NAME"),
        ({}, "BAD_BUNDLE"),
    ],
)
def test_bundles_of_other_files_are_refused(
    site: Site, agent: RunningKeyAgent, files: dict[str, bytes], reason: str
) -> None:
    """A host seals weights, JSON and tokenizer files, and nothing else."""
    import tarfile

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    session = agent.open_job(site, site.opening(site.job()))
    with pytest.raises(Refused) as refused:
        seal(session, "export", archive.getvalue())
    session.close()
    assert (refused.value.code, str(refused.value)) == (reason, "the trainer's bundle was refused")


def test_memory_that_can_still_change_is_not_sealed(site: Site, agent: RunningKeyAgent) -> None:
    """What is checked must be what is sealed, so a writable memfd is refused."""
    session = agent.open_job(site, site.opening(site.job()))
    source, target = os.memfd_create("bundle", os.MFD_ALLOW_SEALING), os.memfd_create("out")
    with pytest.raises(Refused) as refused:
        session.seal("state", 1, {}, {}, source, target)
    session.close()
    os.close(source)
    os.close(target)
    assert refused.value.code == "BAD_REQUEST"


def test_metrics_outside_the_closed_list_are_refused(site: Site, agent: RunningKeyAgent) -> None:
    """A name of a metric is a channel to the control plane: only the trainer's closed list passes."""
    session = agent.open_job(site, site.opening(site.job()))
    source, target = os.memfd_create("bundle"), os.memfd_create("out")
    with pytest.raises(Refused) as refused:
        session.seal("state", 1, {"a customer's name": 1.0}, {}, source, target)
    session.close()
    os.close(source)
    os.close(target)
    assert refused.value.code == "BAD_REQUEST"


def test_a_release_reaches_the_recipient_of_the_roster(site: Site, agent: RunningKeyAgent) -> None:
    """The wrap opens for the named person, and the host's statement says so to them."""
    job, version = site.job(), site.export(b"the model")
    opening = site.release(job, version, site.result(job, version))
    connection = client.Connection(agent.paths.socket)
    granted = client.open_release(connection, opening, site.sign_roster(), version.wrap_for(site.hosts["host-1"]))
    connection.close()
    rita = site.people["rita"]
    bound_to = verify_object(version.object, site.roster, now=int(time.time())).context
    assert keys.unwrap(granted.wrap.wrap, rita.identity, bound_to) == version.dek
    release = verify_release(
        granted.statement,
        opening.request,
        granted.wrap.wrap,
        site.roster,
        recipient_key_id=rita.identity.recipient.key_id,
        now=int(time.time()),
    )
    assert (release.host, release.auto_release) == ("host-1", True)


def test_a_session_ends_with_its_connection(site: Site, agent: RunningKeyAgent) -> None:
    """When the connection that opened a job ends, its session opens nothing more."""
    job = site.job()
    session = agent.open_job(site, site.opening(job))
    name = session._session
    session._connection.close()
    probe = client.Connection(agent.paths.socket)
    while True:
        # The key agent sees the end of the connection a moment later; a session that still lives seals nothing here.
        with pytest.raises(Refused) as refused:
            probe.ask("decrypt", {"session": name, "object_id": "none", "wrap": ""})
        if refused.value.code == "UNKNOWN_SESSION":
            break
    probe.close()


def test_what_was_opened_is_remembered_across_a_kill(site: Site, tmp_path: Path) -> None:
    """After SIGKILL right behind an opening, the same attempt is refused by the next process, and the next is not."""
    paths = write_directory(tmp_path / "host", site)
    job = site.job()
    opening = site.opening(job)
    with running_keyagent(paths) as first:
        session = first.open_job(site, opening)
        first.kill()
        session.close()
    with running_keyagent(paths) as second:
        with pytest.raises(Refused) as refused:
            second.open_job(site, opening)
        assert refused.value.code == "REPLAY"
        second.open_job(site, site.opening(job, attempt=2, since=1)).close()


def test_a_host_without_memory_does_not_start(site: Site, tmp_path: Path) -> None:
    """A missing or damaged state file is an error, never an empty memory."""
    paths = write_directory(tmp_path / "host", site)
    for damage in (b"", b"{}", b'{"roster_version": -1}'):
        (paths.keyagent / "state.json").write_bytes(damage)
        assert b"is damaged" in start_and_fail(paths.root)
    (paths.keyagent / "state.json").unlink()
    assert b"state.json" in start_and_fail(paths.root)


def test_keys_that_others_can_read_are_not_used(site: Site, tmp_path: Path) -> None:
    """A key file with a mode beyond 0600 stops the key agent."""
    paths = write_directory(tmp_path / "host", site)
    (paths.keyagent / "sealing.key").chmod(0o640)
    assert b"can be read by others" in start_and_fail(paths.root)


def start_and_fail(root: Path) -> bytes:
    command = [sys.executable, "-m", "cloister_workers", "keyagent", "--dir", str(root)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    ended = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
    assert ended.returncode == 1
    return ended.stderr


def test_one_directory_has_one_key_agent(site: Site, agent: RunningKeyAgent) -> None:
    """A second key agent on the same directory does not start, and the first goes on."""
    assert b"another key agent runs" in start_and_fail(agent.paths.root)
    assert agent.status().host == "host-1"


def test_other_users_are_refused(site: Site, tmp_path: Path) -> None:
    """A peer whose uid is not the agent's gets no answer, although the socket's mode lets it in."""
    paths = write_directory(tmp_path / "host", site)
    somebody_else = str(os.getuid() + 1)
    with running_keyagent(paths, "--agent-user", somebody_else) as running, pytest.raises((KeyAgentGone, OSError)):
        running.status()
    assert any(line.get("event") == "peer_refused" for line in running.log)


def test_the_process_is_hardened_and_small(agent: RunningKeyAgent) -> None:
    """No core file, nobody of the same user may look into it, and neither torch nor grpc is loaded."""
    pid = agent.process.pid
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    mapped = Path(f"/proc/{pid}/maps").read_text()
    assert not [name for name in ("torch", "grpc", "numpy", "protobuf") if f"/{name}/" in mapped]
    code = (
        "import ctypes, sys; from cloister_workers.keyagent.process import harden; harden(); "
        "loaded = sorted({'torch', 'grpc', 'numpy', 'google'} & set(sys.modules)); "
        "print(loaded, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert ended.stdout.strip() == b"[] 0"


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\x02[]",
        b"\0\0\0\x03NaN",
        b'\0\0\0\x10{"op": "status"',
        b"\0\0\0\x01",
    ],
)
def test_what_is_no_frame_ends_the_connection_only(agent: RunningKeyAgent, data: bytes) -> None:
    """Bytes outside the protocol close their connection, and the key agent goes on."""
    with socket.socket(socket.AF_UNIX) as raw:
        with socket_address(agent.paths.socket) as address:
            raw.connect(address)
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(1) == b""
    assert agent.status().host == "host-1"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"op": "no such"},
        {"op": 7},
        {"op": "open_job"},
        {"op": "open_job", "roster": "!", "opening": {}, "sandboxed": True},
        {"op": "open_release", "opening": []},
        {"op": "update_roster", "roster": "e30="},
    ],
)
def test_malformed_requests_are_answered(agent: RunningKeyAgent, body: dict[str, object]) -> None:
    """A request outside the protocol is refused with a reason, on the same connection."""
    with socket.socket(socket.AF_UNIX) as raw:
        with socket_address(agent.paths.socket) as address:
            raw.connect(address)
        protocol.send(raw, body)
        answer = protocol.receive(raw)
        assert answer is not None
        assert answer.body["error"] in ("BAD_REQUEST", "BAD_FORMAT")
        protocol.send(raw, {"op": "status"})
        again = protocol.receive(raw)
        assert again is not None
        assert again.body["host"] == "host-1"


def test_more_descriptors_than_a_request_has_are_refused(agent: RunningKeyAgent) -> None:
    """Descriptors beyond the protocol's end the connection; none is kept open."""
    null = os.open("/dev/null", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as raw:
        with socket_address(agent.paths.socket) as address:
            raw.connect(address)
        text = json.dumps({"op": "status"}).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 5))]
        raw.sendmsg([len(text).to_bytes(4, "big") + text], rights)
        with suppress(ConnectionResetError):  # it closes without reading the rest
            assert raw.recv(1) == b""
    os.close(null)
    descriptors = Path(f"/proc/{agent.process.pid}/fd")
    assert not [
        entry for entry in descriptors.iterdir() if os.path.realpath(entry) == "/dev/null" and int(entry.name) > 2
    ]


def test_a_reader_that_goes_away_ends_the_stream(site: Site, agent: RunningKeyAgent) -> None:
    """When the trainer's end of the pipe is gone, the transfer fails with a reason and the session lives on."""
    training = site.dataset(b"x" * 3_000_000)
    session = agent.open_job(site, site.opening(site.job(training=training)))
    read_end, write_end = os.pipe()
    os.close(read_end)
    source = os.memfd_create("ciphertext")
    os.write(source, training.ciphertext)
    with pytest.raises(Refused) as refused:
        session.decrypt(training.id, training.wrap_for(site.hosts["host-1"]), source, write_end)
    assert refused.value.code == "READER_GONE"
    os.close(write_end)
    os.close(source)
    assert decrypt(session, training, site.hosts["host-1"]) == b"x" * 3_000_000
    session.close()


def test_a_dead_key_agent_is_noticed(site: Site, agent: RunningKeyAgent) -> None:
    """A client whose key agent was killed learns so at once."""
    session = agent.open_job(site, site.opening(site.job()))
    agent.kill()
    with pytest.raises(KeyAgentGone):
        seal(session, "state", bundle({"config.json": b"{}"}))
    session.close()


def test_logs_hold_no_secret(site: Site, agent: RunningKeyAgent) -> None:
    """What the key agent logs names reasons and documents, never keys or content."""
    training = site.dataset(b'{"text":"CANARY","label":"CANARY"}\n')
    session = agent.open_job(site, site.opening(site.job(training=training)))
    decrypt(session, training, site.hosts["host-1"])
    with pytest.raises(Refused):
        decrypt(session, training, site.hosts["host-1"], ciphertext=b"short")
    session.close()
    agent.kill()
    text = json.dumps(agent.log)
    assert "CANARY" not in text
    assert "SECRET-KEY" not in text
    assert training.dek.hex() not in text


def test_a_deep_folder_is_no_obstacle(site: Site, tmp_path: Path) -> None:
    """The key agent answers although its socket's path is longer than a unix address can be."""
    paths = write_directory(tmp_path.joinpath(*["a-folder-of-some-length"] * 6) / "host", site)
    assert 108 < len(str(paths.socket))
    with running_keyagent(paths) as running:
        assert running.status().host == "host-1"
