# SPDX-License-Identifier: Apache-2.0
"""The server's side of mutual TLS: a client certificate of the site's CA, or of an enrolment token, is always demanded.

Certificate and key are read again when their files change, and the tokens' certificates when they do, so that
either changes without a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc

from cloister_server.config import Config
from cloister_server.enrolment_keys import EnrolmentKeys
from cloister_server.errors import StartError
from cloister_server.journal import Journal


def server_credentials(config: Config, enrolment_keys: EnrolmentKeys, journal: Journal) -> grpc.ServerCredentials:
    """Raises StartError."""
    first = _read(config, enrolment_keys.certificates())
    fetch = _rotation(config, enrolment_keys, journal)
    return grpc.dynamic_ssl_server_credentials(
        first,
        fetch,  # type: ignore[arg-type]  # None is its documented answer for "no change"
        require_client_authentication=True,
    )


def _read(config: Config, tokens: bytes) -> grpc.ServerCertificateConfiguration:
    try:
        pair = (config.tls_key.read_bytes(), config.tls_certificate.read_bytes())
        anchors = config.client_ca.read_bytes() + b"\n" + tokens
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=anchors)
    except OSError as error:
        raise StartError(f"[tls] {error.filename}: {error.strerror}") from error


def _rotation(
    config: Config, enrolment_keys: EnrolmentKeys, journal: Journal
) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    files = (config.tls_key, config.tls_certificate, config.client_ca)
    seen, tokens = _stamps(files), enrolment_keys.certificates()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """For each new connection: None keeps the certificate in use."""
        nonlocal seen, tokens
        stamps, admitted = _stamps(files), enrolment_keys.certificates()
        if stamps == seen and admitted == tokens:
            return None
        try:
            renewed = _read(config, admitted)
        except StartError as error:
            journal.failure("tls_reload_failed", error)
            return None
        if stamps != seen:
            journal.write("info", "tls_reloaded")
        seen, tokens = stamps, admitted
        return renewed

    return fetch


def _stamps(files: tuple[Path, ...]) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in files)
