# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from cloister_server.config import load_config
from cloister_server.errors import ConfigError

GOOD = """\
[site]
name = "test"
roster_file = "roster.dsse"
root_public = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
[listen]
address = "127.0.0.1:0"
[tls]
certificate = "tls.crt"
key = "/etc/tls.key"
client_ca = "ca.crt"
[database]
url = "sqlite:///x.db"
[store]
directory = "blobs"
[log]
origin = "test/log"
key_file = "log.key"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "server.toml"
    path.write_text(text)
    return path


def test_a_good_file_is_read_with_paths_beside_it(tmp_path: Path) -> None:
    """Relative paths start at the file's folder, absolute ones stay, and what is left out has a default."""
    config = load_config(written(tmp_path, GOOD))
    assert (tmp_path / "tls.crt", Path("/etc/tls.key")) == (config.tls_certificate, config.tls_key)
    assert (60, None, 1 << 30) == (config.lease_seconds, config.port_file, config.reserve_bytes)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "test"', "", "name"),
        ('name = "test"', 'name = "Test Site"', "name"),
        ('root_public = "AAAA', 'root_public = "!AAA', "root_public"),
        ('root_public = "AAAAAAAA', 'root_public = "AAAA', "root_public"),
        ("[store]", "[stores]", "stores"),
        ('directory = "blobs"', 'directory = "blobs"\ncolour = "red"', "colour"),
        ('directory = "blobs"', 'directory = "blobs"\nreserve_bytes = -1', "reserve_bytes"),
        ('key_file = "log.key"', 'key_file = "log.key"\n[queue]\nlease_seconds = 0', "lease_seconds"),
        ("[site]", "[site", "cannot be read"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    """What is missing, unknown or out of range is refused by its name."""
    with pytest.raises(ConfigError, match=named):
        load_config(written(tmp_path, GOOD.replace(old, new, 1)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message says which file cannot be read."""
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml")
