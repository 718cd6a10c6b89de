# SPDX-License-Identifier: Apache-2.0
"""The custodian's library: roots, rosters, certificates, policies."""

import datetime as dt
import ipaddress
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloister.admin.admit import admit_host, admit_person, certify_server
from cloister.admin.certificates import identity_uri, issue_certificate
from cloister.admin.draft import add_policy_key, add_team, retire_host, retire_person, set_log
from cloister.admin.log_key import make_log_key, write_log_key
from cloister.admin.policy import policy_keygen, read_policy
from cloister.admin.root import create_root
from cloister.admin.sign import sign_next
from cloister.enrolment import EnrolmentRequest
from cloister.errors import HomeError, UsageError
from cloister.evidence.note import NoteSigner
from cloister.evidence.policy import verify_policy
from cloister.evidence.roster import Roster, verify_roster
from cloister.evidence.signatures import SigningKey, b64
from cloister.sealed.keys import Identity
from cloister.tls import generate_tls_key, load_csr, load_tls_key, make_csr, spki_sha256, tls_key_pem

NOW = 1_800_000_000
DAY = 24 * 3600


@pytest.fixture
def custody(tmp_path):
    made = create_root(tmp_path / "root", "test", endpoint="localhost:1", clock=lambda: NOW)
    draft = add_team(made.draft(), "alpha", str(Identity.generate().recipient))
    made.save_draft(set_log(draft, "test/log", make_log_key("test/log").vkey))
    return made


def request(kind="person"):
    public, recipient = b64(SigningKey.generate().public), str(Identity.generate().recipient)
    csr = make_csr(generate_tls_key())
    return EnrolmentRequest(kind, csr) if kind == "server" else EnrolmentRequest(kind, csr, public, recipient)


def names(pem):
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_root_is_private_and_made_once(custody):
    """Every file of the custodian is closed to others; a second root is refused."""
    modes = {stat.S_IMODE(path.stat().st_mode) for path in custody.directory.iterdir()}
    assert {0o600} == modes
    with pytest.raises(HomeError, match="exists already"):
        create_root(custody.directory, "test", clock=lambda: NOW)


def test_injected_randomness_makes_the_root(tmp_path):
    """The root key comes from the given source."""
    made = create_root(tmp_path / "r", "test", clock=lambda: NOW, random=lambda n: b"\x07" * n)
    assert SigningKey(b"\x07" * 32) == made.root_key()


def test_signed_roster_verifies_and_counts(custody):
    """Each signature has the next version, verifies against the root, and is the one that is kept."""
    first, second = sign_next(custody, 30, now=NOW), sign_next(custody, 30, now=NOW)
    root = custody.root_key().public
    versions = [verify_roster(s, root, seen_version=0, now=NOW).version for s in (first, second)]
    assert [1, 2] == versions
    assert second == custody.roster()


def test_roster_needs_a_log(tmp_path):
    """A roster that names no log is not signed: nobody could check an opening."""
    made = create_root(tmp_path / "r", "test", clock=lambda: NOW)
    with pytest.raises(UsageError, match="log keygen"):
        sign_next(made, 30, now=NOW)


def test_person(custody):
    """A person's certificate names them, their key is pinned, and the draft holds their keys."""
    asked = request()
    welcome = admit_person(custody, asked, "anna", "alpha", ["member", "admin"], now=NOW)
    (person,) = custody.draft().people
    certificate = x509.load_pem_x509_certificate(welcome.certificate_pem.encode())
    assert (spki_sha256(certificate),) == person.tls_sha256
    uris = names(welcome.certificate_pem).get_values_for_type(x509.UniformResourceIdentifier)
    assert ["cloister://test/person/anna"] == uris
    assert ("localhost:1", "anna", "person") == (welcome.endpoint, welcome.id, welcome.kind)
    certificate.verify_directly_issued_by(custody.authority().certificate)
    assert dt.datetime.fromtimestamp(NOW + 90 * DAY, dt.UTC) == certificate.not_valid_after_utc


def test_the_request_cannot_choose_its_name(custody):
    """Nothing but the key of a request reaches the certificate."""
    key = generate_tls_key()
    evil = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(evil)
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("cloister://test/person/root")])
    csr = builder.add_extension(san, critical=False).sign(key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    certificate = issue_certificate(custody.authority(), pem, [identity_uri("test", "person", "anna")], 1, now=NOW)
    uris = names(certificate).get_values_for_type(x509.UniformResourceIdentifier)
    assert ["cloister://test/person/anna"] == uris


def test_server(custody):
    """The server's certificate has names and addresses, and no place on the roster."""
    welcome = certify_server(custody, request("server"), now=NOW)
    san = names(welcome.certificate_pem)
    assert ["localhost"] == san.get_values_for_type(x509.DNSName)
    assert [ipaddress.ip_address("127.0.0.1")] == san.get_values_for_type(x509.IPAddress)
    assert () == custody.draft().hosts
    with pytest.raises(UsageError):
        certify_server(custody, request(), now=NOW)


def test_host_and_its_end(custody):
    """A retired host keeps its place, so that what it signed verifies, but is in no pool and has no TLS key."""
    admit_host(custody, request("host"), "gpu-1", "default", now=NOW)
    draft = custody.draft()
    assert ["gpu-1"] == [host.id for host in draft.pool_hosts("default", NOW)]
    retired = retire_host(draft, "gpu-1", now=NOW + 1)
    assert () == retired.pool_hosts("default", NOW + 1)
    (host,) = retired.hosts
    assert ((), NOW + 1) == (host.tls_sha256, host.signing_keys[0].retired_at)


def test_person_and_their_end(custody):
    """A retired person has no roles, no TLS key and a retired signing key."""
    admit_person(custody, request(), "anna", "alpha", ["member"], now=NOW)
    (person,) = retire_person(custody.draft(), "anna", now=NOW + 1).people
    assert ((), ()) == (person.roles, person.tls_sha256)
    assert person.signing_keys[0].signs_at(NOW)
    assert not person.signing_keys[0].signs_at(NOW + 1)


def refused(custody, **changes):
    """Arguments of admit_person with something wrong."""
    good = {"request": request(), "person": "anna", "team": "alpha", "roles": ["member"]}
    values = {**good, **changes}
    return admit_person(custody, values["request"], values["person"], values["team"], values["roles"], now=NOW)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"person": "Anna"}, "is not a name"),
        ({"person": "a/b"}, "is not a name"),
        ({"team": "nobody"}, "is not in the draft"),
        ({"roles": []}, "needs a role"),
        ({"roles": ["root"]}, "unknown"),
        ({"request": request("host")}, "for a host"),
    ],
)
def test_admission_refuses(custody, changes, said):
    """Each mistake is refused and leaves the draft as it was."""
    before = custody.draft()
    with pytest.raises(UsageError, match=said):
        refused(custody, **changes)
    assert before == custody.draft()


def test_keys_are_nobodys_twice(custody):
    """Neither an id nor a TLS key is given twice."""
    asked = request()
    refused(custody, request=asked)
    with pytest.raises(UsageError, match="already"):
        refused(custody)
    with pytest.raises(UsageError, match="TLS key"):
        refused(custody, request=asked, person="ben")


def test_damaged_requests(custody):
    """Keys that are none are refused with what to do."""
    good = request()
    for changes in (
        {"signing_public": "AAAA"},
        {"recipient": "age1pq1x"},
        {"csr_pem": "none"},
        {"signing_public": "!"},
    ):
        with pytest.raises(UsageError):
            refused(custody, request=EnrolmentRequest(**{**good.__dict__, **changes}))


def test_log_is_set_once(custody):
    """A site keeps its log: another key would let a fork pass."""
    draft = custody.draft()
    with pytest.raises(UsageError, match="keeps its log"):
        set_log(draft, "test/log", make_log_key("test/log").vkey)
    assert draft == set_log(draft, "test/log", draft.log_vkey)
    with pytest.raises(UsageError, match="not for"):
        set_log(draft, "other", draft.log_vkey)


def test_log_key_file(tmp_path):
    """The stored key is the signer, readable by its owner alone."""
    signer = make_log_key("test/log")
    write_log_key(tmp_path / "k", signer)
    assert signer.vkey == NoteSigner.parse((tmp_path / "k").read_text().strip()).vkey
    assert 0o600 == stat.S_IMODE((tmp_path / "k").stat().st_mode)


def test_policy_from_yaml(custody, tmp_path):
    """A policy written by people verifies against the roster's policy key."""
    key = policy_keygen(tmp_path / "policy.key")
    custody.save_draft(add_policy_key(custody.draft(), key.public, now=NOW))
    text = "id: standard\napprovals: 1\nrules:\n- {metric: eval_accuracy, at_least: 0.8}\n"
    policy = read_policy(text, 30, now=NOW)
    roster = Roster.parse(sign_next(custody, 30, now=NOW).payload)
    assert policy == verify_policy(policy.sign(key), roster, now=NOW)
    assert ("eval_accuracy", "0.8") == (policy.rules[0].metric, policy.rules[0].at_least)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "a: [",
        "approvals: 1",
        "id: x\napprovals: 0",
        "id: x\napprovals: 1\nauto_release: true",
        "id: x\napprovals: yes",
        "id: x\napprovals: 1\nunknown: 1",
        "id: x\napprovals: 1\nrules: [{metric: m}]",
        "id: x\napprovals: 1\nrules: [{metric: m, at_least: .inf}]",
        "id: x\napprovals: 1\nrules: [{at_least: 1}]",
    ],
)
def test_bad_policies(text):
    """A policy that says nothing, too much or two things at once is refused."""
    with pytest.raises(UsageError, match="policy"):
        read_policy(text, 30, now=NOW)


def test_tls_keys():
    """Only P-256 keys are taken, and a key survives its file."""

    key = generate_tls_key()
    assert spki_sha256(key) == spki_sha256(load_tls_key(tls_key_pem(key))) == spki_sha256(load_csr(make_csr(key)))
    other = ec.generate_private_key(ec.SECP384R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(other, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(UsageError, match="P-256"):
        load_csr(pem)
    with pytest.raises(UsageError):
        load_tls_key(b"none")


def test_certificate_names_are_of_one_kind(custody):
    """A certificate is a client's or a server's, never both."""
    csr = make_csr(generate_tls_key())
    for bad in ([], ["localhost", "cloister://test/person/a"]):
        with pytest.raises(UsageError, match="one kind"):
            issue_certificate(custody.authority(), csr, bad, 1, now=NOW)
