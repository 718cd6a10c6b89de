# SPDX-License-Identifier: Apache-2.0
"""Making a control plane out of what the root custodian answers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cloister.admin.admit import certify_server
from cloister.admin.custody import Custody
from cloister.admin.log_key import make_log_key
from cloister.admin.root import create_root
from cloister.enrolment import EnrolmentRequest
from cloister_server.__main__ import main
from cloister_server.config import load_config

NOW = 1_800_000_000
ORIGIN = "hospital.example/log"


@pytest.fixture
def custody(tmp_path: Path) -> Custody:
    return create_root(tmp_path / "root", "hospital.example", endpoint="site:8443")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "server"


def answered(tmp_path: Path, custody: Custody, place: Path, kind: str = "server") -> list[str]:
    """`install` with what the custodian made of the request in `place`."""
    request = EnrolmentRequest.from_json((place / "request.json").read_bytes())
    welcome = dataclasses.replace(certify_server(custody, request, now=NOW), kind=kind)
    (tmp_path / "welcome.json").write_text(welcome.to_json())
    (tmp_path / "log.key").write_text(f"{make_log_key(ORIGIN).skey}\n")
    (tmp_path / "roster.dsse").write_bytes(b"{}")
    files = {"--dir": place, "--config": tmp_path / "server.toml"}
    files |= {"--log-key": tmp_path / "log.key", "--roster": tmp_path / "roster.dsse"}
    options = [str(part) for pair in files.items() for part in pair]
    return ["install", str(tmp_path / "welcome.json"), "--database", "sqlite:///x.db", *options]


def test_request_and_welcome_make_a_configuration_that_loads(tmp_path: Path, custody: Custody, place: Path) -> None:
    """Two commands, and the control plane can start: every file that the configuration names is there, private."""
    assert main(["init", "--dir", str(place)]) == 0
    assert main(answered(tmp_path, custody, place)) == 0
    config = load_config(tmp_path / "server.toml")
    assert (config.site, config.address, config.log_origin) == ("hospital.example", "0.0.0.0:8443", ORIGIN)
    named = (config.tls_certificate, config.tls_key, config.client_ca, config.log_key_file, config.roster_file)
    assert {path.stat().st_mode & 0o777 for path in named} == {0o600}


def test_a_configuration_that_is_there_stays(tmp_path: Path, custody: Custody, place: Path) -> None:
    """A renewed certificate is installed by the same command, and what an administrator wrote is kept."""
    main(["init", "--dir", str(place)])
    arguments = answered(tmp_path, custody, place)
    main(arguments)
    (tmp_path / "server.toml").write_text("mine")
    before = (place / "log.key").read_bytes()
    assert main(answered(tmp_path, custody, place)) == 0
    assert (tmp_path / "server.toml").read_text() == "mine"
    assert (place / "log.key").read_bytes() == before


def test_keys_are_never_made_twice(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`init` where a key is refuses, and says where it lies."""
    assert main(["init", "--dir", str(place)]) == 0
    key = (place / "tls.key").read_bytes()
    assert main(["init", "--dir", str(place)]) == 2
    assert str(place / "tls.key") in capsys.readouterr().err
    assert (place / "tls.key").read_bytes() == key


@pytest.mark.parametrize("foreign", ["kind", "key", "words"])
def test_a_welcome_of_another_is_refused(
    tmp_path: Path, custody: Custody, place: Path, foreign: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One for a host, one for another key, or no welcome at all changes nothing."""
    main(["init", "--dir", str(place)])
    arguments = answered(tmp_path, custody, place, kind="host" if foreign == "kind" else "server")
    if foreign == "key":
        main(["init", "--dir", str(tmp_path / "other")])
        (place / "tls.key").write_bytes((tmp_path / "other" / "tls.key").read_bytes())
    if foreign == "words":
        (tmp_path / "welcome.json").write_text(json.dumps({"site": "x"}))
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("cloister-server: ")
    assert not (place / "tls.crt").exists()
    assert not (tmp_path / "server.toml").exists()
