# SPDX-License-Identifier: Apache-2.0
"""The host's model cache gives way to what an attempt needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloister_workers.agent import spool as spool_module
from cloister_workers.agent.errors import HostFault
from cloister_workers.agent.modelcache import ModelCache
from cloister_workers.agent.spool import Spool

CAPACITY = 100
OLD, USED, NEW = "a" * 64, "b" * 64, "c" * 64


def taken(folder: Path) -> int:
    """Bytes of all files below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    """Three models of thirty bytes on a disk of a hundred; their names tell how long ago they were used."""
    for age, name in enumerate((NEW, USED, OLD)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(bytes(30))
        os.utime(tmp_path / name, (1_700_000_000 - age, 1_700_000_000 - age))
    return ModelCache(tmp_path, lambda folder: CAPACITY - taken(folder))


def names(folder: Path) -> set[str]:
    """Of what lies in it."""
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("wanted", "left"), [(10, {OLD, USED, NEW}), (11, {USED, NEW}), (41, {NEW}), (100, set()), (1000, set())]
)
def test_no_more_goes_than_must(cache: ModelCache, tmp_path: Path, wanted: int, left: set[str]) -> None:
    """The longest unused goes first, and what is not in the way stays."""
    cache.make_room(wanted)
    assert left == names(tmp_path)


def test_a_model_in_use_stays(cache: ModelCache, tmp_path: Path) -> None:
    """What an attempt has found is not taken from under it; after the attempt it is the last that was used."""
    with cache.attempt():
        assert cache.find(OLD) == tmp_path / OLD
        cache.make_room(1000)
        assert {OLD} == names(tmp_path)
    cache.make_room(1000)
    assert set() == names(tmp_path)


def test_a_model_that_was_used_again_goes_last(cache: ModelCache, tmp_path: Path) -> None:
    """A use counts as of now, whatever the age of the files."""
    with cache.attempt():
        cache.find(OLD)
    cache.make_room(41)
    assert {OLD} == names(tmp_path)


def test_the_spool_asks_for_room_before_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that fits once the cache has given way goes on; one that does not fit then is the host's fault."""
    free = [50]
    asked: list[int] = []

    def make_room(wanted: int) -> None:
        asked.append(wanted)
        free[0] = 80

    monkeypatch.setattr(spool_module, "free_bytes", lambda _folder: free[0])
    spool = Spool(tmp_path, 10, make_room)
    spool.check_space(40)
    assert [] == asked
    spool.check_space(70)
    assert [80] == asked
    with pytest.raises(HostFault, match="disk is full"):
        spool.check_space(71)
