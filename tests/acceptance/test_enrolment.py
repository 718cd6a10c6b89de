# SPDX-License-Identifier: Apache-2.0
"""Enrolment with a one-time token, on a site of real processes, through the command lines of everybody involved."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.enrolment_token import EnrolmentToken
from live_site import LiveSite, Said, live_site
from second_host import add_programs

ROOT_DAYS = ("--days", "30")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSite]:
    """A control plane without workers."""
    with live_site(tmp_path_factory.mktemp("site"), start=False) as live:
        live.start("server")
        yield live


def issue(site: LiveSite, person: str, *roles: str, expires: str = "24h") -> str:
    arguments = ("--person", person, "--team", "helpdesk", "--roles", ",".join(roles), "--expires", expires)
    return site.ok("dana", "cloister-admin", "token", "create", *arguments).out.strip()


def enroll(site: LiveSite, person: str, token: str) -> Said:
    return site.said(person, "cloister", "enroll", "--server", endpoint(site), "--token", token)


def endpoint(site: LiveSite) -> str:
    return str(json.loads((site.layout.home("dana") / "site.json").read_text())["endpoint"])


def token_id(text: str) -> str:
    return EnrolmentToken.parse(text).id


def custodian(site: LiveSite, folder: Path) -> Said:
    """What admin and custodian do for every claim that waits."""
    folder.mkdir()
    site.ok("dana", "cloister-admin", "token", "fetch", "-o", str(folder / "claims.json"))
    root = ("--dir", str(site.layout.root))
    files = (str(folder / "claims.json"), "-o", str(folder / "welcomes.json"))
    shown = site.ok("custodian", "cloister-admin", "token", "admit", *files, *root, "--yes")
    site.ok("custodian", "cloister-admin", "roster", "sign", *root, *ROOT_DAYS)
    site.ok("dana", "cloister-admin", "roster", "publish", str(site.layout.root / "roster.dsse"))
    site.ok("dana", "cloister-admin", "token", "publish", str(folder / "welcomes.json"))
    return shown


def test_a_token_makes_a_member(site: LiveSite, tmp_path: Path) -> None:
    """From a token to a working member: keys made at home, the custodian sees their fingerprint, the root is pinned."""
    token = issue(site, "erin", "member", "approver")
    first = enroll(site, "erin", token)
    assert 0 == first.status, first.err
    fingerprint = first.out.split()[-1]
    again = enroll(site, "erin", token)
    assert fingerprint == again.out.split()[-1]
    shown = custodian(site, tmp_path / "way")
    assert fingerprint in shown.out
    done = enroll(site, "erin", token)
    assert 0 == done.status, done.err
    who = site.read("erin", "cloister", "whoami")
    assert ("erin", "helpdesk", ["approver", "member"]) == (who["id"], who["team"], who["roles"])
    assert not (site.layout.home("erin") / "enrolment.json").exists()
    assert "ADMITTED".lower() in site.ok("dana", "cloister-admin", "token", "list").out


def enroll_host(site: LiveSite, directory: Path, token: str) -> Said:
    at = (str(directory), "--server", endpoint(site), "--token", token)
    return site.said("dana", "cloister-worker", "enroll", *at)


def test_a_token_makes_a_worker_host(site: LiveSite, tmp_path: Path) -> None:
    """From a token to a running host: its keys are made in place, the custodian sees their fingerprint, the root is
    pinned, and key agent and agent of that directory work with the site.
    """
    place = tmp_path / "gpu2"
    said = site.ok("dana", "cloister-admin", "token", "create", "--host", "gpu2", "--pool", "default")
    assert "cloister-worker enroll" in said.err
    token = said.out.strip()
    first = enroll_host(site, place, token)
    assert 0 == first.status, first.err
    fingerprint = first.out.split()[-1]
    shown = custodian(site, tmp_path / "way")
    assert {"host", "gpu2", "pool", "default", fingerprint} <= set(shown.out.split())
    done = enroll_host(site, place, token)
    assert (0, "gpu2,") == (done.status, done.out.split()[1]), done.err
    assert not (place / "enrolment.json").exists()
    add_programs(site, place)
    for name in ("keyagent-2", "agent-2"):
        site.start(name)
    doctor = site.said("dana", "cloister-worker", "doctor", "--dir", str(place), "--json")
    levels = {(finding["check"], finding["level"]) for finding in json.loads(doctor.out)}
    assert {("key agent", "ok"), ("control plane", "ok"), ("certificate", "ok")} <= levels
    listed = json.loads(site.ok("dana", "cloister", "worker", "list", "--json").out)
    assert "gpu2" in {row["host"] for row in listed}
    assert "is a host of site dev.cloister already" in enroll_host(site, place, token).err


def test_a_token_of_a_host_makes_no_person(site: LiveSite, tmp_path: Path) -> None:
    """Each kind of token is refused at once by the other command, which is named, and the token stays unused."""
    at = ("cloister-admin", "token", "create", "--host", "gpu3")
    token = site.ok("dana", *at).out.strip()
    person = enroll(site, "mallory", token)
    assert "cloister-worker enroll" in person.err
    host = enroll_host(site, tmp_path / "gpu9", issue(site, "nora", "member"))
    assert (1, True) == (host.status, "use it with cloister enroll" in host.err)
    assert 0 == enroll_host(site, tmp_path / "gpu3", token).status


def test_the_log_and_the_site_never_see_the_secret(site: LiveSite) -> None:
    """Every step is an entry of the log, and the token's secret is in no file of the control plane."""
    token = issue(site, "frank", "member")
    assert 0 == enroll(site, "frank", token).status
    listed = site.ok("carol", "cloister", "audit", "list", "--object", token_id(token), "--json").out
    assert ["token.create", "token.claim"] == [entry["action"] for entry in json.loads(listed)]
    secret = EnrolmentToken.parse(token).secret
    held = b"".join(path.read_bytes() for path in site.layout.server.rglob("*") if path.is_file())
    assert token_id(token).encode() in held
    assert [] == [form for form in (secret, secret.hex().encode(), token.encode()) if form in held]


def test_a_used_token_is_refused(site: LiveSite) -> None:
    """Whoever comes second with a token, with other keys, hears that it was used, and leaves nothing."""
    token = issue(site, "grace", "member")
    assert 0 == enroll(site, "grace", token).status
    thief = enroll(site, "thief", token)
    assert 1 == thief.status
    assert "used already" in thief.err


def test_a_withdrawn_token_is_refused(site: LiveSite) -> None:
    """What an admin took back opens nothing, whether it was claimed or not."""
    token = issue(site, "heidi", "member")
    site.ok("dana", "cloister-admin", "token", "withdraw", token_id(token))
    refused = enroll(site, "heidi", token)
    assert 3 == refused.status
    assert "withdrawn" in refused.err


def test_an_altered_token_is_refused(site: LiveSite) -> None:
    """A damaged token is named as such; one with another expiry, whole again, has no key that the site knows."""
    token = issue(site, "ivan", "member")
    swapped = token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:]
    damaged = enroll(site, "ivan", swapped)
    assert 2 == damaged.status
    assert "altered" in damaged.err
    whole = EnrolmentToken.parse(token)
    forged = EnrolmentToken(whole.secret, whole.root_sha256, whole.server_sha256, whole.expires_at + 60, whole.site)
    refused = enroll(site, "ivan2", forged.export())
    assert 3 == refused.status
    assert "does not take this enrolment token" in refused.err


def test_a_token_of_another_site_is_refused(site: LiveSite) -> None:
    """The server's TLS key is compared before anything is sent."""
    other = EnrolmentToken.generate("dev.cloister", b"r" * 32, "0" * 64, 2**31)
    refused = enroll(site, "judy", other.export())
    assert 2 == refused.status
    assert "not the server that the enrolment token names" in refused.err


def test_the_key_of_a_token_opens_one_method(site: LiveSite) -> None:
    """A token's TLS key gets past the handshake and is refused everywhere but at its own method."""
    import grpc

    from cloister.api.v1 import identity_pb2
    from cloister.channel import Connection
    from cloister.errors import PermissionDeniedError
    from cloister.joining import dial

    token = EnrolmentToken.parse(issue(site, "kim", "member"))
    channel: grpc.Channel = dial(token, endpoint(site))
    connection = Connection(channel)
    with pytest.raises(PermissionDeniedError, match="role"):
        connection.call(connection.identity.GetSite, identity_pb2.GetSiteRequest())
    connection.close()
