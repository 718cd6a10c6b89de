# SPDX-License-Identifier: Apache-2.0
"""Sizes and offsets of a payload: all of its arithmetic (format: protos/ENVELOPE.md, section 4)."""

from cloister.sealed.errors import PayloadTruncatedError

KEY_SIZE = 32
HEADER_SIZE = 56
CHUNK_SIZE = 16384
TAG_SIZE = 16
SEALED_CHUNK_SIZE = CHUNK_SIZE + TAG_SIZE
MAX_CHUNKS = 2**38
MAX_PAYLOAD_SIZE = HEADER_SIZE + MAX_CHUNKS * SEALED_CHUNK_SIZE - 1


def plaintext_size(ciphertext_bytes: int) -> int:
    """Bytes of plaintext in a payload of `ciphertext_bytes` bytes.

    Raises PayloadTruncatedError for a size that no complete payload has.
    """
    chunks, rest = divmod(ciphertext_bytes - HEADER_SIZE, SEALED_CHUNK_SIZE)
    if ciphertext_bytes < HEADER_SIZE or rest < TAG_SIZE:
        raise PayloadTruncatedError(
            f"payload: no complete payload is {ciphertext_bytes} bytes long; it was cut, fetch it again"
        )
    return chunks * CHUNK_SIZE + rest - TAG_SIZE


def ciphertext_size(plaintext_bytes: int) -> int:
    """Bytes of the payload that seals `plaintext_bytes` bytes."""
    return HEADER_SIZE + plaintext_bytes + TAG_SIZE * (plaintext_bytes // CHUNK_SIZE + 1)
