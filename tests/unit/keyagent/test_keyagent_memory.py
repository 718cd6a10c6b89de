# SPDX-License-Identifier: Apache-2.0
"""What a key agent remembers, and in which order it remembers and opens."""

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builders import DAY, Site, frozen_memory
from cloister.evidence.errors import ReplayError, SignatureError
from cloister.evidence.roster import ROSTER_TYPE
from cloister.evidence.signatures import SigningKey
from cloister.evidence.succession import sign_succession
from cloister.sealed.bundle import write_bundle
from cloister.sealed.errors import BundleFormatError, FileNotAllowedError
from cloister.sealed.filelist import list_digest
from cloister_workers.keyagent import documents
from cloister_workers.keyagent.bundles import CanonicalBundle, check_frozen, files_sha256, scan
from cloister_workers.keyagent.errors import MemoryDamagedError, RequestError
from cloister_workers.keyagent.gate import Gate
from cloister_workers.keyagent.memory import KEEP_SECONDS, STATE, Memory, Opened, Remembered, write_state
from cloister_workers.keyagent.protocol import Frame
from cloister_workers.keyagent.server import KeyAgent
from cloister_workers.keyagent.vault import load_vault
from keyagent_process import write_directory

NOW = 1_800_000_000


def request(site: Site, opening: object, op: str = "open_job") -> Frame:
    table = documents.job_opening_table(opening)  # type: ignore[arg-type]
    roster = documents.statement_text(site.sign_roster())
    return Frame({"op": op, "roster": roster, "opening": table, "sandboxed": True})


def agent_of(folder: Path, memory: Memory, clock: Callable[[], int] = lambda: NOW) -> KeyAgent:
    return KeyAgent(load_vault(folder), memory, clock, lambda _: None)


def test_the_state_survives_its_file(tmp_path: Path) -> None:
    """What is written is what is read, key for key."""
    site = Site(NOW)
    state = Remembered(3, NOW, site.log.checkpoint().decode(), {"job:a": Opened(2, NOW)})
    write_state(tmp_path / STATE, state)
    assert Memory(tmp_path).state == state
    assert (tmp_path / STATE).stat().st_mode & 0o777 == 0o600


def test_a_key_agent_follows_to_a_new_root_and_never_back(tmp_path: Path) -> None:
    """A succession that the pinned root signed is followed and remembered on disk; then the old root is refused."""
    site = Site(NOW)
    paths = write_directory(tmp_path, site)
    new = SigningKey.generate()
    step = sign_succession("test", site.root, new, now=NOW)
    gate = Gate(load_vault(paths.keyagent), Memory(paths.keyagent), lambda: NOW)
    roster = replace(site.roster, successions=(step,))
    gate.update_roster(new.sign(ROSTER_TYPE, roster.to_payload()))
    again = Gate(load_vault(paths.keyagent), Memory(paths.keyagent), lambda: NOW)
    assert new.public == again.remembered.root_public
    newer = replace(site.roster, version=9)
    with pytest.raises(SignatureError):
        again.update_roster(site.root.sign(ROSTER_TYPE, newer.to_payload()))
    assert 9 == again.update_roster(new.sign(ROSTER_TYPE, newer.to_payload())).version


def test_a_state_of_before_successions_is_read(tmp_path: Path) -> None:
    """A file that an earlier version wrote has no root of its own: the one in root.pub is in force."""
    import json

    write_state(tmp_path / STATE, Remembered(3))
    table = json.loads((tmp_path / STATE).read_text())
    del table["root_public"]
    (tmp_path / STATE).write_text(json.dumps(table))
    assert Remembered(3) == Memory(tmp_path).state


@pytest.mark.parametrize("field", ["roster_version", "checkpoint", "opened"])
def test_a_state_without_a_field_is_damaged(tmp_path: Path, field: str) -> None:
    """A missing field is damage and not a fresh start."""
    import json

    write_state(tmp_path / STATE, Remembered())
    table = json.loads((tmp_path / STATE).read_text())
    del table[field]
    (tmp_path / STATE).write_text(json.dumps(table))
    with pytest.raises(MemoryDamagedError):
        Memory(tmp_path)


def test_old_openings_are_forgotten_only_when_they_cannot_come_again() -> None:
    """An opened attempt is kept until long after its authorisation has expired."""
    state = Remembered(opened={"job:a": Opened(1, NOW), "job:b": Opened(1, NOW - KEEP_SECONDS)})
    assert set(state.without_old(NOW + 1)) == {"job:a"}


def test_nothing_is_opened_that_could_not_be_remembered(tmp_path: Path) -> None:
    """When the state cannot be written, the opening is refused and no session exists."""
    site = Site(NOW)
    paths = write_directory(tmp_path / "host", site)

    class FullDisk(Memory):
        def replace(self, state: Remembered) -> None:
            raise OSError(28, "No space left on device")

    sessions: set[str] = set()
    answer = agent_of(paths.keyagent, FullDisk(paths.keyagent)).answer(
        request(site, site.opening(site.job())), sessions
    )
    assert (answer["error"], sessions) == ("STATE_NOT_WRITTEN", set())


def test_the_attempt_is_on_disk_before_the_answer(tmp_path: Path) -> None:
    """When the session's id is known, a fresh process already remembers the attempt and the log's head."""
    site = Site(NOW)
    paths = write_directory(tmp_path / "host", site)
    opening = site.opening(site.job())
    answer = agent_of(paths.keyagent, Memory(paths.keyagent)).answer(request(site, opening), set())
    assert "session" in answer
    again = agent_of(paths.keyagent, Memory(paths.keyagent)).answer(request(site, opening), set())
    assert again["error"] == ReplayError.reason


def test_a_refused_opening_costs_no_attempt(tmp_path: Path) -> None:
    """Only what was approved is remembered as opened, so that a repaired request can follow."""
    site = Site(NOW)
    paths = write_directory(tmp_path / "host", site)
    agent = agent_of(paths.keyagent, Memory(paths.keyagent))
    opening = site.opening(site.job())
    assert agent.answer(request(site, replace(opening, spec=b"{}")), set())["error"] == "BINDING"
    assert "session" in agent.answer(request(site, opening), set())


def test_the_clock_decides_about_expiry(tmp_path: Path) -> None:
    """The same opening is refused once the key agent's own clock is past the authorisation."""
    site = Site(NOW)
    paths = write_directory(tmp_path / "host", site)
    late = agent_of(paths.keyagent, Memory(paths.keyagent), lambda: NOW + 6 * DAY)
    assert late.answer(request(site, site.opening(site.job())), set())["error"] == "EXPIRED"


def test_documents_survive_the_socket(tmp_path: Path) -> None:
    """An opening that goes through a request comes out byte for byte."""
    site = Site(NOW)
    job, state = site.job(evaluation=site.dataset()), site.state()
    opening = site.opening(job, 2, resume=(state, site.result(job, state)))
    assert documents.job_opening(documents.job_opening_table(opening)) == opening
    version = site.export()
    release = site.release(job, version, site.result(job, version), approvers=("bob",))
    assert documents.release_opening(documents.release_opening_table(release)) == release


def test_a_canonical_bundle_stays_as_it_is() -> None:
    """The canonical form of a canonical bundle is itself, and the digest is that of its list of files."""
    sink = io.BytesIO()
    files = {"a.json": b"{}", "b.safetensors": b"x" * 70_000, "c/d.json": b""}
    digests = write_bundle(list(files.items()), sink)
    fd = frozen_memory(sink.getvalue())
    check_frozen(fd)
    with os.fdopen(fd, "rb") as file:
        members = scan(file)
        source, out = CanonicalBundle(file.fileno(), members), bytearray()
        buffer = bytearray(1000)
        while count := source.readinto(buffer):
            out += buffer[:count]
    assert bytes(out) == sink.getvalue()
    assert files_sha256(members) == list_digest(digests)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", BundleFormatError), (b"not a tar" * 100, BundleFormatError), (bytes(1024), BundleFormatError)],
)
def test_what_is_no_bundle_is_refused(content: bytes, error: type[Exception]) -> None:
    """Bytes that are no tar file, or an empty one, are no checkpoint."""
    with os.fdopen(frozen_memory(content), "rb") as file, pytest.raises(error):
        scan(file)


def test_code_in_a_bundle_is_refused() -> None:
    """A file outside the allow-list is refused by name."""
    sink = io.BytesIO()
    write_bundle([("run.py", b"")], sink)
    with os.fdopen(frozen_memory(sink.getvalue()), "rb") as file, pytest.raises(FileNotAllowedError):
        scan(file)


def test_a_file_on_disk_is_not_frozen_memory(tmp_path: Path) -> None:
    """A regular file can change at any time, so it is not sealed from."""
    (tmp_path / "x").write_bytes(b"x")
    with (tmp_path / "x").open("rb") as file, pytest.raises(RequestError):
        check_frozen(file.fileno())
