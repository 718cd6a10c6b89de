# SPDX-License-Identifier: Apache-2.0
"""TLS certificates of an organisation's own authority: which are taken, and what is said of the others."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509

from cloister.admin.admit import certify_server
from cloister.admin.backup import restore_backup, write_backup
from cloister.admin.custody import Custody
from cloister.admin.external import accepted, trust
from cloister.admin.root import create_root
from cloister.enrolment import EnrolmentRequest
from cloister.errors import UsageError
from cloister.tls import generate_tls_key, make_csr
from corporate_authority import Authority, corporate_root

NOW = 1_800_000_000
START = dt.datetime.fromtimestamp(NOW, dt.UTC) - dt.timedelta(hours=1)
NAMES = ("cloister.example.org", "10.0.0.1")
CSR = make_csr(generate_tls_key())


@pytest.fixture(scope="module")
def root() -> Authority:
    return corporate_root()


@pytest.fixture(scope="module")
def issuing(root: Authority) -> Authority:
    return root.authority("issuing 7")


@pytest.fixture
def custody(tmp_path: Path, root: Authority) -> Custody:
    """A custodian who trusts the corporate root."""
    made = create_root(tmp_path / "root", "test.example", endpoint="localhost:1")
    assert 1 == trust(made, root.pem, NOW)
    return made


def test_a_certificate_with_its_chain_is_taken_as_it_is(custody: Custody, issuing: Authority) -> None:
    """The welcome carries the whole chain, and names both authorities to trust."""
    pem = issuing.issue(CSR, NAMES, START)
    welcome = certify_server(custody, EnrolmentRequest("server", CSR), NAMES, now=NOW, certificate=pem)
    assert pem.decode() == welcome.certificate_pem
    assert custody.authority().certificate_pem + custody.external_authorities().decode() == welcome.ca_pem


def test_other_welcomes_name_the_authority_too(custody: Custody, root: Authority) -> None:
    """Whoever is certified by the site's own authority can still talk to a server that is not."""
    welcome = certify_server(custody, EnrolmentRequest("server", CSR), NAMES, now=NOW)
    assert welcome.ca_pem.endswith(root.pem.decode())
    assert welcome.certificate_pem.count("BEGIN") == 1


@pytest.mark.parametrize(
    ("csr", "names", "start", "said"),
    [
        (make_csr(generate_tls_key()), NAMES, START, "not for the key of the request"),
        (CSR, ("cloister.example.org",), START, "it must name cloister.example.org, 10.0.0.1"),
        (CSR, (*NAMES, "other.example.org"), START, "names 10.0.0.1, cloister.example.org, other.example.org"),
        (CSR, NAMES, START + dt.timedelta(days=1), "does not hold now"),
        (CSR, NAMES, START - dt.timedelta(days=366), "does not hold now"),
    ],
)
def test_what_does_not_fit_is_said(
    custody: Custody, issuing: Authority, csr: str, names: tuple[str, ...], start: dt.datetime, said: str
) -> None:
    """Another key, names too few or too many, not yet or no longer valid."""
    with pytest.raises(UsageError, match=said):
        accepted(custody, issuing.issue(csr, names, start), CSR, NAMES, NOW)


def test_a_certificate_of_a_stranger_is_refused(custody: Custody, tmp_path: Path) -> None:
    """Of another root with the same name, of an intermediate that is left out, or where nothing is trusted."""
    stranger = corporate_root()
    with pytest.raises(UsageError, match="nobody trusted has issued the certificate of CN=issuing 7"):
        accepted(custody, stranger.authority("issuing 7").issue(CSR, NAMES, START), CSR, NAMES, NOW)
    bare = create_root(tmp_path / "bare", "test.example", endpoint="localhost:1")
    with pytest.raises(UsageError, match="nobody trusted"):
        accepted(bare, stranger.issue(CSR, NAMES, START), CSR, NAMES, NOW)


def test_a_chain_without_its_middle_is_refused(custody: Custody, issuing: Authority) -> None:
    """What the leaf alone cannot show to whoever trusts the root is asked for."""
    leaf = issuing.issue(CSR, NAMES, START).partition(b"-----END CERTIFICATE-----\n")
    with pytest.raises(UsageError, match="append the intermediate"):
        accepted(custody, leaf[0] + leaf[1], CSR, NAMES, NOW)


def test_a_leaf_issues_nothing(custody: Custody, issuing: Authority) -> None:
    """A chain through somebody's own certificate, which is no authority's, is refused."""
    key = generate_tls_key()
    theirs = issuing.issue(make_csr(key), NAMES, START)
    leaf = theirs.partition(b"-----END CERTIFICATE-----\n")
    forged = Authority(key, x509.load_pem_x509_certificate(leaf[0] + leaf[1])).issue(CSR, NAMES, START)
    with pytest.raises(UsageError, match="nobody trusted"):
        accepted(custody, forged + issuing.pem, CSR, NAMES, NOW)


def test_only_authorities_are_trusted(custody: Custody, issuing: Authority) -> None:
    """A leaf, an expired authority and a file of something else are refused, and what was trusted stays."""
    before = custody.external_authorities()
    leaf = issuing.issue(CSR, NAMES, START)
    for pem, now, said in (
        (leaf, NOW, "no certificate authority"),
        (issuing.pem, NOW + 10 * 365 * 86400, "has expired"),
        (b"hello", NOW, "no certificate in PEM"),
    ):
        with pytest.raises(UsageError, match=said):
            trust(custody, pem, now)
    assert before == custody.external_authorities()


def test_a_backup_keeps_what_is_trusted(custody: Custody, tmp_path: Path) -> None:
    """A custodian who starts again from a backup still trusts the authority."""
    data = write_backup(custody, "correct horse battery")
    again = restore_backup(data, "correct horse battery", tmp_path / "again")
    assert custody.external_authorities() == again.external_authorities() != b""
