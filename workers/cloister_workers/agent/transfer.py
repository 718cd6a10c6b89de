# SPDX-License-Identifier: Apache-2.0
"""Moving ciphertext: downloads and uploads that go on where they stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloister.api.v1 import blobs_pb2, workers_pb2
from cloister.errors import CloisterError
from cloister.evidence.errors import FormatError
from cloister.evidence.manifest import Trailer
from cloister_workers.agent.control import ControlPlane
from cloister_workers.agent.errors import HostFault, JobFault
from cloister_workers.agent.lease import Lease
from cloister_workers.agent.spool import Spool, disk_full_is_our_fault

PIECE = 1 << 20
DOWNLOADS = 2
"""Times that a blob is fetched before its damage is taken for the store's."""
UPLOAD_TRIES = 50
"""Streams of an upload without a byte of progress, after which it is given up."""


@dataclass(frozen=True)
class Transfer:
    """Moves blobs for one lease."""

    control: ControlPlane
    lease: Lease
    spool: Spool

    def fetch(self, granted: workers_pb2.GrantedObject, folder: Path) -> Path:
        """Download a blob; returns the file, whose size and SHA-256 are those that its trailer claims.

        The key agent checks the claim's signature, and the digest again.
        """
        try:
            claimed = Trailer.parse(granted.sealed.trailer.payload)
        except FormatError:
            raise JobFault("EVIDENCE_REFUSED", "a signed trailer is malformed (BAD_FORMAT)") from None
        self.spool.check_space(claimed.ciphertext_size)
        path = folder / f"{granted.object_id}.in"
        for _ in range(DOWNLOADS):
            with disk_full_is_our_fault():
                if self._download(granted.object_id, claimed, path):
                    return path
        raise HostFault("BLOB_DAMAGED", "a blob does not have its digest, twice: the store or the way to it is faulty")

    def _download(self, object_id: str, claimed: Trailer, path: Path) -> bool:
        sha256 = hashlib.sha256()
        size = failures = 0
        with path.open("wb") as file:
            while size < claimed.ciphertext_size:
                before = size
                try:
                    for data in self.control.read_blob(object_id, size):
                        self.lease.check_going()
                        file.write(data)
                        sha256.update(data)
                        size += len(data)
                        if size > claimed.ciphertext_size:
                            return False
                    if size == before:
                        return False  # it ended early, and there is no more
                except CloisterError as error:
                    self.control.give_up(self.lease, error)
                    failures = 1 if size > before else failures + 1
                    self.lease.check_going()
                    self.control.back_off(failures)
        return sha256.hexdigest() == claimed.ciphertext_sha256

    def upload(self, object_id: str, path: Path) -> None:
        """Send a blob from where the upload stands.  Raises LeaseLostError, AttemptError."""
        failures, sent = 0, -1
        with path.open("rb") as file:
            while True:
                state = self.control.committed_size(self.lease, object_id)
                if state.complete:
                    return
                try:
                    pieces = self._pieces(file.fileno(), object_id, state.committed_size)
                    if self.control.write_blob(pieces).complete:
                        return
                except CloisterError as error:
                    if error.reason != "OFFSET_MISMATCH":
                        self.control.give_up(self.lease, error)
                failures = 0 if state.committed_size > sent else failures + 1
                sent = state.committed_size
                if failures >= UPLOAD_TRIES:
                    raise HostFault("UPLOAD_FAILED", "the control plane takes no more of a blob")
                self.lease.check()
                self.control.back_off(failures)

    def _pieces(self, fd: int, object_id: str, offset: int) -> Iterator[blobs_pb2.WriteBlobRequest]:
        first = blobs_pb2.WriteBlobRequest(object_id=object_id, offset=offset, attempt=self.lease.attempt)
        yield first
        while data := os.pread(fd, PIECE, offset):
            # gRPC reads this on a thread of its own: a stale worker must stop here, in the middle of a blob.
            if self.lease.lost:
                return
            yield blobs_pb2.WriteBlobRequest(offset=offset, data=data, attempt=self.lease.attempt)
            offset += len(data)
