# SPDX-License-Identifier: Apache-2.0
"""Every reader of bytes that come from elsewhere, what it may raise, and something good that it reads."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import struct
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from builders import Site
from carried_readers import backup, enrolment
from cloister.admin.policy import read_policy
from cloister.enrolment import EnrolmentRequest, Welcome
from cloister.errors import CloisterError
from cloister.evidence.authorisation import Authorisation
from cloister.evidence.checkpoint import Checkpoint, open_checkpoint
from cloister.evidence.entry import Entry
from cloister.evidence.errors import EvidenceError
from cloister.evidence.figures import Figures
from cloister.evidence.manifest import Manifest, Trailer
from cloister.evidence.merkle import Frontier, verify_consistency, verify_inclusion
from cloister.evidence.methods import report_method
from cloister.evidence.note import NoteSigner, NoteVerifier, parse_note
from cloister.evidence.policy import Policy
from cloister.evidence.release import Approval, Release, ReleaseRequest
from cloister.evidence.result import Result
from cloister.evidence.revisions import revision_of
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import SigningKey, Statement
from cloister.evidence_export import CHECKPOINT, ENTRIES, verify_export
from cloister.formats import FORMATS
from cloister.formats.reading import Options
from cloister.formats.stream import RowStream
from cloister.rows import row_of
from cloister.sealed.bundle import read_bundle, write_bundle
from cloister.sealed.container import open_container, read_header, write_container
from cloister.sealed.errors import SealedError
from cloister.sealed.keys import Identity, Recipient
from cloister.spec import from_bytes, parse_spec
from cloister.tls import generate_tls_key, load_csr, load_tls_key, make_csr, tls_key_pem
from cloister_server.config import load_config
from cloister_server.errors import ConfigError, ServerError
from cloister_server.queue.spec import read_spec
from cloister_workers import config as worker_config
from cloister_workers.agent.errors import ConfigError as WorkerConfigError
from cloister_workers.keyagent import protocol as keyagent_protocol
from cloister_workers.keyagent.errors import KeyAgentError
from cloister_workers.keyagent.memory import STATE, Memory, Opened, Remembered, write_state
from cloister_workers.messages import Ready
from cloister_workers.protocol import Channel, ProtocolError, Side, encode
from foreign_files import (
    CROWS,
    LABELLED,
    LEXICON,
    PAIRS,
    PREFERENCES,
    STEREOSET,
    WEAT,
    WINOBIAS,
    WINOGENDER,
    bbq_line,
)
from reader import Reader, again, as_file, as_text

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "evidence"
NOW = 1_800_000_000
OPENAI = json.dumps(
    {
        "input": {"messages": [{"role": "user", "content": "a"}]},
        "preferred_output": [{"role": "assistant", "content": "b"}],
        "non_preferred_output": [{"role": "assistant", "content": "c"}],
    }
)
SERVER = f"""\
[site]
name = "hospital.example"
root_public = "{base64.b64encode(bytes(32)).decode()}"
roster_file = "roster.dsse"
[listen]
address = "127.0.0.1:8443"
[tls]
certificate = "tls.crt"
key = "tls.key"
client_ca = "ca.crt"
[database]
url = "sqlite:///cloister.db"
[store]
directory = "blobs"
reserve_bytes = 1000000
[log]
origin = "hospital.example/log"
key_file = "log.key"
[queue]
lease_seconds = 60
sweep_seconds = 0.5
"""


def readers() -> dict[str, Reader]:
    """All of them, by name."""
    parts = (
        _documents(),
        enrolment(),
        backup(),
        _log(Site(NOW)),
        _keys(),
        _sealed(),
        _specs(),
        _frames(),
        _files(),
        _foreign(),
    )
    return {name: reader for part in parts for name, reader in part.items()}


def _input(vector: str, name: str = "statement") -> bytes:
    return base64.b64decode(json.loads((VECTORS / f"{vector}.json").read_text())["inputs"][name])


def _payload(vector: str, name: str = "statement") -> bytes:
    return Statement.from_bytes(_input(vector, name)).payload


def _documents() -> dict[str, Reader]:
    site = Site(NOW)
    request = ReleaseRequest.parse(_payload("release-good", "request"))
    documents: dict[str, tuple[Callable[[bytes], object], bytes]] = {
        "roster": (again(Roster), _payload("roster-good")),
        "manifest": (again(Manifest), _input("object-good", "manifest")),
        "trailer": (again(Trailer), _payload("object-good", "trailer")),
        "revision": (lambda data: revision_of(Manifest.parse(data)), _input("object-revision", "manifest")),
        "authorisation": (again(Authorisation), _payload("authorisation-good-second-model")),
        "policy": (again(Policy), site.policy().payload),
        "figures": (again(Figures), _input("figures-good", "figures")),
        "result": (again(Result), _payload("result-with-report")),
        "release request": (again(ReleaseRequest), request.to_payload()),
        "approval": (again(Approval), Approval(request.release_id, "0" * 64, "bob", "fine", NOW).to_payload()),
        "release": (again(Release), _payload("release-good")),
        "statement": (Statement.from_bytes, _input("roster-good")),
        "method": (report_method, b'{"method":{"evaluation":{}}}'),
    }
    return {name: Reader(read, (EvidenceError,), good) for name, (read, good) in documents.items()}


def _log(site: Site) -> dict[str, Reader]:
    evidence = site.opening(site.job()).evidence
    signer = NoteSigner("test.example/log", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    head = open_checkpoint(evidence.checkpoint, site.log.signer.verifier, site.log.signer.name)

    def inclusion(data: bytes) -> object:
        proof = [data[at : at + 32] for at in range(0, len(data), 32)]
        verify_inclusion(bytes(32), len(data) % 7, len(data) % 11, proof, bytes(32))
        verify_consistency(len(data) % 5, bytes(32), len(data) % 13, bytes(32), proof)
        return None

    return {
        "entry": Reader(Entry.parse, (EvidenceError,), evidence.entry),
        "note": Reader(parse_note, (EvidenceError,), evidence.checkpoint),
        "log head": Reader(
            lambda data: open_checkpoint(data, site.log.signer.verifier, head.origin),
            (EvidenceError,),
            evidence.checkpoint,
        ),
        "checkpoint": Reader(lambda data: Checkpoint.parse(as_text(data)), (EvidenceError,), head.to_text().encode()),
        "proof": Reader(inclusion, (EvidenceError,), bytes(64)),
        "frontier": Reader(Frontier.from_bytes, (EvidenceError,), bytes(8) + bytes(64)),
        "verifier key": Reader(lambda data: NoteVerifier.parse(as_text(data)), (EvidenceError,), signer.vkey.encode()),
        "log key": Reader(lambda data: NoteSigner.parse(as_text(data)), (EvidenceError,), signer.skey.encode()),
        "export": Reader(
            lambda data: verify_export(as_file(data), signer.verifier), (EvidenceError,), _export(evidence.checkpoint)
        ),
    }


def _export(note: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in ((CHECKPOINT, note), (ENTRIES, b"{}\n")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def _keys() -> dict[str, Reader]:
    identity, tls = Identity.generate(), generate_tls_key()
    request = EnrolmentRequest("person", make_csr(tls), "a", "b")
    welcome = Welcome(*["person"] * len(fields(Welcome)))
    return {
        "signing key": Reader(
            lambda data: SigningKey.parse(as_text(data)), (EvidenceError,), SigningKey.generate().export().encode()
        ),
        "recipient": Reader(
            lambda data: Recipient.parse(as_text(data)), (SealedError,), str(identity.recipient).encode()
        ),
        "identity": Reader(lambda data: Identity.parse(as_text(data)), (SealedError,), str(identity).encode()),
        "TLS key": Reader(load_tls_key, (CloisterError,), tls_key_pem(tls)),
        "CSR": Reader(lambda data: load_csr(as_text(data)), (CloisterError,), make_csr(tls).encode()),
        "enrolment": Reader(EnrolmentRequest.from_json, (CloisterError,), request.to_json().encode()),
        "welcome": Reader(Welcome.from_json, (CloisterError,), welcome.to_json().encode()),
    }


def _sealed() -> dict[str, Reader]:
    identity = Identity.generate()
    folder = Path(tempfile.mkdtemp())
    write_container(folder / "good", b"{}", io.BytesIO(b"rows"), [identity.recipient], lambda _: b"trailer")
    bundle = io.BytesIO()
    write_bundle([("config.json", b"{}"), ("model.safetensors", b"x" * 700)], bundle)

    def unpack(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as target:
            return read_bundle(io.BytesIO(data), target)

    return {
        "container": Reader(
            lambda data: open_container(as_file(data), identity, io.BytesIO()),
            (SealedError,),
            (folder / "good").read_bytes(),
        ),
        "header": Reader(lambda data: read_header(as_file(data)), (SealedError,), (folder / "good").read_bytes()),
        "bundle": Reader(unpack, (SealedError,), bundle.getvalue()),
    }


def _specs() -> dict[str, Reader]:
    yaml = (ROOT / "demo" / "job.yaml").read_bytes()
    spec = json.dumps({"model": "m", "method": {"supervised": {"hyperparameters": {"n_epochs": 1}}}, "seed": "42"})
    policy = b"id: standard\napprovals: 1\nrules:\n- metric: eval_accuracy\n  at_least: '0.5'\n"
    return {
        "specification": Reader(lambda data: parse_spec(as_text(data)), (CloisterError,), yaml),
        "signed specification": Reader(from_bytes, (CloisterError,), spec.encode()),
        "submitted specification": Reader(read_spec, (ServerError,), spec.encode()),
        "policy file": Reader(lambda data: read_policy(as_text(data), 30, now=NOW), (CloisterError,), policy),
        "row": Reader(row_of, (), b'{"text": "a", "label": "b"}\n'),
    }


def _frames() -> dict[str, Reader]:
    def control(side: Side) -> Callable[[bytes], object]:
        def read(data: bytes) -> object:
            ours, theirs = socket.socketpair()
            with closing(Channel(ours, side)) as channel, theirs:
                theirs.sendall(data)
                theirs.shutdown(socket.SHUT_WR)
                return channel.receive()

        return read

    def request(data: bytes) -> object:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            return keyagent_protocol.receive(ours)

    body = json.dumps({"type": "progress", "step": 1}).encode()
    return {
        "words of a trainer": Reader(control(Side.AGENT), (ProtocolError,), encode(Ready())),
        "words to a trainer": Reader(control(Side.TRAINER), (ProtocolError,), _framed(body)),
        "request of an agent": Reader(request, (KeyAgentError,), _framed(b'{"op": "status"}')),
    }


def _framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def _files() -> dict[str, Reader]:
    memory = Path(tempfile.mkdtemp())
    write_state(memory / STATE, Remembered(1, NOW, "", {"job:a": Opened(1, NOW)}))

    def remembered(data: bytes) -> object:
        folder = Path(tempfile.mkdtemp())
        (folder / STATE).write_bytes(data)
        return Memory(folder)

    def agent(data: bytes) -> object:
        folder = Path(tempfile.mkdtemp()) / "agent"
        folder.mkdir()
        (folder / "site.json").write_bytes(data)
        (folder / "agent.toml").write_bytes(data)
        for name in ("tls.crt", "tls.key"):
            (folder / name).write_bytes(b"")
        return worker_config.load_agent(folder.parent)

    def limits(data: bytes) -> object:
        return worker_config.read_limits(as_file(data))

    site = {"id": "host-1", "site": "a", "endpoint": "b", "ca_pem": "c"}
    return {
        "server.toml": Reader(lambda data: load_config(as_file(data)), (ConfigError,), SERVER.encode()),
        "agent.toml": Reader(limits, (WorkerConfigError,), b"threads = 1\nscratch_bytes = 1000\n"),
        "site.json": Reader(agent, (WorkerConfigError,), json.dumps(site).encode()),
        "memory": Reader(remembered, (KeyAgentError,), (memory / STATE).read_bytes()),
    }


def _foreign() -> dict[str, Reader]:
    """Files of every format in which rows come, each read to its end by its own reader and by the one that is told."""
    found = {
        "crows_pairs": ("a.csv", CROWS),
        "stereoset": ("a.json", STEREOSET),
        "bbq": ("a.jsonl", bbq_line()),
        "winobias": ("a.txt", WINOBIAS),
        "winogender": ("a.tsv", WINOGENDER),
        "association": ("a.jsonl", WEAT),
        "pairs": ("a.csv", PAIRS),
        "labelled": ("a.csv", LABELLED),
        "lexicon": ("a.tsv", LEXICON),
        "preferences": ("a.jsonl", PREFERENCES),
        "alpaca": ("a.json", '[{"instruction": "Say a", "input": "", "output": "a"}]'),
        "sharegpt": ("a.jsonl", '{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}'),
        "openai_preferences": ("a.jsonl", OPENAI),
        "rows": ("a.jsonl", '{"messages": [{"role": "user", "content": "a"}]}'),
    }
    assert set(FORMATS) | {"rows"} == set(found), "a format has no file here"

    def reader(name: str, file: str) -> Callable[[bytes], object]:
        def read(data: bytes) -> object:
            path = as_file(data).with_name(file)
            path.write_bytes(data)
            with contextlib.suppress(CloisterError):
                RowStream([path]).check()
            return RowStream([path], name, Options(groups={"sex": "sex"} if name == "labelled" else {})).check()

        return read

    return {
        f"rows of {name}": Reader(reader(name, file), (CloisterError,), text.encode())
        for name, (file, text) in found.items()
    }
