# SPDX-License-Identifier: Apache-2.0
"""TLS keys and certificate requests: ECDSA P-256, because gRPC refuses Ed25519 leaves.

A certificate alone proves nothing here: the roster pins the SHA-256 of its SubjectPublicKeyInfo.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.errors import UsageError

TlsKey = ec.EllipticCurvePrivateKey


def generate_tls_key() -> TlsKey:
    """A new P-256 key from the operating system's source."""
    return ec.generate_private_key(ec.SECP256R1())


def tls_key_pem(key: TlsKey) -> bytes:
    """PKCS #8 PEM, not encrypted: for a file of mode 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_tls_key(pem: bytes) -> TlsKey:
    """Raises UsageError for anything but a P-256 key in PEM."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise UsageError("the TLS key is not a PEM private key; make keys again") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError("the TLS key is not an elliptic-curve key; make keys again")
    return key


def make_csr(key: TlsKey) -> str:
    """A certificate request, PEM.  It carries the public key only: names are the custodian's to give."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def load_csr(pem: str) -> x509.CertificateSigningRequest:
    """Raises UsageError unless it is a request for a P-256 key that its holder signed."""
    try:
        request = x509.load_pem_x509_csr(pem.encode("utf-8"))
        key = request.public_key()
    except ValueError:
        raise UsageError("the certificate request is not PEM, or of no key; ask for a new request file") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError("the certificate request is not for a P-256 key; ask for a new request file")
    if not request.is_signature_valid:
        raise UsageError("the certificate request is not signed by its own key; ask for a new request file")
    return request


def spki_sha256(holder: x509.Certificate | x509.CertificateSigningRequest | TlsKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo in DER, hex: how the roster pins a TLS key."""
    spki = holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def pair_fault(certificate_pem: bytes, key_pem: bytes, now: datetime) -> str:
    """Why a certificate and its key cannot be used, and what to do; empty where they can.

    TLS would only refuse, in words that do not name the cause.  `now` is aware.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError:
        return "the certificate is not PEM, or damaged; install the one that the root custodian sent again"
    try:
        key = load_tls_key(key_pem)
    except UsageError as error:
        return str(error)
    if spki_sha256(certificate) != spki_sha256(key):
        return "the certificate is not for this key; install the certificate and the key that were made together"
    until, since = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now >= until:
        return f"the certificate expired on {until:%Y-%m-%d %H:%M} UTC; have the root custodian certify the key again"
    if now < since:
        return f"the certificate is valid from {since:%Y-%m-%d %H:%M} UTC only; check this machine's clock"
    return ""
