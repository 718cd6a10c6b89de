# SPDX-License-Identifier: Apache-2.0
"""What a backup says of itself is read strictly."""

from dataclasses import replace
from pathlib import Path

import pytest

from cloister.evidence.errors import FormatError
from cloister.evidence.fields import LAST_SECOND
from cloister_server.backup.folder import read_blob_list, write_blob_list
from cloister_server.backup.manifest import BackupManifest
from cloister_server.errors import BackupError
from cloister_server.store import Declared

MANIFEST = BackupManifest("b-1", "a", "a/log", LAST_SECOND, "sqlite", "0001", 9, "0" * 64, "note", ())
BLOB = Declared("d-1", "0" * 64, 5)


def test_a_backup_is_of_a_time_that_can_be_written() -> None:
    """The last second of the calendar is read, the next one is refused: the words after a restore name it."""
    assert MANIFEST == BackupManifest.parse(MANIFEST.to_bytes())
    with pytest.raises(FormatError, match="created_at"):
        BackupManifest.parse(replace(MANIFEST, created_at=LAST_SECOND + 1).to_bytes())


@pytest.mark.parametrize(
    "line",
    [
        f"{'0' * 64} 5 ../d-1",
        f"{'0' * 63}/ 5 d-1",
        f"{'0' * 64} -5 d-1",
        f"{'0' * 64} 1_0 d-1",
        f"{'0' * 64} 5",
        "",
    ],
)
def test_a_line_that_names_no_blob_is_told(line: str, tmp_path: Path) -> None:
    """Digest and id become names of files, so nothing else passes for them; the message names the line."""
    path = tmp_path / "blobs.list"
    path.write_bytes(write_blob_list([BLOB]))
    assert [BLOB] == read_blob_list(path)
    path.write_bytes(write_blob_list([BLOB]) + f"{line}\n".encode())
    with pytest.raises(BackupError, match="line 2 is damaged"):
        read_blob_list(path)


def test_a_list_that_was_cut_is_told(tmp_path: Path) -> None:
    """The last line has an end, too."""
    path = tmp_path / "blobs.list"
    path.write_bytes(write_blob_list([BLOB])[:-1])
    with pytest.raises(BackupError, match="line 1 is damaged"):
        read_blob_list(path)
