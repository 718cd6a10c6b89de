# SPDX-License-Identifier: Apache-2.0
"""What a backup says of itself, signed by the log's key.

`manifest.json` is canonical JSON; `manifest.note` is a signed note over its digest, so whoever keeps the backup can
damage it but not change it unnoticed.  The note's text has four lines and begins with a fixed word: no checkpoint
has that form, so neither signature can be passed off as the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.evidence.canonical import JSON, canonical_bytes, sha256_hex
from cloister.evidence.errors import BindingError
from cloister.evidence.fields import Fields
from cloister.evidence.note import NoteSigner, NoteVerifier, open_note, sign

MANIFEST = "manifest.json"
NOTE = "manifest.note"
_NOTE_KIND = "cloister-backup/v1"


@dataclass(frozen=True)
class StoredFile:
    """A file beside the manifest."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class BackupManifest:
    """One backup."""

    backup_id: str
    site: str
    log_origin: str
    created_at: int
    """Unix seconds, when the database was copied."""
    database: str
    """sqlite or postgresql: a backup goes back into a database of its kind."""
    schema: str
    """Migration that the database had."""
    log_size: int
    """Entries of the log in the backup."""
    log_root: str
    """Root of these entries, hex."""
    checkpoint: str
    """Newest signed head among them: a signed note over at most `log_size` entries."""
    files: tuple[StoredFile, ...]
    """The database, the list of blobs, the roster and the configuration."""

    def to_bytes(self) -> bytes:
        files: list[JSON] = [{"name": file.name, "sha256": file.sha256, "size": file.size} for file in self.files]
        return canonical_bytes({**self.__dict__, "type": "backup", "v": 1, "files": files})

    @classmethod
    def parse(cls, data: bytes) -> BackupManifest:
        """Raises FormatError."""
        fields = Fields.of_document("backup", data)
        manifest = cls(
            backup_id=fields.identifier("backup_id"),
            site=fields.identifier("site"),
            log_origin=fields.text("log_origin"),
            created_at=fields.time("created_at"),
            database=fields.text("database", choices=("sqlite", "postgresql")),
            schema=fields.text("schema"),
            log_size=fields.integer("log_size"),
            log_root=fields.digest("log_root"),
            checkpoint=fields.text("checkpoint"),
            files=tuple(_read_file(item) for item in fields.objects("files")),
        )
        fields.finish()
        return manifest

    def file(self, name: str) -> StoredFile | None:
        """The record of a file, or None where the backup has none of that name."""
        return next((file for file in self.files if file.name == name), None)


def _read_file(fields: Fields) -> StoredFile:
    file = StoredFile(fields.identifier("name"), fields.digest("sha256"), fields.integer("size"))
    fields.finish()
    return file


def sign_manifest(manifest: BackupManifest, signer: NoteSigner) -> bytes:
    """The note to store beside the manifest."""
    return sign(_text(manifest.log_origin, manifest.backup_id, manifest.to_bytes()), [signer])


def open_manifest(data: bytes, note: bytes, verifier: NoteVerifier) -> BackupManifest:
    """The manifest, if the log's key signed it.  Raises FormatError, SignatureError, BindingError."""
    text = open_note(note, [verifier]).text
    manifest = BackupManifest.parse(data)
    if text != _text(verifier.name, manifest.backup_id, data) or manifest.log_origin != verifier.name:
        raise BindingError("the signature is over another manifest: it was changed, or belongs to another backup")
    return manifest


def _text(origin: str, backup_id: str, data: bytes) -> str:
    return f"{_NOTE_KIND}\n{origin}\n{backup_id}\n{sha256_hex(data)}\n"
