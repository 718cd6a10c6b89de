# SPDX-License-Identifier: Apache-2.0
"""The certificate that a server presents, before a channel is made.

gRPC verifies a chain but pins no key.  An enrolment token pins the control plane's TLS key, so its holder asks for the
certificate first, compares the key, and then lets gRPC trust that certificate alone: a server that shows it without
holding its key fails the handshake.
"""

from __future__ import annotations

import socket
import ssl

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.errors import ConnectError, UsageError
from cloister.tls import spki_sha256

TIMEOUT_SECONDS = 15.0


def served_certificate(endpoint: str, ca_pem: str | None = None) -> x509.Certificate:
    """The leaf certificate at HOST:PORT; with `ca_pem` it is verified for that host, without it, it is a mere claim.

    Raises UsageError for a bad endpoint, ConnectError.
    """
    host, port = split_endpoint(endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # In TLS 1.3 our side of the handshake is complete before the server looks for our certificate.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if ca_pem is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=ca_pem)
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            der = secure.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "no TLS 1.3"
        raise ConnectError(f"{endpoint} does not present a certificate of this site ({reason}); check it") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConnectError(f"the control plane at {endpoint} cannot be reached ({why}); check it") from None
    if der is None:
        raise ConnectError(f"{endpoint} presents no certificate; is it the control plane?")
    return x509.load_der_x509_certificate(der)


def pinned_certificate(endpoint: str, server_sha256: str) -> str:
    """The certificate at HOST:PORT, PEM, if its key is the pinned one.  Raises ConnectError, UsageError."""
    certificate = served_certificate(endpoint)
    if spki_sha256(certificate) != server_sha256:
        raise UsageError(
            f"{endpoint} is not the server that the enrolment token names: the token is of another site, the server "
            "has a new TLS key, or somebody is in between; nothing was sent, ask the admin for a new token"
        )
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port.  Raises UsageError."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{endpoint[:100]!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
