# SPDX-License-Identifier: Apache-2.0
"""Making a worker host, and reading what it is made of."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloister.admin.admit import admit_host
from cloister.admin.root import create_root
from cloister.enrolment import EnrolmentRequest, Welcome
from cloister.errors import HomeError, UsageError
from cloister.tls import generate_tls_key, tls_key_pem
from cloister_workers import checking
from cloister_workers.agent.errors import ConfigError
from cloister_workers.agent.process import check_certificate
from cloister_workers.config import HostPaths, Limits, load_agent
from cloister_workers.init import init_host, install_welcome
from cloister_workers.keyagent.errors import KeyStoreError
from cloister_workers.keyagent.memory import Memory
from cloister_workers.keyagent.vault import load_vault

NOW = 1_800_000_000


def welcome_for(tmp_path: Path, request: EnrolmentRequest, name: str = "root") -> Welcome:
    custody = create_root(tmp_path / name, "test", endpoint="localhost:1")
    return admit_host(custody, request, "host-1", "default", now=NOW)


def test_a_host_is_made_and_installed(tmp_path: Path) -> None:
    """After init and install both processes find what they need, and secrets are their owner's alone."""
    request = init_host(tmp_path / "host")
    assert EnrolmentRequest.from_json((tmp_path / "host" / "request.json").read_text()) == request
    install_welcome(tmp_path / "host", welcome_for(tmp_path, request))
    paths = HostPaths(tmp_path / "host")
    vault, config = load_vault(paths.keyagent), load_agent(paths.root)
    assert (vault.host_id, config.host_id, config.endpoint) == ("host-1", "host-1", "localhost:1")
    assert str(vault.sealing.recipient) == request.recipient
    assert Memory(paths.keyagent).state.roster_version == 0
    modes = {path.stat().st_mode & 0o777 for path in paths.root.rglob("*.key")}
    assert modes == {0o600}
    assert load_agent(paths.root, "other:2").endpoint == "other:2"
    assert "PRIVATE" not in repr(config)


def test_a_key_may_be_a_credential_of_the_unit(tmp_path: Path) -> None:
    """A secret key that systemd decrypted takes the place of the file, which need not be there any more."""
    request = init_host(tmp_path / "host")
    install_welcome(tmp_path / "host", welcome_for(tmp_path, request))
    folder, credentials = HostPaths(tmp_path / "host").keyagent, tmp_path / "credentials"
    credentials.mkdir()
    for name in ("signing.key", "sealing.key"):
        (folder / name).rename(credentials / f"cloister-host-{name}")
    assert str(load_vault(folder, credentials).sealing.recipient) == request.recipient
    with pytest.raises(KeyStoreError, match=r"signing\.key"):
        load_vault(folder)


def test_keys_are_never_made_twice(tmp_path: Path) -> None:
    """A second init does not replace keys to which things are sealed."""
    init_host(tmp_path / "host")
    with pytest.raises(HomeError):
        init_host(tmp_path / "host")


def test_another_root_is_never_installed(tmp_path: Path) -> None:
    """A host that pins a root refuses a welcome of another, and keeps what it remembers on a renewal."""
    request = init_host(tmp_path / "host")
    welcome = welcome_for(tmp_path, request)
    install_welcome(tmp_path / "host", welcome)
    with pytest.raises(UsageError, match="another root"):
        install_welcome(tmp_path / "host", welcome_for(tmp_path, request, "other-root"))
    state = tmp_path / "host" / "keyagent" / "state.json"
    remembered = json.loads(state.read_text()) | {"roster_version": 7}
    state.write_text(json.dumps(remembered))
    install_welcome(tmp_path / "host", welcome)
    assert Memory(tmp_path / "host" / "keyagent").state.roster_version == 7


def test_a_certificate_of_another_key_is_not_installed(tmp_path: Path) -> None:
    """A welcome made for another host's request is refused before anything is written."""
    init_host(tmp_path / "host")
    other = init_host(tmp_path / "other")
    with pytest.raises(UsageError, match="does not belong"):
        install_welcome(tmp_path / "host", welcome_for(tmp_path, other))
    assert not (tmp_path / "host" / "keyagent" / "root.pub").exists()
    with pytest.raises(UsageError, match="is for a person"):
        install_welcome(tmp_path / "other", replace(welcome_for(tmp_path, other, "r2"), kind="person"))


def test_an_expired_certificate_is_said_plainly(tmp_path: Path) -> None:
    """Expired, not yet valid and damaged certificates are told apart, with what to do."""
    pem = welcome_for(tmp_path, init_host(tmp_path / "host")).certificate_pem.encode()
    when = datetime.fromtimestamp(NOW, UTC)
    key = (tmp_path / "host" / "agent" / "tls.key").read_bytes()
    check_certificate(pem, key, when)
    for moment, word in ((when + timedelta(days=400), "expired"), (when - timedelta(days=1), "clock")):
        with pytest.raises(ConfigError, match=word):
            check_certificate(pem, key, moment)
    with pytest.raises(ConfigError, match="damaged"):
        check_certificate(b"no", key, when)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("scratch = 1", "unknown key"),
        ("scratch_bytes = 'x'", "whole number"),
        ("scratch_bytes = 0", r"agent.toml:1: scratch_bytes: 0 is not between 1 and"),
        ("\nmemory_bytes = -1", r"agent.toml:2: memory_bytes: -1 is not"),
        ("threads = -1", "threads: -1 is not"),
        ("= 1", r"agent.toml:1: .*not TOML"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, word: str) -> None:
    """agent.toml is read strictly."""
    request = init_host(tmp_path / "host")
    install_welcome(tmp_path / "host", welcome_for(tmp_path, request))
    (tmp_path / "host" / "agent" / "agent.toml").write_text(text)
    with pytest.raises(ConfigError, match=word):
        load_agent(tmp_path / "host")
    (tmp_path / "host" / "agent" / "agent.toml").write_text("scratch_bytes = 5")
    assert load_agent(tmp_path / "host").limits == Limits(scratch_bytes=5)


def test_a_host_that_was_not_made_is_said_plainly(tmp_path: Path) -> None:
    """An empty directory names the command to run."""
    with pytest.raises(ConfigError, match="cloister-worker init"):
        load_agent(tmp_path)


def test_everything_wrong_with_a_host_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check-config` is content with a good host, and names a mixed-up pair and an open key together."""
    install_welcome(tmp_path / "host", welcome_for(tmp_path, init_host(tmp_path / "host")))
    when = datetime.fromtimestamp(NOW, UTC)
    assert 0 == checking.run(tmp_path / "host", when)
    key = tmp_path / "host" / "agent" / "tls.key"
    key.write_bytes(tls_key_pem(generate_tls_key()))
    key.chmod(0o644)
    assert 1 == checking.run(tmp_path / "host", when)
    said = capsys.readouterr().err
    assert "not for this key" in said
    assert f"chmod 0600 {key}" in said
    (tmp_path / "host" / "agent" / "agent.toml").write_text("threads = 1\nthread = 2\n")
    checking.run(tmp_path / "host", when)
    assert "agent.toml:2: thread: unknown key" in capsys.readouterr().err
