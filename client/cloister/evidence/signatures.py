# SPDX-License-Identifier: Apache-2.0
"""Ed25519 keys and signed statements (DSSE v1, https://github.com/secure-systems-lab/dsse).

A statement's payload is kept as the bytes that were signed; nothing is serialised again to verify it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloister.evidence.errors import FormatError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECRET_PREFIX = "CLOISTER-SIGNING-KEY-1"  # noqa: S105 (a label, not a secret)


def key_id(public: bytes) -> str:
    """Name of a public key: the first 32 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:32]


def b64(data: bytes) -> str:
    """Base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def unb64(text: str, what: str) -> bytes:
    """Strict base64.  Raises FormatError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"{what} is not base64") from None


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """PAE of DSSE v1: unambiguous, so that no payload can be read as another type."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True)
class Signature:
    """One Ed25519 signature (64 bytes) and the id of its key."""

    key_id: str
    signature: bytes


@dataclass(frozen=True)
class Statement:
    """A signed document."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the payload, hex: how other documents refer to this one."""
        return hashlib.sha256(self.payload).hexdigest()

    def to_bytes(self) -> bytes:
        """The DSSE JSON envelope."""
        signatures = [{"keyid": s.key_id, "sig": b64(s.signature)} for s in self.signatures]
        envelope = {"payload": b64(self.payload), "payloadType": self.payload_type, "signatures": signatures}
        return json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> Statement:
        """Read a DSSE JSON envelope.  Raises FormatError."""
        try:
            envelope = json.loads(data)
            signatures = tuple(Signature(str(s["keyid"]), unb64(s["sig"], "signature")) for s in envelope["signatures"])
            return cls(str(envelope["payloadType"]), unb64(envelope["payload"], "payload"), signatures)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"not a signed statement: {type(error).__name__}") from None


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 private key.  Its repr never shows it."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise FormatError(f"a signing key has 32 bytes, got {len(self.seed)}")

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes] = os.urandom) -> SigningKey:
        return cls(random_bytes(32))

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """Read the one-line form that `str` of `export` gives.  Raises FormatError."""
        prefix, _, secret = text.strip().partition(":")
        if prefix != SECRET_PREFIX:
            raise FormatError(f"a signing key starts with {SECRET_PREFIX}:")
        return cls(unb64(secret, "signing key"))

    def export(self) -> str:
        return f"{SECRET_PREFIX}:{b64(self.seed)}"

    @property
    def private_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public(self) -> bytes:
        return self.private_key.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        return key_id(self.public)

    def sign(self, payload_type: str, payload: bytes) -> Statement:
        signature = self.private_key.sign(pre_authentication_encoding(payload_type, payload))
        return Statement(payload_type, payload, (Signature(self.key_id, signature),))


def verify(statement: Statement, payload_type: str, keys: Mapping[str, bytes], who: str) -> str:
    """Check that one of `keys` (key id to raw public key) signed the statement; return that key's id.

    Raises FormatError for another payload type and SignatureError otherwise; `who` names the wanted signer.
    """
    if statement.payload_type != payload_type:
        raise FormatError(f"expected a statement of type {payload_type}, got {statement.payload_type[:80]!r}")
    message = pre_authentication_encoding(payload_type, statement.payload)
    known = [s for s in statement.signatures if s.key_id in keys]
    if not known:
        raise SignatureError(f"{payload_type}: not signed by {who}")
    for signature in known:
        try:
            Ed25519PublicKey.from_public_bytes(keys[signature.key_id]).verify(signature.signature, message)
        except (InvalidSignature, ValueError):
            raise SignatureError(f"{payload_type}: the signature of {who} does not verify") from None
    return known[0].key_id
