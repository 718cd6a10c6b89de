# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from cloister.admin.certificates import create_authority, issue_certificate
from cloister.evidence.roster import Host, Person, Roster, Team
from cloister.tls import generate_tls_key, make_csr
from cloister_server.errors import UnknownIdentityError
from cloister_server.identity import Presented, presented, read_certificate, resolve, transport

NOW = 1_800_000_000
KEY = "a" * 64
ALICE = Person("alice", "blue", ("member",), (), (KEY,), "")
HOST = Host("host-1", "default", (), (KEY,), "")
ROSTER = Roster(
    site="test",
    version=1,
    issued_at=NOW,
    expires_at=NOW + 1,
    minimum_client_version="0.1.0",
    log_origin="o",
    log_vkey="v",
    policy_keys=(),
    people=(ALICE,),
    teams=(Team("blue", ""),),
    hosts=(HOST,),
)


def certificate(*names: str) -> bytes:
    key = generate_tls_key()
    return issue_certificate(create_authority("test", NOW), make_csr(key), names, 1, now=NOW).encode()


def test_a_pinned_person_is_known_with_team_and_roles() -> None:
    """Name and key of the roster give a principal with the roster's team and roles."""
    found = resolve(Presented("test", "person", "alice", KEY), ROSTER, "TLSv1.3", now=NOW)
    assert ("alice", "person", "blue", frozenset({"member"})) == (found.id, found.kind, found.team, found.roles)


def test_a_pinned_host_is_a_worker_of_its_pool() -> None:
    """A host's only role is worker, and it has no team."""
    found = resolve(Presented("test", "host", "host-1", KEY), ROSTER, "", now=NOW)
    assert ("default", "", frozenset({"worker"})) == (found.pool, found.team, found.roles)


@pytest.mark.parametrize(
    "caller",
    [
        Presented("other", "person", "alice", KEY),
        Presented("test", "person", "alice", "b" * 64),
        Presented("test", "person", "host-1", KEY),
        Presented("test", "host", "alice", KEY),
        Presented("test", "person", "nobody", KEY),
    ],
)
def test_everybody_else_is_unknown_in_the_same_words(caller: Presented) -> None:
    """Another site, key, kind or name is refused, and the words do not tell which of them was wrong."""
    with pytest.raises(UnknownIdentityError, match=r"^this certificate is not one that the site's roster pins"):
        resolve(caller, ROSTER, "", now=NOW)


def test_a_retired_host_is_unknown() -> None:
    """From the moment of its retirement a host is refused, though its key is still listed."""
    roster = replace(ROSTER, hosts=(replace(HOST, retired_at=NOW),))
    with pytest.raises(UnknownIdentityError):
        resolve(Presented("test", "host", "host-1", KEY), roster, "", now=NOW)


def test_a_certificate_names_one_identity() -> None:
    """Site, kind and id come out of the only URI of the certificate."""
    found = read_certificate(certificate("cloister://test/host/host-1"))
    assert ("test", "host", "host-1", 64) == (found.site, found.kind, found.id, len(found.key_sha256))


@pytest.mark.parametrize(
    "names",
    [
        ("cloister://test/person/alice", "cloister://test/person/bob"),
        ("cloister://test/admin/alice",),
        ("cloister://test/person/alice/more",),
        ("cloister://test/person/Alice",),
        ("https://test/person/alice",),
        ("localhost",),
    ],
)
def test_a_certificate_with_another_name_names_nobody(names: tuple[str, ...]) -> None:
    """Two names, another form or a host name are no identity."""
    with pytest.raises(UnknownIdentityError):
        read_certificate(certificate(*names))


@pytest.mark.parametrize("context", [{}, {"x509_pem_cert": [b"junk"]}, {"x509_pem_cert": [b"", b""]}])
def test_a_connection_without_a_certificate_is_unknown(context: dict[str, list[bytes]]) -> None:
    """No certificate, a damaged one and several are all refused."""
    with pytest.raises(UnknownIdentityError):
        presented(context)


def test_the_transport_is_told_in_words() -> None:
    """TLS version and key exchange group are joined as gRPC reports them."""
    context = {"ssl_tls_version": [b"TLSv1.3"], "ssl_negotiated_key_exchange_group": [b"X25519MLKEM768"]}
    assert "TLSv1.3 X25519MLKEM768" == transport(context)
