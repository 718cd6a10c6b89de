# SPDX-License-Identifier: Apache-2.0
"""The log's signing key, as the configuration names it."""

from __future__ import annotations

from cloister.evidence.errors import EvidenceError
from cloister.evidence.note import NoteSigner
from cloister_server.config import Config
from cloister_server.errors import StartError


def read_log_signer(config: Config) -> NoteSigner:
    """Raises StartError where the file is missing, damaged or of another log."""
    try:
        signer = NoteSigner.parse(config.log_key_file.read_text(encoding="utf-8").strip())
    except (OSError, EvidenceError) as error:
        raise StartError(f"[log] key_file cannot be used: {error}") from error
    if signer.name != config.log_origin:
        raise StartError(f"[log] key_file is the key of {signer.name!r}, not of {config.log_origin!r}")
    return signer
