# SPDX-License-Identifier: Apache-2.0
"""Who calls: the certificate's SAN and the pinned TLS key, both by the roster in force.

(1) TLS has checked that the site's CA issued the certificate and that it has not expired.  (2) Its only identity
URI is `cloister://SITE/person/ID` or `cloister://SITE/host/ID` of this site.  (3) The roster has that person or
host, with this very TLS key.  (4) A host is not retired.  The CA alone can thus mint nobody.

A third kind, `cloister://SITE/enrolment/ID`, is the holder of an enrolment token: its key is one that an admin
registered, and its only role opens the one method by which a token is claimed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.evidence.errors import RosterError
from cloister_server.calls import WORKER, Principal
from cloister_server.errors import UnknownIdentityError
from cloister_server.policy_table import ENROLMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloister.evidence.roster import Roster

ENROLMENT_KIND = "enrolment"
_URI = re.compile(r"cloister://([a-z0-9._-]{1,64})/(person|host|enrolment)/([a-z0-9][a-z0-9._-]{0,63})")


@dataclass(frozen=True)
class Presented:
    """What a certificate says."""

    site: str
    kind: str
    id: str
    key_sha256: str
    """SHA-256 of the SubjectPublicKeyInfo, hex."""


@lru_cache(maxsize=1024)
def read_certificate(pem: bytes) -> Presented:
    """Raises UnknownIdentityError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound):
        raise UnknownIdentityError("the certificate names nobody; enrol and ask the root custodian for one") from None
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    found = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if found is None:
        raise UnknownIdentityError("the certificate has no identity of a Cloister site")
    return Presented(found[1], found[2], found[3], hashlib.sha256(spki).hexdigest())


def presented(auth_context: Mapping[str, Iterable[bytes]]) -> Presented:
    """The caller's certificate, out of gRPC's authentication context.  Raises UnknownIdentityError."""
    pems = list(auth_context.get("x509_pem_cert", ()))
    if len(pems) != 1:
        raise UnknownIdentityError("the connection carries no client certificate")
    return read_certificate(pems[0])


def transport(auth_context: Mapping[str, Iterable[bytes]]) -> str:
    """TLS version and key exchange group of the connection."""
    parts = [
        b"".join(auth_context.get(name, ())).decode("ascii", "replace")
        for name in ("ssl_tls_version", "ssl_negotiated_key_exchange_group")
    ]
    return " ".join(part for part in parts if part)


def resolve_token(caller: Presented, site: str, token_id: str, transport_text: str) -> Principal:
    """The holder of an enrolment token; `token_id` is the one that was registered with the caller's TLS key.

    Raises UnknownIdentityError.
    """
    if not token_id or (caller.site, caller.id) != (site, token_id):
        raise UnknownIdentityError("this is not the key of an enrolment token of this site; ask the admin for another")
    return Principal(caller.id, caller.kind, "", "", frozenset({ENROLMENT}), caller.key_sha256, transport_text)


def resolve(caller: Presented, roster: Roster, transport_text: str, *, now: int) -> Principal:
    """Raises UnknownIdentityError, in words that do not tell an outsider which of the checks failed."""
    refused = UnknownIdentityError("this certificate is not one that the site's roster pins; enrol again")
    if caller.site != roster.site:
        raise refused
    try:
        if caller.kind == "host":
            host = roster.host(caller.id)
            pins, team, pool, roles = host.tls_sha256, "", host.pool, frozenset({WORKER})
            if host.retired_at is not None and now >= host.retired_at:
                raise refused
        elif caller.kind != "person":
            raise refused
        else:
            person = roster.person(caller.id)
            pins, team, pool, roles = person.tls_sha256, person.team, "", frozenset(person.roles)
    except RosterError:
        raise refused from None
    if caller.key_sha256 not in pins:
        raise refused
    return Principal(caller.id, caller.kind, team, pool, roles, caller.key_sha256, transport_text)
