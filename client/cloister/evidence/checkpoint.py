# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: the signed head of a log (format: c2sp.org/tlog-checkpoint).

The note text is three lines: origin, number of leaves in decimal, base64 of the root hash.
Extension lines are allowed by that format and refused here: nothing of ours writes them.
"""

import base64
import binascii
import re
from dataclasses import dataclass

from cloister.evidence.errors import FormatError, SignatureError
from cloister.evidence.merkle import EMPTY_ROOT, HASH_SIZE
from cloister.evidence.note import NoteSigner, NoteVerifier, open_note, sign

MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's state: its name (origin), how many leaves it has, and their root hash (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or not self.origin.isprintable():
            raise FormatError("checkpoint: the origin must be one non-empty printable line")
        if not 0 <= self.size <= MAX_SIZE:
            raise FormatError(f"checkpoint of {self.origin}: {self.size} is not a tree size")
        if len(self.root) != HASH_SIZE:
            raise FormatError(f"checkpoint of {self.origin}: a root of {len(self.root)} bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise FormatError(f"checkpoint of {self.origin}: no leaves, but the root is not that of an empty tree")

    def to_text(self) -> str:
        """The note text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Inverse of `to_text`; raises FormatError."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise FormatError("checkpoint: it must have exactly the three lines origin, size, root")
        origin, size, root = lines[:3]
        if not re.fullmatch(r"0|[1-9][0-9]{0,18}", size):
            raise FormatError("checkpoint: the size is not a plain decimal number")
        try:
            raw = base64.b64decode(root.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise FormatError("checkpoint: the root is not valid base64") from None
        checkpoint = cls(origin, int(size), raw)
        if checkpoint.to_text() != text:
            raise FormatError("checkpoint: the root is not canonical base64")
        return checkpoint


def sign_checkpoint(checkpoint: Checkpoint, signer: NoteSigner) -> bytes:
    """The signed note of a checkpoint.

    Signing is a commitment that can never be taken back: check append-only and durability *before* this call.
    """
    return sign(checkpoint.to_text(), [signer])


def open_checkpoint(data: bytes, verifier: NoteVerifier, origin: str) -> Checkpoint:
    """The checkpoint in a signed note, if `verifier` signed it for the log `origin`.

    Raises FormatError or SignatureError.
    Says nothing about freshness: compare with the last checkpoint kept (`merkle.verify_consistency`).
    """
    checkpoint = Checkpoint.parse(open_note(data, [verifier]).text)
    if checkpoint.origin != origin:
        # One key may sign for several logs, so a good signature alone does not say which log this is.
        raise SignatureError(f"checkpoint: it belongs to the log {checkpoint.origin}, not to {origin}")
    return checkpoint
