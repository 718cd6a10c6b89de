# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from cloister.configuration.kinds import Address, Command, File, Place, Seconds, Text, Url, Whole
from cloister.configuration.lines import line_of, lines_of
from cloister.configuration.settings import Setting, check_files, declared, read_settings
from cloister.errors import ConfigurationError
from cloister_dev.configuration_page import page
from cloister_server.config import Config
from cloister_workers.config import Limits

ROOT = Path(__file__).parents[3]
HERE = Place(Path("/etc/cloister"), Path("/run/credentials/unit"))


@dataclass(frozen=True, kw_only=True)
class Sample:
    name: Annotated[str, Setting("first.name", Text(), "a name")]
    size: Annotated[int, Setting("first.size", Whole(1, 9), "a size")] = 3
    key: Annotated[Path | None, Setting("second.key", File(secret=True), "a key")] = None


def read(folder: Path, text: str) -> Sample:
    path = folder / "sample.toml"
    path.write_text(text)
    return read_settings(Sample, path, {"CREDENTIALS_DIRECTORY": "/run/credentials/unit"})[0]


def test_a_file_becomes_an_object(tmp_path: Path) -> None:
    """Given values are taken, absent ones have their default, and paths start at the file's folder or the
    credentials'.
    """
    assert Sample(name="x", size=3, key=tmp_path / "k") == read(tmp_path, '[first]\nname = "x"\n[second]\nkey = "k"\n')
    named = read(tmp_path, '[first]\nname = "x"\n[second]\nkey = "credential:k"\n')
    assert Path("/run/credentials/unit/k") == named.key


def test_every_problem_is_told_with_its_line(tmp_path: Path) -> None:
    """A file with four mistakes gets four lines, each with the place and the value."""
    text = '# comment\n[first]\nsize = 12\ncolour = "red"\n\n[third]\nx = 1\n'
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)
    path = tmp_path / "sample.toml"
    assert {
        f"{path}:4: [first] colour: unknown key; known here are name, size",
        f"{path}:6: third: unknown section or key; the sections are first, second",
        f"{path}:2: [first] name: is missing; add it (text: a name)",
        f"{path}:3: [first] size: 12 is not between 1 and 9",
    } == set(str(caught.value).splitlines())


def test_what_is_not_toml_has_a_line_too(tmp_path: Path) -> None:
    """A broken line is named by its number."""
    with pytest.raises(ConfigurationError, match=r"sample\.toml:2: cannot be read: this is not TOML"):
        read(tmp_path, '[first]\nname = "x\n')


def test_a_text_that_is_refused_is_not_repeated(tmp_path: Path) -> None:
    """A list where a URL belongs is refused without its content, which may be a password."""
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, '[first]\nname = ["hunter2"]\n')
    assert "hunter2" not in str(caught.value)
    assert "found a list" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [
        (Whole(1, 9), True, "whole number"),
        (Whole(1, 9), "3", "without quotes"),
        (Seconds(0.5, 9), 0.1, "between 0.5 and 9"),
        (Seconds(0.5, 9), float("nan"), "between"),
        (Address(), "127.0.0.1", "HOST:PORT"),
        (Address(), "127.0.0.1:99999", "HOST:PORT"),
        (File(), "credential:../x", "not the name of a credential"),
        (File(), "credential:", "not the name of a credential"),
        (File(), 3, "not a path"),
        (Text(), "", "empty text"),
        (Url(), "http://chat.example/x", "not https"),
        (Url(), "http://localhost.example/x", "not https"),
        (Url(), "ftp://127.0.0.1/x", "not https"),
        (Url(), "chat.example/x", "not a URL"),
        (Url(), "https://chat.example:99999/", "not a URL"),
        (Url(), "https://chat.example/a b", "not a URL"),
        (Url(), "https://chat.example/a\r\nHost: b", "not a URL"),
        (Url(), "https://", "not a URL"),
        (Url(), "https://me:secret@chat.example/", "user name"),
        (Url(), 3, "not a URL"),
        (Command(), "/bin/true", "list of texts"),
        (Command(), [], "list of texts"),
        (Command(), ["/bin/true", 3], "list of texts"),
        (Command(), ["true"], "absolute path"),
        (Command(), ["/bin/true", "a\0b"], "NUL"),
    ],
)
def test_a_kind_refuses_by_value(kind: Whole, value: object, word: str) -> None:
    """What a kind does not take is refused in words that say what it takes."""
    with pytest.raises(ValueError, match=word):
        kind.read(value, HERE)


def test_a_credential_without_systemd_is_said() -> None:
    """Outside a unit with credentials the prefix is refused with what to add."""
    with pytest.raises(ValueError, match=r"add LoadCredential=tls\.key"):
        File().read("credential:tls.key", Place(Path("/etc"), None))


def test_lines_are_found_through_comments_and_quotes() -> None:
    """Quoted keys, odd spaces and comments do not shift a line; an absent key stands at its section."""
    lines = lines_of('top = 1\n # [not] this\n[ "a" ]\n  "b"=2\nc = 3 # d = 4\n')
    assert {"top": 1, "a": 3, "a.b": 4, "a.c": 5} == lines
    assert 3 == line_of(lines, "a.absent")


def test_files_are_checked_with_their_modes(tmp_path: Path) -> None:
    """A key that everybody may read is a problem, and so is one that is not there; a closed one is none."""
    key = tmp_path / "k"
    config = Sample(name="x", key=key)
    assert ["second.key"] == [problem.key for problem in check_files(config, declared(Sample))]
    key.write_text("secret")
    key.chmod(0o644)
    assert f"chmod 0600 {key}" in check_files(config, declared(Sample))[0].text
    key.chmod(0o640)
    assert [] == check_files(config, declared(Sample))


@pytest.mark.parametrize("kind", [Config, Limits])
def test_every_default_is_one_that_the_file_could_give(kind: type) -> None:
    """A default that its own range refuses would be a mistake in the declaration."""
    for one in declared(kind):
        if not one.required and one.default is not None:
            assert one.default == one.setting.kind.read(one.default, HERE), one.name


def test_the_page_is_made_from_the_code() -> None:
    """docs/reference/configuration.md is what the declarations say."""
    assert page() == (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "url", ["https://chat.example", "http://127.0.0.1:8080/x?y=1", "http://[::1]/", "https://[fd00::1]:8443/x"]
)
def test_a_url_is_https_or_on_loopback(url: str) -> None:
    """Such URLs are taken as they are."""
    assert url == Url().read(url, HERE)


def test_a_url_that_is_refused_is_not_repeated() -> None:
    """Receivers put secrets into paths."""
    with pytest.raises(ValueError) as refused:
        Url().read("http://chat.example/hunter2", HERE)
    assert "hunter2" not in str(refused.value)
