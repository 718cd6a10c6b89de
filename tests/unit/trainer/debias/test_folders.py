# SPDX-License-Identifier: Apache-2.0
"""Files of a version as a folder and as a bundle."""

from __future__ import annotations

import os

import pytest

from cloister.sealed.bundle import check_name
from cloister.sealed.errors import UnsafeNameError
from cloister_workers.trainer.bundle import checked_name, read_bundle, write_bundle
from cloister_workers.trainer.debias.subjects.folders import write_folder

FILES = {"config.json": b"{}", "1_Pooling/config.json": b'{"a": 1}', "2_Dense/model.safetensors": bytes(300)}


def test_a_folder_holds_the_files_it_was_made_of(tmp_path):
    """Names and contents survive, one folder deep."""
    root = write_folder(FILES, tmp_path / "new")
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert FILES == found


def test_a_bundle_carries_files_one_folder_deep():
    """What an export of a sentence encoder holds comes out of a bundle as it went in."""
    with os.fdopen(write_bundle(FILES), "rb") as stream:
        assert read_bundle(stream) == FILES


@pytest.mark.parametrize("name", ["../up", "/top", "a/b/c", ".hidden", "a/.hidden", "-x", "a//b", "a/", "", "x" * 100])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    """Nothing is written for a name that is no plain name at most one folder deep."""
    with pytest.raises(ValueError, match="plain file name"):
        write_folder({"fine.json": b"", name: b""}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a", "a/b", "_a/b@c+d=e", "a/b/c", ".a", "a/.b", "é", "a b", "a\n", "x" * 99, "x" * 100]
)
def test_trainer_and_client_agree_on_names(name):
    """A name that one end writes, the other reads; a name that one refuses, the other refuses."""

    def refused(check, error) -> bool:
        try:
            check(name)
        except error:
            return True
        return False

    assert refused(checked_name, ValueError) == refused(check_name, UnsafeNameError)
