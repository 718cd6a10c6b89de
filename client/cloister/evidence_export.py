# SPDX-License-Identifier: Apache-2.0
"""The export of the log: one tar file with `entries.jsonl`, `checkpoint` and a README.

`entries.jsonl` holds the canonical bytes of each entry and one line feed after each; canonical JSON has no line
feed inside.  `checkpoint` is the signed note over exactly these entries.  Nothing else in the file is evidence.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cloister.evidence.entry import MAX_ENTRY_BYTES
from cloister.evidence.errors import FormatError, TruncatedError
from cloister.evidence.log import Verdict, verify_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cloister.evidence.checkpoint import Checkpoint
    from cloister.evidence.note import NoteVerifier

ENTRIES, CHECKPOINT, README = "entries.jsonl", "checkpoint", "README.txt"
_README = """Export of a Cloister audit log.

Verify it offline, with the log's verifier key from the site's roster and any checkpoint that you kept:

    cloister-audit verify THIS_FILE --key VKEY --since CHECKPOINT
"""


def write_export(path: Path, checkpoint: bytes, entries: Iterable[bytes]) -> int:
    """Write an export; return the number of entries.  A file appears only when it is whole and on disk."""
    count = 0
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as spool:
        try:
            with tempfile.TemporaryFile(dir=path.parent) as lines:
                for entry in entries:
                    lines.write(entry + b"\n")
                    count += 1
                size = lines.tell()
                lines.seek(0)
                with tarfile.open(fileobj=spool, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                    _add(tar, README, io.BytesIO(_README.encode()), len(_README.encode()))
                    _add(tar, CHECKPOINT, io.BytesIO(checkpoint), len(checkpoint))
                    _add(tar, ENTRIES, lines, size)
            spool.flush()
            os.fsync(spool.fileno())
            Path(spool.name).replace(path)
        except BaseException:
            Path(spool.name).unlink(missing_ok=True)
            raise
    return count


def _add(tar: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    tar.addfile(info, source)


def verify_export(path: Path, verifier: NoteVerifier, remembered: Sequence[Checkpoint] = ()) -> Verdict:
    """Verify an export; see `cloister.evidence.log.verify_log` for what is checked and raised."""
    try:
        with tarfile.open(path, mode="r:") as tar:
            note = _member(tar, CHECKPOINT).read()
            return verify_log(_lines(_member(tar, ENTRIES)), note, verifier, remembered)
    except (tarfile.TarError, EOFError) as error:
        raise TruncatedError(f"{path.name} is not a whole export: {error}") from None


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    try:
        found = tar.extractfile(name)
    except KeyError:
        found = None
    if found is None:
        raise TruncatedError(f"the export has no {name}")
    return found


def _lines(source: IO[bytes]) -> Iterator[bytes]:
    while line := source.readline(MAX_ENTRY_BYTES + 2):
        if not line.endswith(b"\n"):
            raise TruncatedError("the last entry of the export is cut short")
        if len(line) > MAX_ENTRY_BYTES + 1:
            raise FormatError("the export holds a line that is longer than any entry")
        yield line[:-1]


def describe(verdict: Verdict) -> str:
    """What a good log says, for people."""
    lines = [
        f"verified: {verdict.size} entries of {verdict.origin}",
        f"  root        {verdict.root.hex()}",
        f"  from        {_time(verdict.first_ts)}",
        f"  to          {_time(verdict.last_ts)}",
    ]
    if verdict.clock_steps_back:
        lines.append(f"  warning     the clock stepped back {verdict.clock_steps_back} times")
    if verdict.unfinished:
        lines.append(f"  unfinished  {len(verdict.unfinished)} openings without an outcome yet")
    lines.extend(f"  {count:>6}  {action}" for action, count in verdict.actions.items())
    return "\n".join(lines)


def _time(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC).isoformat(timespec="seconds")
