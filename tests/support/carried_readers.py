# SPDX-License-Identifier: Apache-2.0
"""Readers of what is carried by hand or kept by anybody: the documents of an enrolment, and backups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.enrolment_token import EnrolmentToken
from cloister.errors import CloisterError
from cloister.evidence.enrolment import Claim, IssuedToken, SignedWelcome
from cloister.evidence.errors import EvidenceError
from cloister.evidence.note import NoteSigner
from cloister_server.backup.commands import told_restore
from cloister_server.backup.folder import read_blob_list, write_blob_list
from cloister_server.backup.manifest import BackupManifest, StoredFile, open_manifest, sign_manifest
from cloister_server.backup.restore import Restored
from cloister_server.errors import BackupError
from cloister_server.store import Declared
from reader import Reader, again, as_file, as_text
from set_clock import NOW


def enrolment() -> dict[str, Reader]:
    """What travels with a one-time token, for a person and for a worker host."""
    public, digest = bytes(32), "0" * 64
    place: dict[str, object] = {
        "site": "a",
        "issuer": "dana",
        "root_sha256": digest,
        "server_sha256": digest,
        "public": public,
    }
    place |= {"tls_sha256": digest, "created_at": NOW, "expires_at": NOW + 60}
    person = IssuedToken(person="erin", team="icu", roles=("member",), **place)  # type: ignore[arg-type]  # by name
    host = IssuedToken(person="", team="", roles=(), host="gpu2", pool="big", **place)  # type: ignore[arg-type]
    claim = Claim("t-1", "csr", public, "age1pq", NOW)
    welcome = SignedWelcome("t-1", digest, "a", "erin", "b:1", public, "ca", "certificate")
    found: dict[str, tuple[Callable[[bytes], object], bytes]] = {
        "token for a person": (again(IssuedToken), person.to_payload()),
        "token for a host": (again(IssuedToken), host.to_payload()),
        "claim": (again(Claim), claim.to_payload()),
        "claim of a host": (again(Claim), replace(claim, host=True).to_payload()),
        "signed welcome": (again(SignedWelcome), welcome.to_payload()),
        "signed welcome of a host": (again(SignedWelcome), replace(welcome, person="", host="gpu2").to_payload()),
    }
    text = EnrolmentToken(bytes(32), digest, digest, NOW, "a").export().encode()
    told = {name: Reader(read, (EvidenceError,), good) for name, (read, good) in found.items()}
    return {**told, "token": Reader(lambda data: EnrolmentToken.parse(as_text(data)), (CloisterError,), text)}


def backup() -> dict[str, Reader]:
    """What a folder of backups says, which anybody may have kept."""
    signer = NoteSigner("test.example/log", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    files = (StoredFile("database.sqlite", "0" * 64, 5), StoredFile("blobs.list", "1" * 64, 0))
    manifest = BackupManifest("b-1", "a", signer.name, NOW, "sqlite", "0001", 9, "0" * 64, "note", files)

    def read(data: bytes) -> object:
        found = BackupManifest.parse(data)
        assert data == found.to_bytes(), "what was read is not what is written: two forms of one meaning"
        return told_restore(Restored(found, 1, b"", 2), Path("head"))

    def opened(data: bytes) -> object:
        return open_manifest(manifest.to_bytes(), data, signer.verifier)

    def blobs(data: bytes) -> object:
        found = read_blob_list(as_file(data))
        assert data == write_blob_list(found), "what was read is not what is written: two forms of one meaning"
        return found

    listed = write_blob_list([Declared("d-1", "0" * 64, 5), Declared("m-1", "1" * 64, 0)])
    return {
        "backup manifest": Reader(read, (EvidenceError,), manifest.to_bytes()),
        "backup note": Reader(opened, (EvidenceError,), sign_manifest(manifest, signer)),
        "blob list": Reader(blobs, (BackupError,), listed),
    }
