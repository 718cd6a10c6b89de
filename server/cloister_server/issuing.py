# SPDX-License-Identifier: Apache-2.0
"""Renewal of TLS certificates, where the configuration names an issuing key.

A certificate proves nothing by itself: the roster pins the key, and only a key that it pins for the caller is
certified, under the caller's own name.  Whoever takes this key can make certificates and nobody's key.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.admin.certificates import CertificateAuthority, identity_uri, issue_certificate
from cloister.errors import UsageError
from cloister.evidence.roster import Roster
from cloister.tls import load_csr, load_tls_key, spki_sha256
from cloister_server.calls import Principal
from cloister_server.config import Config
from cloister_server.errors import InvalidFieldError, StartError, WrongStateError


class Issuer:
    """Certifies again; says so where it cannot."""

    def __init__(self, authority: CertificateAuthority | None, days: int) -> None:
        self._authority = authority
        self._days = days

    @classmethod
    def load(cls, config: Config) -> Issuer:
        """Read the issuing key, if there is one.  Raises StartError where key and certificate do not fit."""
        if config.issuing_key is None or config.issuing_certificate is None:
            return cls(None, config.certificate_days)
        try:
            certificate = x509.load_pem_x509_certificate(config.issuing_certificate.read_bytes())
            key = load_tls_key(config.issuing_key.read_bytes())
        except (OSError, ValueError, UsageError) as error:
            raise StartError(f"[tls] issuing_key or issuing_certificate cannot be used: {error}") from error
        if spki_sha256(certificate) != spki_sha256(key):
            raise StartError(
                "[tls] issuing_key is not the key of issuing_certificate; name the two that belong together"
            )
        return cls(CertificateAuthority(key, certificate), config.certificate_days)

    def renew(self, caller: Principal, roster: Roster, csr_pem: str, *, now: int) -> str:
        """A certificate for a key that the roster pins for the caller.  Raises WrongStateError, InvalidFieldError."""
        if self._authority is None:
            raise WrongStateError(
                "this control plane issues no certificates: have the root custodian certify your request.json again "
                "(cloister-admin person certify, or host certify), or use the site's own authority",
                state="no_issuing_key",
            )
        try:
            key = spki_sha256(load_csr(csr_pem))
        except UsageError as error:
            raise InvalidFieldError("csr_pem", str(error)) from None
        holder = roster.host(caller.id) if caller.kind == "host" else roster.person(caller.id)
        if key not in holder.tls_sha256:
            raise InvalidFieldError("csr_pem", "the roster does not pin this key for you; a new key goes on it first")
        names = (identity_uri(roster.site, caller.kind, caller.id),)
        return issue_certificate(self._authority, csr_pem, names, self._days, now=now)


def certificate_sha256(pem: str) -> str:
    """SHA-256 of a certificate in DER, hex."""
    der = x509.load_pem_x509_certificate(pem.encode("ascii")).public_bytes(Encoding.DER)
    return hashlib.sha256(der).hexdigest()
