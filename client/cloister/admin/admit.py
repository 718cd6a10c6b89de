# SPDX-License-Identifier: Apache-2.0
"""Admission: an enrolment request becomes a roster entry, a certificate and a welcome file.

The custodian compares the request's fingerprint with its sender over another channel before calling this.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister.admin.certificates import identity_uri, issue_certificate
from cloister.admin.custody import Custody
from cloister.admin.draft import add_host, add_person, replace_keys
from cloister.admin.external import accepted
from cloister.enrolment import EnrolmentRequest, Welcome
from cloister.errors import UsageError
from cloister.evidence.roster import Roster
from cloister.tls import load_csr, spki_sha256

CERTIFICATE_DAYS = 90
SERVER_NAMES = ("localhost", "127.0.0.1")


def admit_person(  # noqa: PLR0913 - each is one fact of the admission
    custody: Custody,
    request: EnrolmentRequest,
    person: str,
    team: str,
    roles: Sequence[str],
    *,
    now: int,
    endpoint: str = "",
    days: int = CERTIFICATE_DAYS,
    service: bool = False,
) -> Welcome:
    """Add a person, or an account of a pipeline, to the draft and make their welcome.

    They are known once the roster is signed and published.
    """
    draft = add_person(custody.draft(), request, person, team, roles, now=now, service=service)
    return _admitted(custody, draft, request, person, days, now, endpoint)


def rekey_person(
    custody: Custody,
    request: EnrolmentRequest,
    person: str,
    *,
    now: int,
    endpoint: str = "",
    days: int = CERTIFICATE_DAYS,
) -> Welcome:
    """Replace the keys of a person of the draft and make their welcome."""
    draft = replace_keys(custody.draft(), request, person, now=now)
    return _admitted(custody, draft, request, person, days, now, endpoint)


def recertify(
    custody: Custody,
    request: EnrolmentRequest,
    identifier: str,
    *,
    now: int,
    endpoint: str = "",
    days: int = CERTIFICATE_DAYS,
    certificate: bytes = b"",
) -> Welcome:
    """Another certificate for a person or host of the draft who kept their TLS key; the draft stays as it is.

    `certificate` (PEM) is one of an authority of the organisation's own; empty to issue one.
    Raises UsageError for a key that the draft does not pin for them, and for a certificate that does not fit.
    """
    draft = custody.draft()
    holders = draft.people if request.kind == "person" else draft.hosts
    pins = next((holder.tls_sha256 for holder in holders if holder.id == identifier), ())
    if spki_sha256(load_csr(request.csr_pem)) not in pins:
        raise UsageError(
            f"the draft does not pin this TLS key for {request.kind} {identifier!r}; admit the new keys instead"
        )
    names = (identity_uri(draft.site, request.kind, identifier),)
    return _welcome(custody, request, identifier, names, days, now, endpoint, certificate)


def admit_host(
    custody: Custody,
    request: EnrolmentRequest,
    host: str,
    pool: str,
    *,
    now: int,
    endpoint: str = "",
    days: int = CERTIFICATE_DAYS,
) -> Welcome:
    """Certify a host in the draft and make its welcome."""
    draft = add_host(custody.draft(), request, host, pool, now=now)
    return _admitted(custody, draft, request, host, days, now, endpoint)


def certify_server(
    custody: Custody,
    request: EnrolmentRequest,
    names: Sequence[str] = SERVER_NAMES,
    *,
    now: int,
    endpoint: str = "",
    days: int = CERTIFICATE_DAYS,
    certificate: bytes = b"",
) -> Welcome:
    """Certify the control plane's TLS key for host names and addresses.  It has no place on the roster.

    `certificate` as in `recertify`.
    """
    if request.kind != "server":
        raise UsageError(f"the request is for a {request.kind}, not for a server")
    return _welcome(custody, request, "server", tuple(names), days, now, endpoint, certificate)


def _admitted(
    custody: Custody, draft: Roster, request: EnrolmentRequest, identifier: str, days: int, now: int, endpoint: str
) -> Welcome:
    """The welcome of somebody in a new draft, which is kept once the welcome is made."""
    names = (identity_uri(draft.site, request.kind, identifier),)
    welcome = _welcome(custody, request, identifier, names, days, now, endpoint)
    custody.save_draft(draft)
    return welcome


def _welcome(
    custody: Custody,
    request: EnrolmentRequest,
    identifier: str,
    names: Sequence[str],
    days: int,
    now: int,
    endpoint: str,
    certificate: bytes = b"",
) -> Welcome:
    authority = custody.authority()
    if certificate:
        pem = accepted(custody, certificate, request.csr_pem, names, now)
    else:
        pem = issue_certificate(authority, request.csr_pem, names, days, now=now)
    return Welcome(
        site=custody.draft().site,
        endpoint=endpoint or custody.endpoint(),
        root_public=custody.root_public(),
        ca_pem=authority.certificate_pem + custody.external_authorities().decode("ascii"),
        certificate_pem=pem,
        id=identifier,
        kind=request.kind,
    )
