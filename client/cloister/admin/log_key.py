# SPDX-License-Identifier: Apache-2.0
"""The audit log's key: it signs checkpoints and lives on the control plane; the roster names its public half."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.admin.custody import Custody
from cloister.admin.draft import set_log
from cloister.evidence.note import NoteSigner
from cloister.files import create_private


def make_log_key(origin: str, random: Callable[[int], bytes] = os.urandom) -> NoteSigner:
    """A new signer whose name is the log's origin.  Raises FormatError for a bad name."""
    return NoteSigner(origin, Ed25519PrivateKey.from_private_bytes(random(32)))


def write_log_key(path: Path, signer: NoteSigner) -> None:
    """Store the secret form (one line).  Raises HomeError where the file exists."""
    create_private(path, f"{signer.skey}\n".encode())


def name_log_key(custody: Custody, origin: str, path: Path) -> NoteSigner:
    """A new key in a new file, and its public half in the draft.  Raises FormatError, HomeError."""
    signer = make_log_key(origin)
    draft = set_log(custody.draft(), origin, signer.vkey)
    write_log_key(path, signer)
    custody.save_draft(draft)
    return signer
