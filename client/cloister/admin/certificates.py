# SPDX-License-Identifier: Apache-2.0
"""The site's certificate authority: short ECDSA P-256 leaves for people, hosts and the server."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.errors import UsageError
from cloister.evidence.roster import CLOCK_SKEW_SECONDS
from cloister.tls import TlsKey, generate_tls_key, load_csr, make_csr, spki_sha256

__all__ = ["CertificateAuthority", "create_authority", "identity_uri", "issue_certificate", "make_csr", "spki_sha256"]

_DAY = 24 * 3600
CA_DAYS = 3650


@dataclass(frozen=True)
class CertificateAuthority:
    """The CA's key and its self-signed certificate."""

    key: TlsKey
    certificate: x509.Certificate

    @property
    def certificate_pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def identity_uri(site: str, kind: str, identifier: str) -> str:
    """The SAN that names a person or a host: `cloister://SITE/KIND/ID`."""
    return f"cloister://{site}/{kind}/{identifier}"


def create_authority(site: str, now: int) -> CertificateAuthority:
    """A new CA for a site, valid for ten years."""
    key = generate_tls_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"cloister {site}")])
    builder = _builder(name, name, now, CA_DAYS).public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(ca=True), critical=True)
    subject = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = builder.add_extension(subject, critical=False).sign(key, hashes.SHA256())
    return CertificateAuthority(key, certificate)


def issue_certificate(
    authority: CertificateAuthority, csr_pem: str, sans: Sequence[str], days: int, *, now: int
) -> str:
    """A leaf for the key of a request, PEM, with the names `sans`; nothing else of the request is taken over.

    A name with "://" is a URI and makes a client certificate; IP addresses and DNS names make a server's.
    Raises UsageError for a bad request, or for names of both kinds or none.
    """
    request = load_csr(csr_pem)
    uris = [san for san in sans if "://" in san]
    if not sans or (uris and len(uris) != len(sans)):
        raise UsageError("a certificate needs names of one kind: identity URIs, or host names and addresses")
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if uris else ExtendedKeyUsageOID.SERVER_AUTH
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, sans[0].rsplit("/", 1)[-1][:64])])
    builder = _builder(subject, authority.certificate.subject, now, days).public_key(request.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(san) for san in sans]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _builder(subject: x509.Name, issuer: x509.Name, now: int, days: int) -> x509.CertificateBuilder:
    start = dt.datetime.fromtimestamp(now - CLOCK_SKEW_SECONDS, dt.UTC)
    end = dt.datetime.fromtimestamp(now + days * _DAY, dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)


def _general_name(san: str) -> x509.GeneralName:
    if "://" in san:
        return x509.UniformResourceIdentifier(san)
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
