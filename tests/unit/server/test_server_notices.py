# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from pathlib import Path

import pytest

from cloister_server.config import Config, read_config
from cloister_server.errors import ConfigError, StartError
from cloister_server.notices.sender import Pace
from cloister_server.notices.setup import build_notices, check_notices
from cloister_server.notices.webhook import parse_secret, signature
from served_site import Founded
from server_process import write_config

PACE = Pace(limit=10.0, give_up=86_400.0, poll=5.0)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    return Founded(tmp_path_factory.mktemp("founded"))


def read(founded: Founded, section: str) -> Config:
    path = write_config(founded, "sqlite:///x.db", "notices", f"[notices]\n{section}\n")
    return read_config(path, {})[0]


def problems(config: Config) -> dict[str, str]:
    return {problem.key: problem.text for problem in check_notices(config, ())}


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example that the specification's libraries test themselves with comes out (standard-webhooks, v1)."""
    found = signature(parse_secret(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == found


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!", "whsec_" + "A" * 100]
)
def test_a_secret_is_long_enough_and_not_repeated(text: str) -> None:
    """What is no key of 24 to 64 bytes is refused in words that hold none of it."""
    with pytest.raises(ValueError, match="24 to 64 bytes") as refused:
        parse_secret(text)
    assert text.removeprefix("whsec_") in ("", "!") or text not in str(refused.value)


def test_waits_double_up_to_an_hour() -> None:
    """Without chance a wait is half of 5, 10, 20 … seconds, with all of it the whole, and never more than an hour."""
    assert [2.5, 5.0, 10.0, 20.0] == [PACE.wait(attempts, 0.0) for attempts in (1, 2, 3, 4)]
    assert [5.0, 2560.0, 3600.0, 3600.0] == [PACE.wait(attempts, 1.0) for attempts in (1, 10, 11, 10_000)]


def test_a_lease_outlives_a_delivery() -> None:
    """Nobody else takes a notice while its delivery may still run."""
    assert PACE.lease > PACE.limit


def test_what_belongs_to_a_url_needs_one(founded: Founded) -> None:
    """A secret without a URL is told with its line."""
    with pytest.raises(ConfigError, match=r"notices\.toml:\d+: \[notices\] secret_file: .*url is missing"):
        read(founded, 'command = ["/bin/true"]\nsecret_file = "x"')


def test_a_hook_must_be_a_program_that_others_cannot_change(founded: Founded, tmp_path: Path) -> None:
    """check-config says that it is missing, no program, or open to everybody; a good one passes."""
    hook = tmp_path / "hook"
    config = read(founded, f'command = ["{hook}"]')
    assert "chmod 0755" in problems(config)["notices.command"]
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o600)
    assert "chmod 0755" in problems(config)["notices.command"]
    hook.chmod(0o757)
    assert "chmod o-w" in problems(config)["notices.command"]
    hook.chmod(0o755)
    assert {} == problems(config)


def test_files_of_a_url_must_be_what_they_are_for(founded: Founded, tmp_path: Path) -> None:
    """An authority that is none and a secret that is none are told before the start, and refused at it."""
    config = read(founded, f'url = "https://localhost/"\nca_file = "ca.crt"\nsecret_file = "{tmp_path}/secret"')
    (tmp_path / "secret").write_text(SECRET + "\n")
    assert {} == problems(config)
    assert ["url"] == [target.name for target in build_notices(config, lambda: 0).targets]
    (tmp_path / "secret").write_text("hunter2")
    wrong = replace(config, notices_ca_file=config.tls_key)
    assert {"notices.ca_file", "notices.secret_file"} == problems(wrong).keys()
    assert "hunter2" not in str(problems(wrong))
    for bad in (config, wrong):
        with pytest.raises(StartError, match="check-config"):
            build_notices(bad, lambda: 0)


def test_without_the_section_nobody_is_told(founded: Founded) -> None:
    """No target, and so no sender and no row."""
    assert () == build_notices(read(founded, ""), lambda: 0).targets
