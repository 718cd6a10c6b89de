# SPDX-License-Identifier: Apache-2.0
"""A new root for a site: named by the old one, agreed to by the new one.

Whoever pins a root follows the successions that a roster carries from that root on, and from then on pins the last one:
the old root's signature counts no more.  There is no other way to another root: one that the old root did not name is
another site.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloister.evidence.canonical import canonical_bytes
from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.fields import Fields
from cloister.evidence.signatures import SigningKey, Statement, b64, key_id, unb64, verify

SUCCESSION_TYPE = "application/vnd.cloister.root-succession+json"
MAX_SUCCESSIONS = 16


@dataclass(frozen=True)
class Succession:
    """From one root to the next.  Keys are raw Ed25519 public keys."""

    site: str
    old: bytes
    new: bytes
    issued_at: int
    """Unix seconds."""

    def to_payload(self) -> bytes:
        return canonical_bytes(
            {
                "type": "root-succession",
                "v": 1,
                "site": self.site,
                "old": b64(self.old),
                "new": b64(self.new),
                "issued_at": self.issued_at,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Succession:
        """Raises FormatError."""
        fields = Fields.of_document("root-succession", payload)
        succession = cls(
            site=fields.identifier("site"),
            old=unb64(fields.text("old"), "root-succession: old"),
            new=unb64(fields.text("new"), "root-succession: new"),
            issued_at=fields.integer("issued_at"),
        )
        fields.finish()
        if len(succession.old) != 32 or len(succession.new) != 32 or succession.old == succession.new:
            raise FormatError("root-succession: it needs two different Ed25519 public keys of 32 bytes")
        return succession


def sign_succession(site: str, old: SigningKey, new: SigningKey, *, now: int) -> Statement:
    """Signed by both: the old root names the new one, and the new one's holder has it."""
    payload = Succession(site, old.public, new.public, now).to_payload()
    first, second = old.sign(SUCCESSION_TYPE, payload), new.sign(SUCCESSION_TYPE, payload)
    return Statement(SUCCESSION_TYPE, payload, (*first.signatures, *second.signatures))


def follow(pinned: bytes, statements: Iterable[Statement], site: str) -> bytes:
    """The root at the end of the chain that starts at `pinned`; `pinned` itself where nothing leads on from it.

    What leads on from other roots is not looked at: it is older than the pin.
    Raises SignatureError, BindingError (another site), FormatError.
    """
    root = pinned
    for statement in statements:
        step = Succession.parse(statement.payload)
        if step.old != root:
            continue
        verify(statement, SUCCESSION_TYPE, {key_id(step.old): step.old}, "the root before")
        verify(statement, SUCCESSION_TYPE, {key_id(step.new): step.new}, "the root after")
        if step.site != site:
            raise BindingError(f"the succession is of site {step.site!r}, not of {site!r}")
        root = step.new
    return root
