# SPDX-License-Identifier: Apache-2.0
"""Make the test vectors of protos/ENVELOPE.md: `python tests/vectors/make_envelope.py` (client/ on the path).

A vector is a text header of `key: value` lines, an empty line, and the bytes under test; ENVELOPE.md, section 8,
says what the keys mean. Everything comes from fixed seeds and from a payload writer of its own (the library's
makes a random salt), so another run writes the same bytes. Wraps alone cannot be made again: HPKE draws its
randomness inside the library. They are kept in `wraps.txt`, and only missing ones are made.
"""

import hashlib
import struct
import tarfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cloister.sealed import bech32
from cloister.sealed.bundle import write_bundle
from cloister.sealed.keys import Identity, wrap

FOLDER = Path(__file__).parent / "envelope"
MAGIC = b"cloister-sealed/v1\n"
CHUNK, SEALED = 16384, 16400
TRAILER_SIZE = 77


def seeded(name: str) -> bytes:
    return hashlib.sha256(b"cloister envelope vectors: " + name.encode()).digest()


ALICE, BOB, DEK = Identity(seeded("alice")), Identity(seeded("bob")), seeded("data key")
MANIFEST = b'{"id":"00000000-0000-7000-8000-000000000001","kind":"dataset"}'
OTHER_MANIFEST = MANIFEST.replace(b"0001", b"0002")


@dataclass
class Wraps:
    """Wraps by name; what is missing is made and kept."""

    path: Path
    known: dict[str, bytes] = field(default_factory=dict)

    def load(self) -> None:
        if self.path.exists():
            pairs = (line.split(" ") for line in self.path.read_text().splitlines())
            self.known = {name: bytes.fromhex(value) for name, value in pairs}

    def record(self, who: str, dek: bytes, manifest: bytes) -> bytes:
        identity = {"alice": ALICE, "bob": BOB}[who]
        name = f"{who}-{hashlib.sha256(dek + manifest).hexdigest()[:16]}"
        if name not in self.known:
            self.known[name] = wrap(dek, identity.recipient, hashlib.sha256(manifest).digest())
        return bytes.fromhex(identity.recipient.key_id) + self.known[name]

    def save(self) -> None:
        self.path.write_text("".join(f"{name} {value.hex()}\n" for name, value in sorted(self.known.items())))


WRAPS = Wraps(FOLDER / "wraps.txt")


def plaintext(size: int) -> bytes:
    return hashlib.shake_256(b"plaintext").digest(size)


def payload(data: bytes, manifest: bytes = MANIFEST, dek: bytes = DEK) -> bytes:
    """Chunked encryption written from its specification, with a fixed salt."""
    salt = seeded(f"salt {len(data)}")[:24]
    label = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"
    keys = HKDFExpand(hashes.SHA512(), 76, label + salt + hashlib.sha256(manifest).digest()).derive(dek)
    aead, base = AESGCM(keys[:32]), int.from_bytes(keys[32:44], "big")
    chunks = [
        aead.encrypt((base ^ at // CHUNK).to_bytes(12, "big"), data[at : at + CHUNK], None)
        for at in range(0, len(data) + 1, CHUNK)
    ]
    return salt + keys[44:] + b"".join(chunks)


def container(
    sealed: bytes,
    *,
    manifest: bytes = MANIFEST,
    wraps: list[bytes] | None = None,
    trailer: bytes | None = None,
    lengths: tuple[int, int, int, int] | None = None,
) -> bytes:
    records = [WRAPS.record("alice", DEK, MANIFEST)] if wraps is None else wraps
    digest = hashlib.sha256(sealed).hexdigest().encode()
    statement = b'{"sha256":"' + digest + b'"}' if trailer is None else trailer
    counts = lengths or (len(manifest), len(records), len(sealed), len(statement))
    return MAGIC + struct.pack(">IIQI", *counts) + manifest + b"".join(records) + sealed + statement


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@dataclass(frozen=True)
class Vector:
    """`expect` holds the results of open, inspect and random access; "ok" or the reason of the error."""

    name: str
    kind: str
    expect: tuple[str, ...]
    comment: str
    body: bytes
    extra: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        keys = ("expect", "inspect", "random-access")
        lines = [("kind", self.kind), *zip(keys, self.expect, strict=False), ("comment", self.comment), *self.extra]
        return "".join(f"{key}: {value}\n" for key, value in lines).encode() + b"\n" + self.body


def sealed_vector(
    name: str, expect: str, comment: str, body: bytes, *, identity: Identity = ALICE, plain: bytes | None = None
) -> Vector:
    """A container; `expect` is "open inspect random-access", or one word for all three."""
    words = expect.split()
    results = tuple(words if len(words) == 3 else words * 3)
    extra = [("identity", str(identity))]
    if plain is not None:
        extra += [("plaintext-size", str(len(plain))), ("plaintext-sha256", hashlib.sha256(plain).hexdigest())]
    return Vector(name, "container", results, comment, body, tuple(extra))


def good() -> list[Vector]:
    sizes = {
        "empty": (0, "an empty plaintext is one empty chunk"),
        "small": (100, "one short chunk"),
        "one-chunk": (CHUNK, "exactly one chunk of plaintext: an empty chunk follows"),
        "three-chunks": (2 * CHUNK + 5, "two full chunks and a short one"),
    }
    made = [
        sealed_vector(f"good-{name}", "ok", comment, container(payload(plaintext(size))), plain=plaintext(size))
        for name, (size, comment) in sizes.items()
    ]
    both = [WRAPS.record("alice", DEK, MANIFEST), WRAPS.record("bob", DEK, MANIFEST)]
    body = container(payload(plaintext(100)), wraps=both)
    comment = "two recipients, opened by the second"
    return [*made, sealed_vector("good-two", "ok", comment, body, identity=BOB, plain=plaintext(100))]


def truncated() -> list[Vector]:
    sealed = payload(plaintext(100))
    whole = container(sealed)
    wraps_at = len(MAGIC) + 20 + len(MANIFEST)
    payload_at = wraps_at + 1184
    trailer_at = payload_at + len(sealed)
    cuts = {
        "magic": (10, "inside the first line"),
        "lengths": (len(MAGIC), "after the first line"),
        "lengths-inside": (len(MAGIC) + 11, "inside the lengths"),
        "manifest": (len(MAGIC) + 20, "before the manifest"),
        "manifest-inside": (len(MAGIC) + 30, "inside the manifest"),
        "wraps": (wraps_at, "before the wraps"),
        "wraps-inside": (wraps_at + 500, "inside a wrap"),
        "payload": (payload_at, "before the payload"),
        "payload-header": (payload_at + 30, "inside salt and commitment"),
        "payload-chunk": (payload_at + 80, "inside a chunk"),
        "trailer": (trailer_at, "before the trailer"),
        "trailer-inside": (len(whole) - 1, "one byte before the end"),
    }
    made = [
        sealed_vector(f"cut-{name}", "CONTAINER_TRUNCATED", f"file cut {comment}", whole[:at])
        for name, (at, comment) in cuts.items()
    ]
    return [*made, sealed_vector("cut-all", "NOT_SEALED", "an empty file", b"")]


def payload_damage() -> list[Vector]:
    long = payload(plaintext(2 * CHUNK + 5))
    head, first, second, last = long[:56], long[56 : 56 + SEALED], long[56 + SEALED : 56 + 2 * SEALED], long[-21:]
    late = "PAYLOAD_DAMAGED ok PAYLOAD_DAMAGED"
    cut = "PAYLOAD_TRUNCATED"
    cases = {
        "no-chunk": (cut, "payload of header only, lengths adjusted", head),
        "no-header": (cut, "payload cut inside its header, lengths adjusted", head[:40]),
        "no-last": (cut, "the short last chunk is missing, lengths adjusted", long[:-21]),
        "short-tag": (cut, "only 10 bytes of the last chunk, lengths adjusted", long[:-11]),
        "last-cut": (late, "the last chunk lost a byte, lengths adjusted", long[:-1]),
        "drop-first": (late, "the first chunk is missing", head + second + last),
        "drop-second": (late, "the second chunk is missing", head + first + last),
        "reordered": (late, "the first two chunks are exchanged", head + second + first + last),
        "repeated": (late, "the first chunk stands twice", head + first + first + last),
        "extended": (late, "a byte follows the last chunk", long + b"x"),
        "flip-first": (late, "a bit of the first chunk", flip(long, 60)),
        "flip-tag": (late, "a bit of the first chunk's tag", flip(long, 56 + SEALED - 1)),
        "flip-last": (late, "a bit of the last chunk", flip(long, len(long) - 20)),
    }
    return [
        sealed_vector(f"payload-{name}", expect, comment, container(body))
        for name, (expect, comment, body) in cases.items()
    ]


def flipped() -> list[Vector]:
    sealed = payload(plaintext(100))
    whole = container(sealed)
    wraps_at = len(MAGIC) + 20 + len(MANIFEST)
    payload_at = wraps_at + 1184
    wrong, damaged = "WRONG_RECIPIENT ok WRONG_RECIPIENT", "PAYLOAD_DAMAGED ok PAYLOAD_DAMAGED"
    cases = {
        "magic": ("NOT_SEALED", "first byte of the file", 0),
        "version": ("UNSUPPORTED_VERSION", "the version number", len(MAGIC) - 2),
        "manifest": (wrong, "a bit of the manifest: the wrap no longer fits", len(MAGIC) + 25),
        "key-id": (wrong, "the key id of the only wrap", wraps_at),
        "wrap-mlkem": (wrong, "ML-KEM ciphertext in the wrap", wraps_at + 16 + 100),
        "wrap-x25519": (wrong, "X25519 share in the wrap", wraps_at + 16 + 1100),
        "wrap-key": (wrong, "encrypted data key in the wrap", wraps_at + 16 + 1125),
        "wrap-tag": (wrong, "tag of the wrap", wraps_at + 1183),
        "salt": (damaged, "salt of the payload", payload_at),
        "commitment": (damaged, "commitment of the payload", payload_at + 30),
        "chunk": (damaged, "ciphertext", payload_at + 60),
        "tag": (damaged, "tag of the chunk", payload_at + len(sealed) - 1),
    }
    made = [
        sealed_vector(f"flip-{name}", expect, f"bit flipped: {comment}", flip(whole, at))
        for name, (expect, comment, at) in cases.items()
    ]
    comment = "bit flipped in the trailer: it is opaque here, its signature is checked by the evidence layer"
    return [*made, sealed_vector("flip-trailer", "ok", comment, flip(whole, len(whole) - 5), plain=plaintext(100))]


def swapped() -> list[Vector]:
    sealed = payload(plaintext(100))
    alice = WRAPS.record("alice", DEK, MANIFEST)
    renamed = bytes.fromhex(BOB.recipient.key_id) + alice[16:]
    rewrapped = WRAPS.record("alice", DEK, OTHER_MANIFEST)
    foreign = WRAPS.record("alice", seeded("other data key"), MANIFEST)
    wrong, damaged = "WRONG_RECIPIENT ok WRONG_RECIPIENT", "PAYLOAD_DAMAGED ok PAYLOAD_DAMAGED"
    sizes = (len(MANIFEST) - 1, 1, len(sealed), TRAILER_SIZE + 1)
    cases = [
        ("wrong-recipient", wrong, "opened by somebody to whom it is not sealed", container(sealed), BOB),
        ("wrong-key-id", wrong, "Alice's wrap under Bob's key id", container(sealed, wraps=[renamed]), BOB),
        ("manifest", wrong, "another manifest, all else unchanged", container(sealed, manifest=OTHER_MANIFEST), ALICE),
        (
            "manifest-and-wrap",
            damaged,
            "another manifest by a recipient who wrapped the same data key for it",
            container(sealed, manifest=OTHER_MANIFEST, wraps=[rewrapped]),
            ALICE,
        ),
        ("foreign-key", damaged, "the wrap of another data key", container(sealed, wraps=[foreign]), ALICE),
        ("boundaries", wrong, "the parts' borders moved by a byte", container(sealed, lengths=sizes), ALICE),
        ("wrap-twice", "BAD_HEADER", "the same recipient twice", container(sealed, wraps=[alice, alice]), ALICE),
    ]
    return [
        sealed_vector(f"swap-{name}", expect, comment, body, identity=who) for name, expect, comment, body, who in cases
    ]


def lengths() -> list[Vector]:
    sealed = payload(plaintext(100))
    parts = (len(MANIFEST), 1, len(sealed))
    rest = (len(sealed), TRAILER_SIZE)
    limit = "CONTAINER_LIMIT"
    cases: dict[str, tuple[str, str, bytes | tuple[int, int, int, int]]] = {
        "trailing": ("TRAILING_DATA", "a byte follows the trailer", container(sealed) + b"\n"),
        "twice": ("TRAILING_DATA", "a second container follows", container(sealed) * 2),
        "shorter": ("TRAILING_DATA", "the trailer is declared a byte shorter", (*parts, TRAILER_SIZE - 1)),
        "longer": ("CONTAINER_TRUNCATED", "the trailer is declared a byte longer", (*parts, TRAILER_SIZE + 1)),
        "no-manifest": ("BAD_HEADER", "no manifest", (0, 1, *rest)),
        "no-wrap": ("BAD_HEADER", "no wrap", (len(MANIFEST), 0, *rest)),
        "manifest": (limit, "manifest above 64 KiB", (65537, 1, *rest)),
        "wraps": (limit, "more than 1024 wraps", (len(MANIFEST), 1025, *rest)),
        "payload": (limit, "payload above 2**38 chunks", (len(MANIFEST), 1, 2**63, TRAILER_SIZE)),
        "trailer": (limit, "trailer above 64 KiB", (*parts, 2**32 - 1)),
        "inner": ("PAYLOAD_TRUNCATED", "a payload shorter than its header", container(b"", trailer=b"{}")),
    }
    return [
        sealed_vector(
            f"length-{name}", expect, comment, body if isinstance(body, bytes) else container(sealed, lengths=body)
        )
        for name, (expect, comment, body) in cases.items()
    ]


def keys() -> list[Vector]:
    """Key strings, good and bad; two come from outside (the X-Wing draft, the manual of age-keygen)."""
    draft = Identity(bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"))
    secret, public = str(ALICE), str(ALICE.recipient)
    padded = bech32.encode("AGE-SECRET-KEY-PQ-", bytes(33))
    manual = "AGE-SECRET-KEY-PQ-1K30MYPZAHAXHR22YHH27EGDVLU0QNSUH3DSV7J7NR3X6D9LHXNWSDLTV4T"
    identities = {
        "good": (None, "made here", secret),
        "good-draft": (None, "seed of the first test vector of the X-Wing draft", str(draft)),
        "good-age": (None, "identity of the manual page of age-keygen; its recipient begins with age1pq167", manual),
        "lower": ("BAD_KEY", "lower case", secret.lower()),
        "mixed": ("BAD_KEY", "mixed case", secret[:30] + secret[30:].lower()),
        "checksum": ("BAD_KEY", "two characters exchanged", secret[:-2] + secret[-1] + secret[-2]),
        "cut": ("BAD_KEY", "last character missing", secret[:-1]),
        "long": ("BAD_KEY", "a seed of 33 bytes", padded),
        "space": ("BAD_KEY", "a newline follows", secret + "\n"),
        "classic": ("BAD_KEY", "prefix of a classic age key", bech32.encode("AGE-SECRET-KEY-", ALICE.seed)),
        "recipient": ("BAD_KEY", "a recipient where an identity belongs", public),
    }
    recipients = {
        "good": (None, "made here", public),
        "upper": ("BAD_KEY", "upper case", public.upper()),
        "checksum": (
            "BAD_KEY",
            "one character changed",
            public[:50] + ("q" if public[50] != "q" else "p") + public[51:],
        ),
        "short": ("BAD_KEY", "1215 bytes", bech32.encode("age1pq", ALICE.recipient.public_key[:-1])),
        "classic": ("BAD_KEY", "prefix of a classic age key", bech32.encode("age", bytes(32))),
        "modulus": ("BAD_KEY", "ML-KEM coefficients above the modulus", bech32.encode("age1pq", b"\xff" * 1216)),
    }
    made: list[Vector] = []
    for kind, cases in (("identity", identities), ("recipient", recipients)):
        for name, (reason, comment, text) in cases.items():
            extra: tuple[tuple[str, str], ...] = ()
            if reason is None:
                recipient = Identity.parse(text).recipient if kind == "identity" else ALICE.recipient
                extra = (("key-id", recipient.key_id),)
            made.append(Vector(f"{kind}-{name}", kind, (reason or "ok",), comment, text.encode(), extra))
    return made


def tar(*files: tuple[str, bytes], **fields: object) -> bytes:
    """A bundle in canonical form but for its names, their order, and `fields` of the first header."""
    out = b""
    for number, (name, data) in enumerate(files):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for key, value in fields.items() if number == 0 else ():
            setattr(info, key, value)
        out += info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)
    return out + bytes(1024)


def bundles() -> list[Vector]:
    sink = BytesIO()
    write_bundle([("config.json", b"{}"), ("folder/weights.safetensors", bytes(512)), ("vocab.txt", b"a\nb\n")], sink)
    whole = sink.getvalue()
    one = ("config.json", b"{}")
    bad, unsafe = "BAD_BUNDLE", "UNSAFE_NAME"
    cases = {
        "good": ("ok", "three files, one in a folder", whole),
        "good-none": ("ok", "no files", bytes(1024)),
        "empty": (bad, "no bytes at all", b""),
        "unsorted": (bad, "names in descending order", tar(("b", b""), ("a", b""))),
        "twice": (bad, "a name twice", tar(one, one)),
        "parent": (unsafe, "a name that leaves the folder", tar(("../config.json", b"{}"))),
        "parent-inside": (unsafe, "a name that leaves and comes back", tar(("a/../b", b"{}"))),
        "absolute": (unsafe, "an absolute name", tar(("/etc/passwd", b"{}"))),
        "hidden": (unsafe, "a hidden file", tar((".bashrc", b""))),
        "deep": (unsafe, "two folders deep", tar(("a/b/c", b""))),
        "option": (unsafe, "a name that looks like an option", tar(("-rf", b""))),
        "link": (bad, "a symbolic link", tar(("config.json", b""), type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        "folder": (unsafe, "a folder", tar(("folder", b""), type=tarfile.DIRTYPE)),
        "device": (bad, "a device", tar(("null", b""), type=tarfile.CHRTYPE)),
        "time": (bad, "a time other than zero", tar(one, mtime=1)),
        "mode": (bad, "an executable file", tar(one, mode=0o755)),
        "owner": (bad, "an owner", tar(one, uid=1000, uname="alice")),
        "flip": (bad, "a bit of a header", flip(whole, 110)),
        "padding": (bad, "padding that is not zero", flip(whole, 600)),
        "cut-content": (bad, "cut inside a file", whole[:513]),
        "cut-header": (bad, "cut inside a header", whole[:1100]),
        "cut-end": (bad, "one zero block at the end", whole[:-512]),
        "trailing": (bad, "bytes after the end", whole + bytes(512)),
    }
    return [
        Vector(f"bundle-{name}", "bundle", (expect,), comment, body) for name, (expect, comment, body) in cases.items()
    ]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    WRAPS.load()
    makers = (good, truncated, payload_damage, flipped, swapped, lengths, keys, bundles)
    for vector in (vector for maker in makers for vector in maker()):
        (FOLDER / f"{vector.name}.vector").write_bytes(vector.encode())
    WRAPS.save()


if __name__ == "__main__":
    main()
