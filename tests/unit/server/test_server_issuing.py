# SPDX-License-Identifier: Apache-2.0
"""What the control plane certifies again, and what never."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from cloister_server.calls import Principal
from cloister_server.errors import InvalidFieldError, StartError, WrongStateError
from cloister_server.issuing import Issuer
from served_site import Founded, Keys


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    return Founded(tmp_path_factory.mktemp("founded"))


def issuer(founded: Founded) -> Issuer:
    root = founded.directory / "root"
    files = {"issuing_key": root / "ca.key", "issuing_certificate": root / "ca.crt"}
    return Issuer.load(founded.config("sqlite:///x", certificate_days=7, **files))


def alice(founded: Founded) -> Principal:
    return Principal("alice", "person", "blue", "", frozenset({"member"}), "", "")


def test_a_pinned_key_is_certified_under_its_own_name(founded: Founded) -> None:
    """The name is the caller's whatever the request says, and the life is the configuration's."""
    csr = founded.people["alice"].request("person").csr_pem
    pem = issuer(founded).renew(alice(founded), founded.roster, csr, now=founded.now)
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ["cloister://test/person/alice"] == names.get_values_for_type(x509.UniformResourceIdentifier)
    assert founded.now + 7 * 86400 == int(certificate.not_valid_after_utc.timestamp())
    host = Principal("host-1", "host", "", "default", frozenset({"worker"}), "", "")
    csr = founded.hosts["host-1"].request("host").csr_pem
    assert issuer(founded).renew(host, founded.roster, csr, now=founded.now)


def test_a_key_that_the_roster_does_not_pin_is_refused(founded: Founded) -> None:
    """Neither a new key nor somebody else's gets the caller's name."""
    for keys in (Keys(), founded.people["erin"]):
        csr = keys.request("person").csr_pem
        with pytest.raises(InvalidFieldError, match="does not pin"):
            issuer(founded).renew(alice(founded), founded.roster, csr, now=founded.now)
    with pytest.raises(InvalidFieldError, match="csr_pem"):
        issuer(founded).renew(alice(founded), founded.roster, "no PEM", now=founded.now)


def test_without_an_issuing_key_the_road_is_named(founded: Founded) -> None:
    """The refusal says who certifies instead."""
    csr = founded.people["alice"].request("person").csr_pem
    with pytest.raises(WrongStateError, match="cloister-admin person certify") as refused:
        Issuer.load(founded.config("sqlite:///x")).renew(alice(founded), founded.roster, csr, now=founded.now)
    assert "no_issuing_key" == refused.value.metadata["state"]


def test_a_key_of_another_certificate_stops_the_start(founded: Founded) -> None:
    """Key and certificate of the issuer must belong together, and be there."""
    root = founded.directory / "root"
    good = founded.config("sqlite:///x", issuing_key=root / "ca.key", issuing_certificate=root / "ca.crt")
    for key in (founded.directory / "tls.key", Path("/nonexistent")):
        with pytest.raises(StartError, match="issuing_key"):
            Issuer.load(replace(good, issuing_key=key))
