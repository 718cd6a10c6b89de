# SPDX-License-Identifier: Apache-2.0
import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloister_server import crashpoints
from cloister_server.errors import DigestMismatchError, NotFoundError, OffsetMismatchError, StorageExhaustedError
from cloister_server.store import Declared, Store

DATA = bytes(range(256)) * 40
WANTED = Declared("object-1", hashlib.sha256(DATA).hexdigest(), len(DATA))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, 0)


def test_a_blob_is_visible_only_when_it_is_complete(store: Store) -> None:
    """Before `complete` nothing can be read; after it the bytes are there under the digest."""
    store.append(WANTED, 0, DATA[:100], sync=True)
    with pytest.raises(NotFoundError):
        store.read(WANTED, 0, 10)
    store.append(WANTED, 100, DATA[100:], sync=False)
    store.complete(WANTED)
    assert DATA == store.read(WANTED, 0, len(DATA) + 10)
    assert ([], [WANTED]) == (list(store.partials()), list(store.blobs()))


def test_committed_size_is_what_was_appended(store: Store) -> None:
    """An upload's progress counts every byte, and all of them once it is complete."""
    assert 0 == store.committed(WANTED)
    store.append(WANTED, 0, DATA[:100], sync=False)
    assert 100 == store.committed(WANTED)
    store.append(WANTED, 100, DATA[100:], sync=False)
    store.complete(WANTED)
    assert len(DATA) == store.committed(WANTED)


def test_completing_twice_changes_nothing(store: Store) -> None:
    """A second `complete` finds the blob and is content."""
    store.append(WANTED, 0, DATA, sync=False)
    store.complete(WANTED)
    store.complete(WANTED)
    assert store.verify(WANTED)


def test_a_short_upload_is_not_completed(store: Store) -> None:
    """With bytes missing, or none at all, `complete` says how many there are."""
    with pytest.raises(OffsetMismatchError):
        store.complete(WANTED)
    store.append(WANTED, 0, DATA[:100], sync=False)
    with pytest.raises(OffsetMismatchError) as refused:
        store.complete(WANTED)
    assert {"committed": "100"} == refused.value.metadata


def test_another_digest_discards_the_upload(store: Store) -> None:
    """Bytes of the right size with the wrong digest are gone after the refusal."""
    store.append(WANTED, 0, bytes(len(DATA)), sync=False)
    with pytest.raises(DigestMismatchError):
        store.complete(WANTED)
    assert 0 == store.committed(WANTED)


def test_two_objects_of_one_digest_do_not_share_a_blob(store: Store) -> None:
    """An object whose digest another one has uploaded is not complete by that."""
    store.append(WANTED, 0, DATA, sync=False)
    store.complete(WANTED)
    other = Declared("object-2", WANTED.sha256, WANTED.size)
    assert not store.is_complete(other)
    store.discard_blob(other)
    assert store.is_complete(WANTED)


def test_a_stale_stream_cannot_touch_a_complete_blob(store: Store) -> None:
    """Data for a complete blob are refused, and the blob stays as it was verified."""
    store.append(WANTED, 0, DATA, sync=False)
    store.complete(WANTED)
    for offset in (0, len(DATA)):
        with pytest.raises(OffsetMismatchError):
            store.append(WANTED, offset, b"x", sync=False)
    assert store.verify(WANTED)


def test_a_full_disk_is_storage_exhausted_and_loses_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC becomes a clear refusal; what was written before stays and the upload can go on."""
    store.append(WANTED, 0, DATA[:100], sync=False)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StorageExhaustedError):
            store.append(WANTED, 100, DATA[100:], sync=False)
    store.append(WANTED, 100, DATA[100:], sync=False)
    store.complete(WANTED)
    assert store.verify(WANTED)


def test_the_reserve_is_left_alone(tmp_path: Path) -> None:
    """An upload that would go below the reserve is refused before its first byte."""
    store = Store(tmp_path, 1000, free=lambda _: 1500)
    store.check_room(500)
    with pytest.raises(StorageExhaustedError):
        store.check_room(501)


@pytest.mark.parametrize(("point", "visible"), [(crashpoints.BLOB_SYNCED, False), (crashpoints.BLOB_RENAMED, True)])
def test_a_crash_while_completing_leaves_all_or_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, point: str, visible: bool
) -> None:
    """Killed before the rename the upload is still partial, after it the blob is whole; both can be completed."""
    killed: list[int] = []

    def kill(_: int, number: int) -> None:
        killed.append(number)
        raise KeyboardInterrupt

    store.append(WANTED, 0, DATA, sync=False)
    with monkeypatch.context() as patched:
        patched.setenv(crashpoints.VARIABLE, point)
        patched.setattr(os, "kill", kill)
        with pytest.raises(KeyboardInterrupt):
            store.complete(WANTED)
    assert ([9], visible) == (killed, store.is_complete(WANTED))
    store.complete(WANTED)
    assert store.verify(WANTED)


IMPATIENT = """
import fcntl, sys
from pathlib import Path
from cloister_server.store import Declared, Store
locked = fcntl.flock
fcntl.flock = lambda descriptor, operation: locked(descriptor, operation | fcntl.LOCK_NB)
try:
    Store(Path(sys.argv[1]), 0).append(Declared("object-1", "00", 10), 0, b"x", sync=False)
except BlockingIOError:
    sys.exit(7)
"""


def test_another_process_keeps_out_while_an_upload_is_written(store: Store, tmp_path: Path) -> None:
    """While one process holds an upload another one cannot write into it, and afterwards it can."""
    command = [sys.executable, "-c", IMPATIENT, str(tmp_path)]
    # Hashes of texts differ from process to process: the lock must be found without them.
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with store._exclusive("object-1"):
        assert 7 == subprocess.run(command, env=environment, check=False).returncode
    assert 0 == subprocess.run(command, env=environment, check=False).returncode
