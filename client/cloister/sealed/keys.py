# SPDX-License-Identifier: Apache-2.0
"""Recipients, identities, and the wrap of a data key (format: protos/ENVELOPE.md, sections 2 and 3).

A key pair is X-Wing (ML-KEM-768 and X25519) grown from a 32-byte seed, written as age writes its hybrid keys,
so in an emergency the same identity string also opens files made with age.
A wrap is one HPKE base-mode message (RFC 9180): MLKEM768_X25519, HKDF-SHA256, AES-256-GCM.
The sender is anonymous: who sealed something is told by the signed trailer, never by a wrap.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from cloister.sealed import bech32
from cloister.sealed.errors import KeyFormatError, WrapFormatError, WrongRecipientError

SEED_SIZE = 32
PUBLIC_KEY_SIZE = 1216
DEK_SIZE = 32
CONTEXT_SIZE = 32
WRAP_SIZE = 1168
"""1120 bytes of encapsulated key, 32 of data key, 16 of tag"""

WRAP_LABEL = b"cloister-sealed/v1 wrap\x00"

_RECIPIENT_HRP = "age1pq"
_IDENTITY_HRP = "AGE-SECRET-KEY-PQ-"
_MLKEM_PUBLIC_SIZE = 1184
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class Recipient:
    """A public key to which data keys are wrapped: 1184 bytes of ML-KEM-768, then 32 of X25519."""

    public_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _public_key(self.public_key)

    @classmethod
    def parse(cls, text: str) -> "Recipient":
        """From its `age1pq1...` string; raises KeyFormatError."""
        return cls(bech32.decode(text, _RECIPIENT_HRP, PUBLIC_KEY_SIZE, "recipient"))

    @property
    def key_id(self) -> str:
        """The first 32 hexadecimal digits of SHA-256 of the public key."""
        return hashlib.sha256(self.public_key).hexdigest()[:32]

    def __str__(self) -> str:
        return bech32.encode(_RECIPIENT_HRP, self.public_key)

    def __repr__(self) -> str:
        return f"Recipient(key_id={self.key_id!r})"


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key: the 32-byte seed of a key pair.

    `str()` gives the secret itself, for the key file; `repr()` shows the public key id only.
    """

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_SIZE:
            raise KeyFormatError(f"identity: {len(self.seed)} bytes instead of {SEED_SIZE}")

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes] = os.urandom) -> "Identity":
        """A new identity; `random_bytes(n)` must be a cryptographic source."""
        return cls(random_bytes(SEED_SIZE))

    @classmethod
    def parse(cls, text: str) -> "Identity":
        """From its `AGE-SECRET-KEY-PQ-1...` string; raises KeyFormatError, which never repeats the string."""
        return cls(bech32.decode(text, _IDENTITY_HRP, SEED_SIZE, "identity"))

    @property
    def recipient(self) -> Recipient:
        """The public half."""
        mlkem, x25519 = _expand(self.seed)
        public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        return Recipient(public)

    def __str__(self) -> str:
        return bech32.encode(_IDENTITY_HRP, self.seed)

    def __repr__(self) -> str:
        return f"Identity(key_id={self.recipient.key_id!r})"


def wrap(dek: bytes, recipient: Recipient, context: bytes) -> bytes:
    """The data key `dek` (32 bytes) for `recipient`, bound to `context` (a SHA-256 digest): 1168 bytes."""
    if len(dek) != DEK_SIZE:
        raise KeyFormatError(f"data key: {len(dek)} bytes instead of {DEK_SIZE}")
    try:
        return _SUITE.encrypt(dek, _public_key(recipient.public_key), _info(context))
    except ValueError:
        # X25519 refuses a point of small order: its shared secret would be known to everybody.
        raise KeyFormatError(f"recipient {recipient.key_id}: its public key cannot be used") from None


def unwrap(wrapped: bytes, identity: Identity, context: bytes) -> bytes:
    """The data key in `wrapped`.

    Raises WrapFormatError for a wrong length, and WrongRecipientError if it does not open: made for another
    recipient, for another context (a swapped manifest), or damaged. HPKE cannot tell these apart.
    """
    if len(wrapped) != WRAP_SIZE:
        raise WrapFormatError(f"wrap: {len(wrapped)} bytes instead of {WRAP_SIZE}")
    private = hpke.MLKEM768X25519PrivateKey(*_expand(identity.seed))
    try:
        dek = _SUITE.decrypt(wrapped, private, _info(context))
    except (InvalidTag, ValueError):
        raise WrongRecipientError(
            f"wrap: it does not open with the identity {identity.recipient.key_id} and this manifest; "
            "it was made for another key or another manifest, or it is damaged"
        ) from None
    return dek


def _expand(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """X-Wing key expansion: SHAKE-256 of the seed gives 64 bytes for ML-KEM and 32 for X25519."""
    expanded = hashlib.shake_256(seed).digest(96)
    return (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


def _public_key(raw: bytes) -> hpke.MLKEM768X25519PublicKey:
    if len(raw) != PUBLIC_KEY_SIZE:
        raise KeyFormatError(f"recipient: {len(raw)} bytes instead of {PUBLIC_KEY_SIZE}")
    try:
        mlkem = MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_SIZE])
        x25519 = X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_SIZE:])
    except ValueError:
        raise KeyFormatError("recipient: its bytes are not a valid ML-KEM-768 and X25519 public key") from None
    return hpke.MLKEM768X25519PublicKey(mlkem, x25519)


def _info(context: bytes) -> bytes:
    if len(context) != CONTEXT_SIZE:
        raise WrapFormatError(f"wrap: a context of {len(context)} bytes; pass the SHA-256 digest of the manifest")
    return WRAP_LABEL + context
