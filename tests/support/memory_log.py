# SPDX-License-Identifier: Apache-2.0
"""An audit log in memory, as an honest control plane keeps it."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.evidence.checkpoint import Checkpoint, sign_checkpoint
from cloister.evidence.entry import Entry, Event
from cloister.evidence.merkle import consistency_proof, inclusion_proof, leaf_hash, root_hash
from cloister.evidence.note import NoteSigner
from cloister.evidence.opening import LogEvidence

ORIGIN = "test.example/log"


class MemoryLog:
    """An audit log in memory."""

    def __init__(self, signer: NoteSigner | None = None) -> None:
        self.signer = signer or NoteSigner(ORIGIN, Ed25519PrivateKey.generate())
        self.entries: list[bytes] = []

    def append(self, event: Event, ts: int = 1) -> int:
        """Add an event; returns its index."""
        self.entries.append(Entry(len(self.entries), ts, event).to_bytes())
        return len(self.entries) - 1

    def checkpoint(self) -> bytes:
        """Signed head."""
        leaves = [leaf_hash(entry) for entry in self.entries]
        return sign_checkpoint(Checkpoint(self.signer.name, len(leaves), root_hash(leaves)), self.signer)

    def evidence(self, index: int, since: int = 0) -> LogEvidence:
        """Proofs for one entry under the head now."""
        leaves = [leaf_hash(entry) for entry in self.entries]
        return LogEvidence(
            entry=self.entries[index],
            index=index,
            inclusion_proof=tuple(inclusion_proof(leaves, index, len(leaves))),
            checkpoint=self.checkpoint(),
            consistency_proof=tuple(consistency_proof(leaves, since, len(leaves))),
        )
