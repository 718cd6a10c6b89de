# SPDX-License-Identifier: Apache-2.0
"""TLS certificates of an authority that the organisation has already.

Such an authority decides who may connect at all, never who anybody is: the roster pins every TLS key, so a
certificate of it for another key, whatever name it bears, opens nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from cloister.admin.custody import Custody
from cloister.errors import UsageError
from cloister.tls import load_csr, spki_sha256


def trust(custody: Custody, pem: bytes, now: int) -> int:
    """Have welcomes from now on name these authorities (PEM) beside the site's own; how many there are.

    Raises UsageError for what is no certificate of an authority, or has ended.
    """
    for certificate in _chain(pem):
        if not _is_authority(certificate):
            raise UsageError(f"{_name(certificate)} is no certificate authority's certificate; name the authority's")
        if certificate.not_valid_after_utc <= datetime.fromtimestamp(now, UTC):
            raise UsageError(f"the certificate of {_name(certificate)} has expired; name the one that came after it")
    custody.save_external_authorities(pem)
    return len(_chain(pem))


def accepted(custody: Custody, pem: bytes, csr_pem: str, names: Sequence[str], now: int) -> str:
    """A certificate (PEM, with the intermediate ones after it) for the key of a request and exactly these names.

    Raises UsageError with what is wrong with it.
    """
    chain, trusted = _chain(pem), custody.external_authorities()
    leaf = chain[0]
    if spki_sha256(leaf) != spki_sha256(load_csr(csr_pem)):
        raise UsageError("the certificate is not for the key of the request; have the request's key certified")
    if (found := _names(leaf)) != sorted(names):
        raise UsageError(f"the certificate names {', '.join(found) or 'nobody'}; it must name {', '.join(names)}")
    if not leaf.not_valid_before_utc <= datetime.fromtimestamp(now, UTC) < leaf.not_valid_after_utc:
        raise UsageError("the certificate does not hold now; have one issued that does")
    last = _chain(trusted) if trusted else []
    for issued, issuers in zip(chain, [*([issuer] for issuer in chain[1:]), last], strict=True):
        if not any(_is_authority(issuer) and _issued_by(issued, issuer) for issuer in issuers):
            raise UsageError(
                f"nobody trusted has issued the certificate of {_name(issued)}; append the intermediate certificates, "
                "or run: cloister-admin root trust"
            )
    return pem.decode("ascii")


def _chain(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise UsageError("there is no certificate in PEM; name the file with BEGIN CERTIFICATE") from None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return sorted(str(name.value) for name in names)


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "an unnamed subject"
