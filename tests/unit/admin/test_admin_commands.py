# SPDX-License-Identifier: Apache-2.0
"""`cloister-admin`: a whole site founded from the command line."""

import json

import pytest

from cloister.admin.main import cli
from cloister.cli.exits import run
from cloister.cli.main import cli as client_cli
from cloister.evidence.note import NoteSigner
from cloister.evidence.roster import verify_roster
from cloister.evidence.signatures import Statement, unb64


@pytest.fixture
def admin(tmp_path, monkeypatch, capsys):
    """Run a command of the custodian: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOISTER_ROOT", str(tmp_path / "root"))

    def command(*arguments):
        code = run("cloister-admin", cli, arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_found_a_site(admin, tmp_path, capsys):
    """Root, log, policy, team and person end in a roster that verifies and a welcome that pins the root."""
    assert 0 == admin("root", "init", "--site", "test", "--endpoint", "localhost:1")[0]
    assert 0 == admin("log", "keygen", "--origin", "test/log", "-o", "log.key")[0]
    assert 0 == admin("policy", "keygen", "-o", "policy.key")[0]
    assert 0 == admin("team", "add", "alpha", "--new-recovery", "alpha.recovery")[0]
    assert 0 == run("cloister", client_cli, ["keygen", "--home", "anna"])
    printed = capsys.readouterr().out
    code, _, err = admin(
        *("person", "add", "anna/request.json", "--id", "anna", "--team", "alpha"), "--role", "admin", "-o", "w.json"
    )
    assert 0 == code
    assert err.split()[1] in printed
    assert 0 == admin("roster", "sign")[0]
    (tmp_path / "p.yaml").write_text("id: p\napprovals: 1\n")
    assert 0 == admin("policy", "sign", "p.yaml", "--key", "policy.key", "-o", "p.dsse")[0]
    welcome = json.loads((tmp_path / "w.json").read_text())
    statement = Statement.from_bytes((tmp_path / "root" / "roster.dsse").read_bytes())
    now = json.loads(statement.payload)["issued_at"]
    roster = verify_roster(statement, unb64(welcome["root_public"], "root"), seen_version=0, now=now)
    assert ["anna"] == [person.id for person in roster.people]
    assert ["anna"] == [p["id"] for p in json.loads(admin("roster", "show")[1])["people"]]
    assert "anna" in admin("root", "show")[1]
    assert (tmp_path / "alpha.recovery").read_text().startswith("AGE-SECRET-KEY-PQ-1")


def test_the_root_may_bring_the_key_of_the_log(admin, tmp_path):
    """`root init --log-key` names the log after the site, and its public half stands in the draft."""
    assert 0 == admin("root", "init", "--site", "test", "--log-key", "log.key")[0]
    signer = NoteSigner.parse((tmp_path / "log.key").read_text().strip())
    assert "test/log" == signer.name
    assert signer.vkey in admin("root", "show")[1]


def test_nothing_is_overwritten(admin, tmp_path):
    """A second root, key or welcome file is refused, and the draft stays."""
    admin("root", "init", "--site", "test")
    assert 2 == admin("root", "init", "--site", "test")[0]
    admin("policy", "keygen", "-o", "policy.key")
    draft = (tmp_path / "root" / "draft.json").read_bytes()
    assert 2 == admin("policy", "keygen", "-o", "policy.key")[0]
    assert draft == (tmp_path / "root" / "draft.json").read_bytes()


def test_mistakes_are_one_line(admin):
    """Without a root, or with a wrong argument, one line says what to do."""
    code, out, err = admin("roster", "sign")
    assert (2, "", 1) == (code, out, err.count("\n"))
    assert "cloister-admin root init" in err
    admin("root", "init", "--site", "test")
    assert "log keygen" in admin("roster", "sign")[2]
    assert 2 == admin("team", "add", "alpha")[0]
    assert 2 == admin("host", "retire", "unknown")[0]
    assert 2 == admin("roster", "show", "--dir", "elsewhere")[0]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--person", "erin"),
        ("--person", "erin", "--team", "icu"),
        ("--host", "gpu2", "--team", "icu"),
        ("--host", "gpu2", "--role", "member"),
        ("--host", "gpu2", "--service"),
        ("--host", "gpu2", "--person", "erin"),
    ],
)
def test_a_token_is_for_a_person_or_for_a_host(admin, arguments):
    """A person's place and a host's are not mixed, nor is either named by half: nothing is asked of the site."""
    code, _, err = admin("token", "create", *arguments, "--home", "nobody")
    assert (2, True) == (code, "either --person, --team and --role, or --host and --pool" in err)
