# SPDX-License-Identifier: Apache-2.0
"""The root is backed up, restored and rotated; a crash in between leaves something that can be finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.admin.backup import MAGIC, restore_backup, write_backup
from cloister.admin.custody import Custody
from cloister.admin.rotation import NEXT_KEY, rotate_root
from cloister.admin.sign import sign_next
from cloister.errors import HomeError, UsageError
from cloister.evidence.errors import SignatureError
from cloister.evidence.roster import Roster, root_of, verify_roster
from cloister.evidence.signatures import SigningKey
from set_clock import NOW
from token_site import TokenSite

PASSPHRASE = "correct horse battery"


@pytest.fixture
def custody(tmp_path: Path) -> Custody:
    return TokenSite.found(tmp_path / "root").custody


def test_a_restored_root_goes_on(custody: Custody, tmp_path: Path) -> None:
    """A backup that is older than the roster in force goes on from that roster: no version is signed twice."""
    backup = write_backup(custody, PASSPHRASE)
    in_force = sign_next(custody, 30, now=NOW)
    restored = restore_backup(backup, PASSPHRASE, tmp_path / "restored")
    assert custody.root_key() == restored.root_key()
    assert custody.authority().certificate_pem == restored.authority().certificate_pem
    assert Roster.parse(in_force.payload).version == restored.draft().version
    restored.adopt(in_force)
    assert custody.draft() == restored.draft()
    assert 0o600 == (tmp_path / "restored" / "root.key").stat().st_mode & 0o777


def test_a_backup_tells_nothing_and_takes_no_change(custody: Custody, tmp_path: Path) -> None:
    """Without the passphrase nothing is in it; with another one, or one bit changed, nothing is restored."""
    backup = write_backup(custody, PASSPHRASE)
    secret = custody.root_key()
    assert [] == [form for form in (secret.seed, secret.export().encode()) if form in backup]
    changed = backup[:-1] + bytes([backup[-1] ^ 1])
    for data, passphrase in (
        (backup, PASSPHRASE + "!"),
        (changed, PASSPHRASE),
        (MAGIC, PASSPHRASE),
        (b"x", PASSPHRASE),
    ):
        with pytest.raises(UsageError):
            restore_backup(data, passphrase, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    with pytest.raises(UsageError, match="12 characters"):
        write_backup(custody, "short")


def test_a_root_is_not_restored_over_another(custody: Custody) -> None:
    """A directory that holds a root stays as it is."""
    with pytest.raises(HomeError, match="holds a root already"):
        restore_backup(write_backup(custody, PASSPHRASE), PASSPHRASE, custody.directory)


def test_only_a_roster_of_this_root_is_adopted(custody: Custody, tmp_path: Path) -> None:
    """Neither another site's roster nor one that is behind the draft is gone on from."""
    old = custody.roster()
    sign_next(custody, 30, now=NOW)
    with pytest.raises(UsageError, match="at version 3 already"):
        custody.adopt(old)
    with pytest.raises(SignatureError):
        custody.adopt(TokenSite.found(tmp_path / "other").custody.roster())


def test_a_rotated_root_signs_what_the_old_pin_accepts(custody: Custody) -> None:
    """The next roster is the new root's, and whoever pins the old one follows; the old key has a name of its own."""
    old = custody.root_key()
    rotated = rotate_root(custody, now=NOW)
    new = custody.root_key()
    assert (old.key_id, new.key_id) == (rotated.old, rotated.new)
    assert old == SigningKey.parse((custody.directory / rotated.retired_file).read_text())
    roster = verify_roster(sign_next(custody, 30, now=NOW), old.public, seen_version=0, now=NOW)
    assert new.public == root_of(roster, old.public)
    rotate_root(custody, now=NOW)
    roster = verify_roster(sign_next(custody, 30, now=NOW), old.public, seen_version=0, now=NOW)
    assert custody.root_key().public == root_of(roster, old.public)


@pytest.mark.parametrize("stage", ["the key was made", "the draft names it", "the old key was renamed"])
def test_a_rotation_that_was_cut_off_is_finished(custody: Custody, stage: str) -> None:
    """After a crash at any point the same command ends with one succession and the key that it names."""
    old = custody.root_key()
    folder = custody.directory
    draft = custody.draft()
    rotate_root(custody, now=NOW)
    new = custody.root_key()
    # Back to how a crash would have left it.
    (folder / "root.key").rename(folder / NEXT_KEY)
    if stage != "the old key was renamed":
        (folder / f"root-{old.key_id}.key").rename(folder / "root.key")
    if stage == "the key was made":
        custody.save_draft(draft)
    rotate_root(custody, now=NOW)
    assert (new, 1) == (custody.root_key(), len(custody.draft().successions))
    assert (folder / f"root-{old.key_id}.key").exists()
    assert not (folder / NEXT_KEY).exists()
