# SPDX-License-Identifier: Apache-2.0
"""The server's side of mutual TLS: a client certificate of the site's CA is always demanded.

Certificate and key are read again when their files change, so that they rotate without a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc

from cloister_server.config import Config
from cloister_server.errors import StartError
from cloister_server.journal import Journal


def server_credentials(config: Config, journal: Journal) -> grpc.ServerCredentials:
    """Raises StartError."""
    first = _read(config)
    fetch = _rotation(config, journal)
    return grpc.dynamic_ssl_server_credentials(
        first,
        fetch,  # type: ignore[arg-type]  # None is its documented answer for "no change"
        require_client_authentication=True,
    )


def _read(config: Config) -> grpc.ServerCertificateConfiguration:
    try:
        pair = (config.tls_key.read_bytes(), config.tls_certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=config.client_ca.read_bytes())
    except OSError as error:
        raise StartError(f"[tls] {error.filename}: {error.strerror}") from error


def _rotation(config: Config, journal: Journal) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    files = (config.tls_key, config.tls_certificate, config.client_ca)
    seen = _stamps(files)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """For each new connection: None keeps the certificate in use."""
        nonlocal seen
        stamps = _stamps(files)
        if stamps == seen:
            return None
        try:
            renewed = _read(config)
        except StartError as error:
            journal.failure("tls_reload_failed", error)
            return None
        seen = stamps
        journal.write("info", "tls_reloaded")
        return renewed

    return fetch


def _stamps(files: tuple[Path, ...]) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in files)
