# SPDX-License-Identifier: Apache-2.0
r"""A backup of the custodian's directory, encrypted with a passphrase.

    "cloister-root-backup/v1\\n" | salt (16) | nonce (12) | AES-256-GCM of a JSON object {file name: base64}

The key is scrypt(passphrase, salt, N = 2^17, r = 8, p = 1) (RFC 7914); the first line is authenticated with the rest.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from cloister.admin.custody import CA_CERTIFICATE, CA_KEY, DRAFT, EXTERNAL, ROOT_KEY, ROSTER, SITE, Custody
from cloister.errors import HomeError, UsageError
from cloister.evidence.signatures import b64, unb64
from cloister.files import create_private, private_directory

MAGIC = b"cloister-root-backup/v1\n"
MIN_PASSPHRASE = 12
"""Characters."""
_NEEDED = (ROOT_KEY, CA_KEY, CA_CERTIFICATE, DRAFT, SITE)
_NAMES = re.compile(r"root-[0-9a-f]{32}\.key|root\.next\.key")
_SALT, _NONCE = 16, 12


def write_backup(custody: Custody, passphrase: str, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """Every file that makes the root.  Raises UsageError for a short passphrase, HomeError without a root."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise UsageError(f"a passphrase has at least {MIN_PASSPHRASE} characters; take several words")
    folder = custody.directory
    if missing := [name for name in _NEEDED if not (folder / name).exists()]:
        raise HomeError(f"{folder / missing[0]} is missing; name the custodian's directory")
    names = [p.name for p in folder.iterdir() if p.name in (*_NEEDED, EXTERNAL, ROSTER) or _NAMES.fullmatch(p.name)]
    files = {name: b64((folder / name).read_bytes()) for name in sorted(names)}
    salt, nonce = random(_SALT), random(_NONCE)
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, json.dumps(files).encode("ascii"), MAGIC)
    return MAGIC + salt + nonce + sealed


def restore_backup(data: bytes, passphrase: str, directory: Path) -> Custody:
    """Make a custodian's directory out of a backup.

    Raises UsageError for another file, a wrong passphrase or damage, HomeError where a root is there already.
    """
    if (directory / ROOT_KEY).exists():
        raise HomeError(f"{directory} holds a root already; name a new directory")
    start = len(MAGIC) + _SALT + _NONCE
    if not data.startswith(MAGIC) or len(data) <= start:
        raise UsageError("this is no backup of a root; it is made with: cloister-admin root backup")
    salt, nonce = data[len(MAGIC) : len(MAGIC) + _SALT], data[len(MAGIC) + _SALT : start]
    try:
        files = json.loads(AESGCM(_key(passphrase, salt)).decrypt(nonce, data[start:], MAGIC))
    except InvalidTag:
        raise UsageError("the backup does not open: the passphrase is another one, or the file is damaged") from None
    private_directory(directory)
    # The root last: a directory without it is no custodian's, and the restore can be run again.
    for name in sorted(files, key=lambda name: name == ROOT_KEY):
        (directory / name).unlink(missing_ok=True)
        create_private(directory / name, unb64(files[name], name))
    return Custody(directory)


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=1 << 17, r=8, p=1).derive(passphrase.encode("utf-8"))
