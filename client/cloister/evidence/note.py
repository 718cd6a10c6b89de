# SPDX-License-Identifier: Apache-2.0
"""Signed notes: a text that people can read, followed by signatures (format: c2sp.org/signed-note).

    <text, ends in a newline>
    <blank line>
    — <key name> <base64(key id, 4 bytes || signature)>
    ...

key id = SHA-256(name || 0x0A || type || public key)[:4]; this module makes and checks type 0x01, Ed25519.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloister.evidence.errors import FormatError, SignatureError

MAX_NOTE_BYTES = 1 << 20
MAX_SIGNATURES = 100

_ED25519 = b"\x01"
_DASH = "\u2014 "
_PRIVATE = "PRIVATE+KEY+"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: key name, 4-byte key id, and the signature bytes."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class VerifiedNote:
    """A note of which at least one signature verified; `signatures` are those of known keys only."""

    text: str
    signatures: tuple[NoteSignature, ...]


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A public key and the name under which it signs."""

    name: str
    public_key: bytes
    """raw Ed25519 public key, 32 bytes"""

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.public_key) != 32:
            raise FormatError(f"note key {self.name}: {len(self.public_key)} bytes instead of 32")

    @property
    def key_id(self) -> bytes:
        """The 4-byte key id."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public_key).digest()[:4]

    @property
    def vkey(self) -> str:
        """`name+keyid+base64(type || public key)`, the string that is handed to verifiers."""
        return f"{self.name}+{self.key_id.hex()}+{_b64(_ED25519 + self.public_key)}"

    @classmethod
    def parse(cls, vkey: str) -> "NoteVerifier":
        """Inverse of `vkey`; raises FormatError."""
        name, key_id, key = _parse_key(vkey, "verifier key")
        verifier = cls(name, key)
        if verifier.key_id.hex() != key_id:
            raise FormatError(f"verifier key {name}: its key id {key_id} does not belong to its key")
        return verifier

    def check(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class NoteSigner:
    """A private key and the name under which it signs."""

    name: str
    private_key: Ed25519PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        _check_name(self.name)

    @property
    def verifier(self) -> NoteVerifier:
        """The public half."""
        return NoteVerifier(self.name, self.private_key.public_key().public_bytes_raw())

    @property
    def vkey(self) -> str:
        """The public half as a string."""
        return self.verifier.vkey

    @property
    def skey(self) -> str:
        """`PRIVATE+KEY+name+keyid+base64(type || seed)`: a secret, for the key file only."""
        key_id = self.verifier.key_id.hex()
        return f"{_PRIVATE}{self.name}+{key_id}+{_b64(_ED25519 + self.private_key.private_bytes_raw())}"

    @classmethod
    def parse(cls, skey: str) -> "NoteSigner":
        """Inverse of `skey`; raises FormatError, whose message never repeats the key."""
        if not skey.startswith(_PRIVATE):
            raise FormatError(f"signer key: it does not begin with {_PRIVATE}")
        name, key_id, seed = _parse_key(skey[len(_PRIVATE) :], "signer key")
        signer = cls(name, Ed25519PrivateKey.from_private_bytes(seed))
        if signer.verifier.key_id.hex() != key_id:
            raise FormatError(f"signer key {name}: its key id {key_id} does not belong to its key")
        return signer

    def sign(self, text: str) -> NoteSignature:
        """The signature line over `text`."""
        return NoteSignature(self.name, self.verifier.key_id, self.private_key.sign(text.encode()))


def sign(text: str, signers: Sequence[NoteSigner]) -> bytes:
    """The note over `text` with one signature per signer, in the order given."""
    _check_text(text)
    return format_note(text, [signer.sign(text) for signer in signers])


def format_note(text: str, signatures: Sequence[NoteSignature]) -> bytes:
    """Bytes of a note from its parts; adds nothing and checks the form only."""
    _check_text(text)
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise FormatError(f"note: {len(signatures)} signatures; 1 to {MAX_SIGNATURES} are allowed")
    lines = [f"{_DASH}{s.name} {_b64(s.key_id + s.signature)}\n" for s in signatures]
    return (text + "\n" + "".join(lines)).encode()


def parse_note(data: bytes) -> tuple[str, tuple[NoteSignature, ...]]:
    """Text and signatures of a note, **not verified**; raises FormatError."""
    if len(data) > MAX_NOTE_BYTES:
        raise FormatError(f"note: {len(data)} bytes; at most {MAX_NOTE_BYTES} are allowed")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("note: not valid UTF-8") from None
    # The last blank line separates: a text may itself hold blank lines, signature lines cannot.
    cut = whole.rfind("\n\n")
    if cut < 0:
        raise FormatError("note: no blank line between text and signatures")
    text, block = whole[: cut + 1], whole[cut + 2 :]
    _check_text(text)
    if not block.endswith("\n"):
        raise FormatError("note: no signature, or the last signature line does not end in a newline")
    lines = block[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise FormatError(f"note: {len(lines)} signatures; at most {MAX_SIGNATURES} are allowed")
    return text, tuple(_parse_line(number, line) for number, line in enumerate(lines, 1))


def open_note(data: bytes, verifiers: Sequence[NoteVerifier]) -> VerifiedNote:
    """Text of a note that a known key signed.

    Signatures of unknown keys are ignored (a witness may have added them).
    Raises FormatError for a malformed note, and SignatureError if a known key's signature does not verify
    or if no known key signed.
    """
    known: dict[tuple[str, bytes], NoteVerifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise FormatError(f"note: two known keys share the name {verifier.name} and a key id")
    text, signatures = parse_note(data)
    message = text.encode()
    verified: list[NoteSignature] = []
    for signature in signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        if not key.check(message, signature.signature):
            raise SignatureError(f"note: the signature of {key.name} ({key.key_id.hex()}) does not verify")
        if signature not in verified:
            verified.append(signature)
    if not verified:
        names = ", ".join(v.name for v in verifiers) or "nobody"
        raise SignatureError(f"note: no signature of a known key; known: {names}")
    return VerifiedNote(text, tuple(verified))


def _parse_line(number: int, line: str) -> NoteSignature:
    parts = line.removeprefix(_DASH).split(" ")
    if not line.startswith(_DASH) or len(parts) != 2:
        raise FormatError(f"note: signature line {number} is not '— name base64'")
    _check_name(parts[0])
    raw = _unb64(parts[1], f"note: signature line {number}")
    if len(raw) < 5:
        raise FormatError(f"note: signature line {number} is too short to hold a signature")
    return NoteSignature(parts[0], raw[:4], raw[4:])


def _parse_key(text: str, what: str) -> tuple[str, str, bytes]:
    parts = text.split("+", 2)
    if len(parts) != 3 or not re.fullmatch(r"[0-9a-f]{8}", parts[1]):
        raise FormatError(f"{what}: it is not name+keyid+base64")
    _check_name(parts[0])
    raw = _unb64(parts[2], what)
    if len(raw) != 33 or raw[:1] != _ED25519:
        raise FormatError(f"{what} {parts[0]}: it is not an Ed25519 key (type 01, 32 bytes)")
    return parts[0], parts[1], raw[1:]


def _check_name(name: str) -> None:
    if not name or "+" in name or not name.isprintable() or any(char.isspace() for char in name):
        raise FormatError("note: a key name must be non-empty, without spaces and without '+'")


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise FormatError("note: the text must end in a newline")
    if _CONTROL.search(text):
        raise FormatError("note: the text holds a control character other than newline")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise FormatError(f"{what}: not valid base64") from None
    if _b64(raw) != text:
        raise FormatError(f"{what}: not canonical base64")
    return raw
