# SPDX-License-Identifier: Apache-2.0
"""Renewal of a TLS certificate at half its life: the same key, the same name, a later end.

The roster pins the key, so a renewal changes nothing that anybody trusts, and needs no custodian where the control
plane has an issuing key.  Where it has none, the answer says so, and the custodian or the site's own authority
certifies the key again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from cryptography import x509

from cloister.api.v1 import identity_pb2
from cloister.channel import Connection
from cloister.errors import CloisterError, HomeError, ServerError
from cloister.files import replace_private
from cloister.home import Home
from cloister.tls import load_tls_key, make_csr, spki_sha256

ASKED = "renewal.asked"
"""When a renewal was asked for last, Unix seconds."""
ASK_SECONDS = 24 * 3600
"""A site that does not renew is not asked with every command."""


def is_due(pem: bytes, now: int) -> bool:
    """Whether more than half of a certificate's life is over.  Raises ValueError for no certificate."""
    certificate = x509.load_pem_x509_certificate(pem)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return datetime.fromtimestamp(now, UTC) >= begin + (end - begin) / 2


def expires_at(pem: bytes) -> datetime:
    """When a certificate ends, UTC.  Raises ValueError for no certificate."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def renewed(old_pem: bytes, key_pem: bytes, ask: Callable[[str], str]) -> bytes:
    """Ask for a certificate of the same key; `ask` takes a CSR and answers with a certificate, both PEM.

    What comes back must be for this key and this name.  One that ends no later than the old one is not taken: a site
    may issue shorter ones than its custodian.  Raises ServerError.
    """
    key = load_tls_key(key_pem)
    answer = ask(make_csr(key))
    try:
        old, new = x509.load_pem_x509_certificate(old_pem), x509.load_pem_x509_certificate(answer.encode("ascii"))
        same = spki_sha256(new) == spki_sha256(key) and _names(new) == _names(old)
    except (ValueError, x509.ExtensionNotFound):
        raise ServerError("the control plane answered with something that is no certificate; tell its admin") from None
    if not same:
        raise ServerError("the control plane answered with a certificate of another key or name; tell its admin")
    return answer.encode("ascii") if new.not_valid_after_utc > old.not_valid_after_utc else old_pem


def renew(home: Home, connection: Connection) -> datetime:
    """Renew the certificate of a home now; when the new one ends.  Raises CloisterError."""
    pem = renewed(home.read("tls.crt"), home.read("tls.key"), lambda csr: ask(connection, csr))
    replace_private(home.directory / "tls.crt", pem)
    return expires_at(pem)


def renew_if_due(home: Home, connection: Connection, now: int) -> str:
    """Renew a certificate that is past half its life, at most once a day; a word of warning, or nothing.

    Never raises for a renewal that fails: the certificate is good still.
    """
    try:
        pem = home.read("tls.crt")
        if not is_due(pem, now) or now < _asked(home) + ASK_SECONDS:
            return ""
        replace_private(home.directory / ASKED, f"{now}\n".encode("ascii"))
        renew(home, connection)
    except HomeError:
        raise
    except CloisterError as error:
        return f"your certificate ends on {expires_at(pem):%Y-%m-%d} and was not renewed: {error}"
    return ""


def ask(connection: Connection, csr_pem: str) -> str:
    """The call itself."""
    request = identity_pb2.RenewCertificateRequest(csr_pem=csr_pem)
    return connection.call(connection.identity.RenewCertificate, request).certificate_pem


def _asked(home: Home) -> int:
    path = home.directory / ASKED
    text = path.read_text("ascii", "replace").strip() if path.exists() else ""
    return int(text) if text.isdecimal() else 0


def _names(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]
