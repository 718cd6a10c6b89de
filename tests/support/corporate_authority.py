# SPDX-License-Identifier: Apache-2.0
"""A certificate authority as an organisation has one: a root that is kept away, and an intermediate that issues."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEAR = dt.timedelta(days=365)


@dataclass(frozen=True)
class Authority:
    """One that issues certificates; its chain ends below the root."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def authority(self, name: str) -> Authority:
        """One below this one."""
        key = ec.generate_private_key(ec.SECP384R1())
        return Authority(key, _authority(name, key, self.certificate.subject, self.key))

    def issue(self, csr_pem: str, names: tuple[str, ...], start: dt.datetime) -> bytes:
        """A leaf of a year for a request's key, followed by this authority's own certificate."""
        request = x509.load_pem_x509_csr(csr_pem.encode())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issued for cloister")])
        leaf = (
            _dated(start)
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(request.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_san(name) for name in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self.key, hashes.SHA384())
        )
        return leaf.public_bytes(serialization.Encoding.PEM) + self.pem


def corporate_root() -> Authority:
    """A self-signed root."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "corporate root")])
    return Authority(key, _authority("corporate root", key, name, key))


def _authority(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _dated(dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)).subject_name(subject).issuer_name(issuer)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        builder.public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(signer, hashes.SHA384())
    )


def _dated(start: dt.datetime) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().serial_number(x509.random_serial_number())
    return builder.not_valid_before(start).not_valid_after(start + YEAR)


def _san(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
