# SPDX-License-Identifier: Apache-2.0
"""`cloister-audit`: verify an export offline, or check the stored ledger."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from cloister.evidence.checkpoint import Checkpoint, open_checkpoint
from cloister.evidence.errors import EvidenceError, FormatError
from cloister.evidence.log import EXIT_CODES
from cloister.evidence.note import NoteVerifier
from cloister.evidence_export import describe, verify_export
from cloister_audit import fsck
from cloister_audit.errors import AuditError
from cloister_audit.snapshot import snapshot

EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def main() -> None:
    """Check the audit log of a Cloister site, without asking the site."""


@main.command("verify")
@click.argument("export", type=EXISTING)
@click.option("--key", "vkey", required=True, help="Verifier key of the log (name+id+base64), from the roster.")
@click.option("--since", multiple=True, type=EXISTING, help="A checkpoint that you kept; may be repeated.")
def verify_command(export: Path, vkey: str, since: tuple[Path, ...]) -> None:
    """Verify EXPORT: signature, every entry, the tree, and that it extends the checkpoints you kept.

    Exit status: 0 good, 2 usage, 10 tampered entry, 11 truncated, 12 fork, 13 bad signature, 15 rollback.
    """
    try:
        verifier = NoteVerifier.parse(vkey.strip())
        verdict = verify_export(export, verifier, [_remembered(path, verifier) for path in since])
    except EvidenceError as error:
        _fail(f"{error.reason}: {error}", EXIT_CODES.get(error.reason, 1))
    click.echo(describe(verdict))


def _remembered(path: Path, verifier: NoteVerifier) -> Checkpoint:
    try:
        return open_checkpoint(path.read_bytes(), verifier, verifier.name)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


@main.command("fsck")
@click.option("--database", required=True, help="SQLAlchemy URL of the control plane's database.")
@click.option("--key", "vkey", required=True, help="Verifier key of the log.")
def fsck_command(database: str, vkey: str) -> None:
    """Recompute every hash, the head and all signed checkpoints from the stored entries."""
    try:
        with snapshot(create_engine(database)) as connection:
            total = fsck.check(connection, NoteVerifier.parse(vkey.strip()))
    except AuditError as error:
        _fail(str(error), EXIT_CODES["TAMPERED"])
    except (EvidenceError, SQLAlchemyError) as error:
        _fail(f"{type(error).__name__}: cannot read the ledger or the key", 1)
    click.echo(f"ok: {total} entries, hashes, head and checkpoints agree")


def _fail(message: str, status: int) -> None:
    click.echo(f"cloister-audit: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
