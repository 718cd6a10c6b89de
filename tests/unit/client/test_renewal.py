# SPDX-License-Identifier: Apache-2.0
"""Certificates are renewed at half their life, by the site or, where it issues none, by the custodian."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from cloister.admin.admit import recertify
from cloister.admin.certificates import identity_uri, issue_certificate
from cloister.api.v1 import identity_pb2
from cloister.enrolment import EnrolmentRequest
from cloister.errors import RefusedError, ServerError, UsageError
from cloister.home import install_welcome
from cloister.renewal import expires_at, is_due
from cloister.tls import generate_tls_key, make_csr
from fake_channel import Refusal
from memory_site import MemorySite
from set_clock import NOW

DAY = 24 * 3600
LATER = NOW + 50 * DAY
"""Past half of the ninety days of a certificate."""


def issuing(site: MemorySite, name: str = "anna", days: int = 90, now: int = LATER) -> None:
    """Let the site renew, for a name."""

    def renew(request: Any) -> identity_pb2.RenewCertificateResponse:  # noqa: ANN401 - see Handler
        uri = identity_uri("test", "person", name)
        pem = issue_certificate(site.custody.authority(), request.csr_pem, (uri,), days, now=now)
        return identity_pb2.RenewCertificateResponse(certificate_pem=pem)

    site.channel.handlers["RenewCertificate"] = renew


def certificate(site: MemorySite) -> bytes:
    return site.homes["anna"].read("tls.crt")


def asked(site: MemorySite) -> int:
    return site.channel.calls.count("RenewCertificate")


def test_a_certificate_is_renewed_at_half_its_life(site: MemorySite) -> None:
    """Before that nothing is asked; then the certificate is of the same key and ends later."""
    issuing(site)
    client, before = site.client(), certificate(site)
    assert "" == client.renew_if_due(NOW + 44 * DAY)
    assert (0, before) == (asked(site), certificate(site))
    assert "" == client.renew_if_due(LATER)
    assert expires_at(certificate(site)) > expires_at(before)
    assert not is_due(certificate(site), LATER)


def test_a_site_that_issues_none_is_asked_once_a_day(site: MemorySite) -> None:
    """The reason is told with the day on which the certificate ends, and not with every command."""

    def refuse(request: object) -> object:
        raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "issues none", "WRONG_STATE", state="no_issuing_key")

    site.channel.handlers["RenewCertificate"] = refuse
    client, before = site.client(), certificate(site)
    warning = client.renew_if_due(LATER)
    assert f"{expires_at(before):%Y-%m-%d}" in warning
    assert "no_issuing_key" in warning
    assert "" == client.renew_if_due(LATER + DAY - 1)
    assert "" != client.renew_if_due(LATER + DAY)
    assert (2, before) == (asked(site), certificate(site))
    with pytest.raises(RefusedError):
        client.renew_certificate()


def test_another_key_or_name_or_an_earlier_end_is_not_installed(site: MemorySite) -> None:
    """Whatever a hostile control plane answers, the certificate in use stays."""
    client, before = site.client(), certificate(site)
    other = make_csr(generate_tls_key())

    def foreign(request: object) -> identity_pb2.RenewCertificateResponse:
        uri = identity_uri("test", "person", "anna")
        pem = issue_certificate(site.custody.authority(), other, (uri,), 90, now=LATER)
        return identity_pb2.RenewCertificateResponse(certificate_pem=pem)

    def nothing(request: object) -> identity_pb2.RenewCertificateResponse:
        return identity_pb2.RenewCertificateResponse(certificate_pem="no PEM")

    issuing(site, "ben")
    another_name = site.channel.handlers["RenewCertificate"]
    for answer in (foreign, nothing, another_name):
        site.channel.handlers["RenewCertificate"] = answer
        with pytest.raises(ServerError):
            client.renew_certificate()
    issuing(site, days=1, now=NOW)
    assert expires_at(before) == client.renew_certificate()
    assert before == certificate(site)


def test_the_custodian_certifies_a_key_again(site: MemorySite) -> None:
    """The request of the beginning gives a new certificate; the draft stays, and another key is refused."""
    home, before, draft = site.homes["anna"], certificate(site), site.custody.draft()
    request = EnrolmentRequest.from_json(home.read("request.json"))
    install_welcome(home, recertify(site.custody, request, "anna", now=LATER))
    assert expires_at(certificate(site)) > expires_at(before)
    assert draft == site.custody.draft()
    for who in ("ben", "nobody"):
        with pytest.raises(UsageError, match="does not pin this TLS key"):
            recertify(site.custody, request, who, now=LATER)
