# SPDX-License-Identifier: Apache-2.0
"""Files of the control plane: who may read them, how long they hold, how much room there is."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography import x509

from cloister.findings import Finding, failure, of_expiry, ok, warning
from cloister_server.config import Config

WARN_SECONDS = 14 * 24 * 3600


def check_modes(config: Config) -> Iterable[Finding]:
    """Keys are their owner's alone, and the service's user can use what it needs."""
    fine = 0
    for path in (config.tls_key, config.log_key_file):
        found = list(_key_file(path))
        fine += not found
        yield from found
    for path in (config.tls_certificate, config.client_ca, config.roster_file):
        if not os.access(path, os.R_OK):
            yield failure(f"{path} cannot be read by this user", "put the file there, readable by the service's user")
        else:
            fine += 1
    if not _is_writable(config.store_directory):
        yield failure(
            f"{config.store_directory} cannot be written", "make the folder and give it to the service's user"
        )
    else:
        fine += 1
    if fine == 6:
        yield ok("keys are private, the rest can be read")


def _is_writable(folder: Path) -> bool:
    """Whether this user may write there, the nightly doctor included, whose unit sees every folder read-only."""
    try:
        status = folder.stat()
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError:
        return False
    if not read_only:
        return os.access(folder, os.W_OK | os.X_OK)
    return status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o300 == 0o300


def _key_file(path: Path) -> Iterable[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield failure(f"{path}: {error.strerror}", "put the key there, or correct the configuration")
        return
    if stat.S_IMODE(mode) & 0o077:
        yield failure(f"{path} has mode {stat.S_IMODE(mode):04o}: others can read a key", f"chmod 600 {path}")
    if not os.access(path, os.R_OK):
        yield failure(f"{path} cannot be read by this user", "run as the service's user, or give the file to it")


def check_certificate(path: Path, now: int) -> Iterable[Finding]:
    """How long the server's certificate holds; `now` is Unix seconds."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        yield failure(f"{path} is not a certificate", "ask the root custodian for a certificate")
        return
    left = certificate.not_valid_after_utc.timestamp() - now
    yield of_expiry(f"certificate {path}", left, WARN_SECONDS, "have the custodian run: cloister-admin server certify")


def check_disk(places: Iterable[tuple[str, Path]], reserve: int, free: Callable[[Path], int]) -> Iterable[Finding]:
    """Room for blobs and database; `reserve` and `free` are bytes."""
    for name, path in places:
        try:
            left = free(path)
        except OSError as error:
            yield failure(f"{name} {path}: {error.strerror}", "make the folder, or correct the configuration")
            continue
        text = f"{name} {path}: {left >> 20} MiB free, reserve {reserve >> 20} MiB"
        if left < reserve:
            yield failure(text, "free space: uploads are refused; delete datasets, or move backups away")
        elif left < 2 * reserve:
            yield warning(text, "free space soon: below the reserve uploads are refused")
        else:
            yield ok(text)
