# SPDX-License-Identifier: Apache-2.0
"""This host's keys and the root that it pins.  Nobody else on the host reads these files."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cloister.evidence.errors import FormatError
from cloister.evidence.signatures import SigningKey, unb64
from cloister.sealed.errors import KeyFormatError
from cloister.sealed.keys import Identity
from cloister_workers.keyagent.errors import KeyStoreError

SIGNING_KEY, SEALING_KEY, ROOT_PUBLIC, SITE = "signing.key", "sealing.key", "root.pub", "site.json"
CREDENTIAL = "cloister-host-"
"""A secret key may be a credential of the unit instead, named by this prefix and its file name: systemd.exec(5)."""


@dataclass(frozen=True)
class Vault:
    """Keys of one host."""

    host_id: str
    root_public: bytes
    """Raw Ed25519 key of the root: the one thing that this host trusts from the start."""
    signing: SigningKey = field(repr=False)
    sealing: Identity = field(repr=False)


def load_vault(folder: Path, credentials: Path | None = None) -> Vault:
    """Read the key agent's directory, and secret keys from the unit's credentials where they are there.

    Raises KeyStoreError, whose message names the file and never the key.
    """
    try:
        site = json.loads(_read(folder / SITE))
        return Vault(
            host_id=str(site["id"]),
            root_public=_public(_read(folder / ROOT_PUBLIC)),
            signing=SigningKey.parse(_read_secret(_secret(folder, SIGNING_KEY, credentials))),
            sealing=Identity.parse(_read_secret(_secret(folder, SEALING_KEY, credentials)).strip()),
        )
    except (FormatError, KeyFormatError) as error:
        raise KeyStoreError(f"a key in {folder} is malformed: {error}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeyStoreError(f"{folder / SITE} does not name this host; run 'cloister-worker install' again") from None


def _public(text: str) -> bytes:
    public = unb64(text.strip(), "the root's public key")
    if len(public) != 32:
        raise FormatError(f"the root's public key has {len(public)} bytes, not 32")
    return public


def _secret(folder: Path, name: str, credentials: Path | None) -> Path:
    given = None if credentials is None else credentials / f"{CREDENTIAL}{name}"
    return given if given is not None and given.exists() else folder / name


def _read_secret(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise KeyStoreError(f"{path}: {error.strerror}; run 'cloister-worker init' first") from None
    if stat.S_IMODE(mode) & 0o077:
        raise KeyStoreError(f"{path} can be read by others than its owner; chmod it to 0600 and think about new keys")
    return _read(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise KeyStoreError(
            f"{path}: {error.strerror}; run 'cloister-worker init' and 'cloister-worker install' first"
        ) from None
    except UnicodeDecodeError:
        raise KeyStoreError(f"{path} is not text") from None
