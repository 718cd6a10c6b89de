# SPDX-License-Identifier: Apache-2.0
import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.admin.admit import certify_server
from cloister.admin.log_key import make_log_key
from cloister.enrolment import EnrolmentRequest
from cloister.evidence.signatures import b64
from cloister.tls import generate_tls_key, make_csr, pair_fault, tls_key_pem
from cloister_server.__main__ import EXIT_CONFIG, EXIT_START, main
from cloister_server.checking import check_site
from cloister_server.config import Config, read_config
from cloister_server.database.engine import open_database
from cloister_server.errors import ConfigError
from cloister_server.migrations.schema import upgrade
from served_site import Founded, sqlite_url


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    return Founded(tmp_path_factory.mktemp("made"))


@pytest.fixture
def config(made: Founded, tmp_path: Path) -> Config:
    """A good configuration with files of its own."""
    config = made.config(sqlite_url(tmp_path))
    changes = {}
    for name in ("tls_certificate", "tls_key", "client_ca", "log_key_file", "roster_file"):
        path = tmp_path / getattr(config, name).name
        path.write_bytes(getattr(config, name).read_bytes())
        path.chmod(0o600)
        changes[name] = path
    return replace(config, store_directory=tmp_path / "store", **changes)


def problems(made: Founded, config: Config, days: int = 0) -> dict[str, str]:
    now = dt.datetime.fromtimestamp(made.now, dt.UTC) + dt.timedelta(days=days)
    return {problem.key: problem.text for problem in check_site(config, now)}


def test_a_good_site_has_no_problem(made: Founded, config: Config) -> None:
    """Nothing is found, and nothing is made: neither the database's file nor the store."""
    assert {} == problems(made, config)
    assert not config.store_directory.exists()


def other_pair(made: Founded, config: Config) -> None:
    config.tls_key.write_bytes(tls_key_pem(generate_tls_key()))


def other_log(made: Founded, config: Config) -> None:
    config.log_key_file.write_text(make_log_key("other.example/log").skey)


def new_log_key(made: Founded, config: Config) -> None:
    config.log_key_file.write_text(make_log_key(config.log_origin).skey)


def damaged_roster(made: Founded, config: Config) -> None:
    config.roster_file.write_bytes(config.roster_file.read_bytes().replace(b'"payload":"eyJ', b'"payload":"eyI'))


def open_key(made: Founded, config: Config) -> None:
    config.tls_key.chmod(0o644)


def no_authority(made: Founded, config: Config) -> None:
    config.client_ca.write_text("-----BEGIN CERTIFICATE-----\n")


def old_schema(made: Founded, config: Config) -> None:
    database = open_database(config.database_url)
    upgrade(database, "0001")
    database.dispose()


@pytest.mark.parametrize(
    ("break_it", "key", "word"),
    [
        (other_pair, "tls.certificate", "not for this key"),
        (other_log, "log.key_file", "other.example/log"),
        (new_log_key, "log.key_file", "another key than the one that the roster names"),
        (damaged_roster, "site.roster_file", "root custodian"),
        (open_key, "tls.key", "chmod 0600"),
        (no_authority, "tls.client_ca", "not a PEM certificate"),
        (old_schema, "database.url", "run `migrate` first"),
    ],
)
def test_what_is_wrong_is_found_with_what_to_do(
    made: Founded, config: Config, break_it: Callable[[Founded, Config], None], key: str, word: str
) -> None:
    """One thing that is wrong gives one problem, at its key."""
    break_it(made, config)
    found = problems(made, config)
    assert [key] == list(found)
    assert word in found[key]


def test_an_expired_certificate_is_found(made: Founded, config: Config) -> None:
    """After its last day the certificate is a problem, with what to do."""
    assert "expired" in problems(made, config, days=4000)["tls.certificate"]


def test_a_reserve_beyond_the_disk_is_found(made: Founded, config: Config) -> None:
    """A store that could not take a byte is said before the first upload fails."""
    assert ["store.reserve_bytes"] == list(problems(made, replace(config, reserve_bytes=1 << 50)))


def test_a_database_that_does_not_answer_is_found(made: Founded, config: Config, tmp_path: Path) -> None:
    """The problem names the key and not the password in the URL."""
    url = f"postgresql+psycopg://cloister:hunter2@/none?host={tmp_path}"
    found = problems(made, replace(config, database_url=url))
    assert ["database.url"] == list(found)
    assert "hunter2" not in found["database.url"]


def written(made: Founded, config: Config, tmp_path: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(
        f'[site]\nname = "{config.site}"\nroot_public = "{b64(config.root_public)}"\n'
        f'roster_file = "roster.dsse"\n[listen]\naddress = "127.0.0.1:0"\n'
        '[tls]\ncertificate = "tls.crt"\nkey = "tls.key"\nclient_ca = "ca.crt"\n'
        f'[database]\nurl = "{config.database_url}"\n[store]\ndirectory = "store"\nreserve_bytes = 1\n'
        f'[log]\norigin = "{config.log_origin}"\nkey_file = "log.key"\n'
    )
    return path


def test_the_command_prints_every_problem(
    made: Founded, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A good site ends with 0, two faults print two lines with their places and end with 3, a wrong key with 2."""
    path = written(made, config, tmp_path)
    assert 0 == main(["check-config", "--config", str(path)])
    open_key(made, config)
    config.client_ca.unlink()
    assert EXIT_START == main(["check-config", "--config", str(path)])
    lines = capsys.readouterr().err.splitlines()
    assert [f"{path}:9: [tls] key:", f"{path}:10: [tls] client_ca:"] == [line[: line.index(" /")] for line in lines]
    path.write_text(path.read_text().replace("reserve_bytes = 1", "reserve_bytes = -1"))
    assert EXIT_CONFIG == main(["check-config", "--config", str(path)])
    assert f"{path}:15: [store] reserve_bytes: -1 is not between" in capsys.readouterr().err


def test_a_password_in_the_environment_is_refused(made: Founded, config: Config, tmp_path: Path) -> None:
    """With PGPASSWORD set nothing starts, and the message says where the password belongs."""
    with pytest.raises(ConfigError, match=r"\[database\] password_file"):
        read_config(written(made, config, tmp_path), {"PGPASSWORD": "hunter2"})


def test_a_certificate_of_another_key_is_not_taken_for_a_pair(made: Founded) -> None:
    """Two pairs that were mixed up are told apart by their keys."""
    first, second = generate_tls_key(), generate_tls_key()
    certificate = certify_server(made.custody, EnrolmentRequest("server", make_csr(first)), now=made.now)
    pem = certificate.certificate_pem.encode()
    now = dt.datetime.fromtimestamp(made.now, dt.UTC)
    assert "" == pair_fault(pem, tls_key_pem(first), now)
    assert "not for this key" in pair_fault(pem, tls_key_pem(second), now)
    assert "clock" in pair_fault(pem, tls_key_pem(first), now - dt.timedelta(days=1))
    assert "damaged" in pair_fault(b"no", tls_key_pem(first), now)
