# SPDX-License-Identifier: Apache-2.0
"""The server's side of mutual TLS: a client certificate of the site's CA is always demanded.

Certificate, key and CA are read again for the first connection after their files changed, so that they rotate without
a restart.  Open connections stay as they are; files that do not fit together leave the old ones in use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509

from cloister.tls import pair_fault
from cloister_server.config import Config
from cloister_server.errors import StartError
from cloister_server.journal import Journal


@dataclass(frozen=True)
class _Files:
    """What a handshake needs."""

    certificate: Path
    key: Path
    client_ca: Path

    def stamps(self) -> tuple[tuple[int, int], ...]:
        """Changes whenever a file is written or replaced."""
        return tuple(_stamp(path) for path in (self.certificate, self.key, self.client_ca))

    def read(self, now: datetime) -> grpc.ServerCertificateConfiguration:
        """Raises StartError."""
        try:
            certificate, key = self.certificate.read_bytes(), self.key.read_bytes()
            client_ca = self.client_ca.read_bytes()
        except OSError as error:
            raise StartError(f"[tls] {error.filename}: {error.strerror}") from error
        # gRPC would take a pair that does not fit, and then fail every handshake.
        if fault := pair_fault(certificate, key, now):
            raise StartError(f"[tls] {self.certificate}: {fault}")
        try:
            x509.load_pem_x509_certificates(client_ca)
        except ValueError as error:
            raise StartError(
                f"[tls] {self.client_ca} is not a PEM certificate; copy the site's ca.crt again"
            ) from error
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=client_ca)


def server_credentials(config: Config, journal: Journal) -> grpc.ServerCredentials:
    """Raises StartError."""
    files = _Files(config.tls_certificate, config.tls_key, config.client_ca)
    seen = files.stamps()
    return grpc.dynamic_ssl_server_credentials(
        files.read(datetime.now(UTC)),
        _rotation(files, seen, journal),  # type: ignore[arg-type]  # None is its documented answer for "no change"
        require_client_authentication=True,
    )


def _rotation(
    files: _Files, seen: tuple[tuple[int, int], ...], journal: Journal
) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """For each new connection: None keeps the certificate in use."""
        nonlocal seen
        # Before the files are read: one that changes meanwhile is seen again at the next connection.
        stamps = files.stamps()
        if stamps == seen:
            return None
        seen = stamps
        try:
            renewed = files.read(datetime.now(UTC))
        except StartError as error:
            # Half of a renewal looks like this too; its second file brings the next try.
            journal.write("error", "tls_reload_failed", reason=str(error))
            return None
        journal.write("info", "tls_reloaded")
        return renewed

    return fetch


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_ino)
