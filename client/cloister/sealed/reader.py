# SPDX-License-Identifier: Apache-2.0
"""Random access to the plaintext of a payload (format: protos/ENVELOPE.md, section 4).

The library offers streams only, so the key schedule of c2sp.org/chunked-encryption is repeated here:

    HKDF-Expand-SHA512(data key, label || salt || context, 76) = key 32 | base nonce 12 | commitment 32

Chunk k stands at 56 + k * 16400 and has the nonce (base nonce XOR k).
"""

import hmac
import io
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from cloister.sealed.chunks import CHUNK_SIZE, HEADER_SIZE, KEY_SIZE, SEALED_CHUNK_SIZE, plaintext_size
from cloister.sealed.errors import KeyFormatError, PayloadDamagedError, PayloadTruncatedError

_LABEL = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"
_SALT_SIZE = 24
_NONCE_SIZE = 12


class PayloadReader:
    """A read-only, seekable view of a payload's plaintext; every byte returned is authenticated.

    Opening checks the commitment (right key and context) and decrypts the last chunk, which proves the
    length: from then on nothing read can prove truncated.
    What it does not check is the payload's SHA-256: chunks never read stay unread.
    """

    def __init__(
        self, source: BinaryIO, dek: bytes, context: bytes, *, offset: int = 0, size: int | None = None
    ) -> None:
        """Open the payload of `size` bytes at `offset` of the seekable `source` (default: up to its end).

        Raises PayloadTruncatedError or PayloadDamagedError.
        """
        if len(dek) != KEY_SIZE:
            raise KeyFormatError(f"data key: {len(dek)} bytes instead of {KEY_SIZE}")
        self._source = source
        self._start = offset
        sealed_size = source.seek(0, io.SEEK_END) - offset if size is None else size
        self.size = plaintext_size(sealed_size)
        """bytes of plaintext"""
        source.seek(offset)
        header = source.read(HEADER_SIZE)
        if len(header) != HEADER_SIZE:
            raise PayloadTruncatedError("payload: it ends inside its header")
        info = _LABEL + header[:_SALT_SIZE] + context
        keys = HKDFExpand(hashes.SHA512(), KEY_SIZE + _NONCE_SIZE + 32, info).derive(dek)
        commitment = keys[KEY_SIZE + _NONCE_SIZE :]
        if not hmac.compare_digest(commitment, header[_SALT_SIZE:]):
            raise PayloadDamagedError("payload: it was not sealed under this key and context")
        self._aead = AESGCM(keys[:KEY_SIZE])
        self._base_nonce = int.from_bytes(keys[KEY_SIZE : KEY_SIZE + _NONCE_SIZE], "big")
        self._position = 0
        self._cached = self.size // CHUNK_SIZE
        self._chunk = self._decrypt(self._cached)

    def tell(self) -> int:
        """Current position in the plaintext."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move as files do; a position beyond the end reads as empty."""
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}
        if whence not in bases:
            raise ValueError(f"payload: seek from {whence}; use 0 (start), 1 (position) or 2 (end)")
        self._position = max(0, bases[whence] + offset)
        return self._position

    def seekable(self) -> bool:
        """True."""
        return True

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes from the current position; all that are left for a negative count."""
        left = max(0, self.size - self._position)
        wanted = left if count < 0 else min(count, left)
        pieces: list[bytes] = []
        while wanted:
            number, start = divmod(self._position, CHUNK_SIZE)
            if number != self._cached:
                self._chunk, self._cached = self._decrypt(number), number
            piece = self._chunk[start : start + wanted]
            pieces.append(piece)
            wanted -= len(piece)
            self._position += len(piece)
        return b"".join(pieces)

    def _decrypt(self, number: int) -> bytes:
        last = number == self.size // CHUNK_SIZE
        length = SEALED_CHUNK_SIZE - CHUNK_SIZE + (self.size % CHUNK_SIZE if last else CHUNK_SIZE)
        self._source.seek(self._start + HEADER_SIZE + number * SEALED_CHUNK_SIZE)
        sealed = self._source.read(length)
        if len(sealed) != length:
            raise PayloadTruncatedError(f"payload: it ends inside chunk {number}")
        nonce = (self._base_nonce ^ number).to_bytes(_NONCE_SIZE, "big")
        try:
            return self._aead.decrypt(nonce, sealed, None)
        except InvalidTag:
            raise PayloadDamagedError(f"payload: chunk {number} is damaged, moved, or not the last one") from None
