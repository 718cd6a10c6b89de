# SPDX-License-Identifier: Apache-2.0
"""The payload: sealing and opening of streams of any length in constant memory.

Format: c2sp.org/chunked-encryption version 1 with SHA-512 and AES-256-GCM ("Cobblestone-256"), unchanged.

    salt 24 | commitment 32 | chunk 0 | chunk 1 | ... | last chunk

Every chunk is 16384 bytes and a 16-byte tag, except the last, which is always shorter and may be empty:
a payload without a short chunk at its end was cut.  `protos/ENVELOPE.md` section 4 has the details.
Random access is `PayloadReader`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import BinaryIO

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from cloister.sealed.chunks import (
    CHUNK_SIZE,
    HEADER_SIZE,
    KEY_SIZE,
    SEALED_CHUNK_SIZE,
    ciphertext_size,
    plaintext_size,
)
from cloister.sealed.errors import DigestMismatchError, KeyFormatError, PayloadDamagedError
from cloister.sealed.hashing import sha256_of_blocks
from cloister.sealed.reader import PayloadReader
from cloister.sealed.window import ByteSource

__all__ = [
    "PayloadReader",
    "SealedDigest",
    "ciphertext_size",
    "generate_dek",
    "open_stream",
    "plaintext_size",
    "seal_stream",
]

# 2 MiB per block: large enough that handing work from thread to thread costs nothing beside the work.
_CHUNKS_PER_BLOCK = 128

Progress = Callable[[int], None]
"""Called with the number of plaintext bytes done so far."""


@dataclass(frozen=True, slots=True)
class SealedDigest:
    """What is known of a payload after sealing: this is what a signed trailer states."""

    ciphertext_sha256: str
    """64 hexadecimal digits"""
    ciphertext_size: int
    """bytes"""
    plaintext_size: int
    """bytes"""


def generate_dek() -> bytes:
    """A new data key: 32 random bytes."""
    return Cobblestone256Encryptor.generate_key()


def seal_stream(
    source: ByteSource, sink: BinaryIO, dek: bytes, context: bytes, progress: Progress | None = None
) -> SealedDigest:
    """Seal everything that `source` yields into `sink`.

    A data key may seal one payload only: make a new one for each (`generate_dek`).
    `sink.write` must take all bytes that it is given, as buffered files do.
    Source, sink and `progress` are called from a second thread, never from two at once.
    """
    _check_key(dek)
    encryptor = Cobblestone256Encryptor(dek, context)
    read = written = 0

    def blocks() -> Iterator[memoryview]:
        nonlocal read, written
        plain = memoryview(bytearray(_CHUNKS_PER_BLOCK * CHUNK_SIZE))
        for sealed in _two_buffers(HEADER_SIZE + (_CHUNKS_PER_BLOCK + 1) * SEALED_CHUNK_SIZE):
            count = _fill(plain, source)
            made = encryptor.update_into(plain[:count], sealed) if count else 0
            last = b"" if count == len(plain) else encryptor.finalize()
            sealed[made : made + len(last)] = last
            made += len(last)
            sink.write(sealed[:made])
            read, written = read + count, written + made
            if progress is not None:
                progress(read)
            yield sealed[:made]
            if last:
                return

    sha256 = sha256_of_blocks(blocks())
    return SealedDigest(sha256, written, read)


def open_stream(
    source: ByteSource,
    sink: BinaryIO,
    dek: bytes,
    context: bytes,
    *,
    expected_sha256: str | None = None,
    expected_size: int | None = None,
    progress: Progress | None = None,
) -> SealedDigest:
    """Open the payload that `source` yields, up to its end, into `sink`.

    **Plaintext reaches `sink` before the end is seen, so it may still prove truncated.**
    Every byte written is authentic, but whoever acts on it before this function returns acts on a prefix:
    write to a temporary place, or make the consumer wait for the return.
    Source, sink and `progress` are called from a second thread, never from two at once.

    Raises PayloadTruncatedError if the length alone shows a cut, PayloadDamagedError if anything does not
    authenticate (also: wrong key, wrong context, chunks cut, moved or repeated), DigestMismatchError if the
    ciphertext is genuine but not the announced one (SHA-256 in hexadecimal, size in bytes).
    """
    _check_key(dek)
    decryptor = Cobblestone256Decryptor(dek, context)
    read = written = 0

    def blocks() -> Iterator[memoryview]:
        nonlocal read, written
        plain = memoryview(bytearray((_CHUNKS_PER_BLOCK + 1) * SEALED_CHUNK_SIZE))
        for sealed in _two_buffers(_CHUNKS_PER_BLOCK * SEALED_CHUNK_SIZE):
            count = _fill(sealed, source)
            if not count:
                return
            read += count
            if expected_size is not None and read > expected_size:
                raise DigestMismatchError(f"payload: longer than the announced {expected_size} bytes")
            made = decryptor.update_into(sealed[:count], plain)
            # When `update_into` raises, `plain` may hold unauthenticated bytes: they are never written.
            sink.write(plain[:made])
            written += made
            if progress is not None:
                progress(written)
            yield sealed[:count]

    try:
        sha256 = sha256_of_blocks(blocks())
        plaintext_size(read)
        last = decryptor.finalize()
    except InvalidTag:
        raise PayloadDamagedError(
            f"payload: damaged, or not sealed under this key and context (noticed within {read} bytes)"
        ) from None
    digest = SealedDigest(sha256, read, written + len(last))
    # Before the last bytes are released: whoever has all the plaintext has the announced payload's.
    _check_announced(digest, expected_sha256, expected_size)
    sink.write(last)
    return digest


def _check_announced(digest: SealedDigest, sha256: str | None, size: int | None) -> None:
    if size is not None and digest.ciphertext_size != size:
        raise DigestMismatchError(
            f"payload: {digest.ciphertext_size} bytes instead of the announced {size}; fetch it again"
        )
    if sha256 is not None and digest.ciphertext_sha256 != sha256:
        raise DigestMismatchError(
            f"payload: its SHA-256 is {digest.ciphertext_sha256}, announced was {sha256}; fetch it again"
        )


def _check_key(dek: bytes) -> None:
    if len(dek) != KEY_SIZE:
        raise KeyFormatError(f"data key: {len(dek)} bytes instead of {KEY_SIZE}")


def _two_buffers(size: int) -> Iterator[memoryview]:
    """Two buffers in turn, for ever: one is hashed while the other is filled."""
    return cycle([memoryview(bytearray(size)), memoryview(bytearray(size))])


def _fill(buffer: memoryview, source: ByteSource) -> int:
    """Fill `buffer`; returns fewer bytes only at the end of `source`."""
    filled = 0
    while filled < len(buffer) and (count := source.readinto(buffer[filled:])):
        filled += count
    return filled
