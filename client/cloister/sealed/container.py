# SPDX-License-Identifier: Apache-2.0
r"""The `.sealed` file: manifest, wraps, payload and trailer in one file, for transport and backup.

Layout (protos/ENVELOPE.md, section 5; integers big-endian):

    "cloister-sealed/v1\n"
    manifest size u32 | number of wraps u32 | payload size u64 | trailer size u32
    manifest | wraps, 1184 bytes each | payload | trailer

Manifest and trailer are opaque here: `cloister.evidence` signs and checks them.
SHA-256 of the manifest is the context of the payload and of every wrap: neither opens under another manifest.
The list of wraps is not authenticated: changing it changes who *can* open, not what is opened.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cloister.sealed import keys
from cloister.sealed.chunks import MAX_PAYLOAD_SIZE, plaintext_size
from cloister.sealed.errors import (
    ContainerLimitError,
    ContainerTruncatedError,
    HeaderError,
    NotSealedError,
    TrailingDataError,
    UnsupportedVersionError,
    WrapFormatError,
    WrongRecipientError,
)
from cloister.sealed.keys import Identity, Recipient
from cloister.sealed.payload import (
    PayloadReader,
    SealedDigest,
    generate_dek,
    open_stream,
    seal_stream,
)
from cloister.sealed.window import ByteSource, FileWindow, copy_range

MAGIC = b"cloister-sealed/v1\n"
MAX_MANIFEST_SIZE = 1 << 16
MAX_TRAILER_SIZE = 1 << 16
MAX_WRAPS = 1024

_MAGIC_STEM = b"cloister-sealed/"
_LENGTHS = struct.Struct(">IIQI")
_KEY_ID_SIZE = 16
_WRAP_RECORD = _KEY_ID_SIZE + keys.WRAP_SIZE
_WRAPS_START = len(MAGIC) + _LENGTHS.size


@dataclass(frozen=True, slots=True)
class Wrap:
    """A data key wrapped to one recipient: key id (32 hexadecimal digits) and the 1168 bytes of the wrap."""

    recipient_key_id: str
    wrap: bytes

    def __post_init__(self) -> None:
        if len(self.wrap) != keys.WRAP_SIZE:
            raise WrapFormatError(f"wrap: {len(self.wrap)} bytes instead of {keys.WRAP_SIZE}")
        if len(self.recipient_key_id) != 2 * _KEY_ID_SIZE or self.recipient_key_id.strip("0123456789abcdef"):
            raise WrapFormatError("wrap: the key id is not 32 lower-case hexadecimal digits")


@dataclass(frozen=True, slots=True)
class ContainerHeader:
    """Everything in a container but the payload; nothing of it is verified yet."""

    manifest: bytes
    wraps: tuple[Wrap, ...]
    payload_offset: int
    payload_size: int
    trailer: bytes

    @property
    def context(self) -> bytes:
        """SHA-256 of the manifest."""
        return context_of(self.manifest)


def context_of(manifest: bytes) -> bytes:
    """The 32-byte context under which payload and wraps of this manifest are made."""
    return hashlib.sha256(manifest).digest()


def write_container(
    path: str | os.PathLike[str],
    manifest: bytes,
    source: ByteSource,
    recipients: Sequence[Recipient],
    make_trailer: Callable[[SealedDigest], bytes],
    dek: bytes | None = None,
) -> SealedDigest:
    """Seal `source` into the new file `path`, replacing a file of that name.

    `make_trailer` gets the payload's digest and returns the signed statement about it.
    A given `dek` must be fresh: one data key seals one payload.
    The file appears complete or not at all.
    """
    _check_size("manifest", len(manifest), MAX_MANIFEST_SIZE)
    _check_recipients(recipients)
    fresh = generate_dek() if dek is None else dek
    context = context_of(manifest)
    wraps = [Wrap(r.key_id, keys.wrap(fresh, r, context)) for r in recipients]
    with _new_file(Path(path)) as file:
        file.write(_header(manifest, wraps, 0, 0))
        digest = seal_stream(source, file, fresh, context)
        trailer = make_trailer(digest)
        _check_size("trailer", len(trailer), MAX_TRAILER_SIZE)
        file.write(trailer)
        # The sizes are known only now; until the rename below nobody can read the zeros that stood here.
        file.seek(0)
        file.write(_header(manifest, wraps, digest.ciphertext_size, len(trailer)))
    return digest


def read_header(path: str | os.PathLike[str]) -> ContainerHeader:
    """Read and check the form of a container without any key; the payload is not read."""
    with Path(path).open("rb") as file:
        return _read_header(file)


def find_dek(header: ContainerHeader, identity: Identity) -> bytes:
    """The data key, from the wrap that names this identity; raises WrongRecipientError."""
    key_id = identity.recipient.key_id
    for wrap in header.wraps:
        if wrap.recipient_key_id == key_id:
            return keys.unwrap(wrap.wrap, identity, header.context)
    names = ", ".join(wrap.recipient_key_id for wrap in header.wraps[:8])
    raise WrongRecipientError(f"container: not sealed to the identity {key_id}; it is sealed to {names}")


def open_container(
    path: str | os.PathLike[str],
    identity: Identity,
    sink: BinaryIO,
    *,
    check: Callable[[ContainerHeader], SealedDigest] | None = None,
) -> SealedDigest:
    """Open the payload of a container into `sink`.

    `check` is called before any key is used: it verifies manifest and trailer, and returns the digest that
    the signature promises, to which the payload is then held.
    Without it the caller knows that somebody sealed these bytes for this manifest, but not who.
    As in `open_stream`, `sink` gets plaintext before the end is proven.
    """
    with Path(path).open("rb") as file:
        header = _read_header(file)
        expected = None if check is None else check(header)
        window = FileWindow(file, header.payload_offset, header.payload_size)
        return open_stream(
            window,
            sink,
            find_dek(header, identity),
            header.context,
            expected_sha256=None if expected is None else expected.ciphertext_sha256,
            expected_size=None if expected is None else expected.ciphertext_size,
        )


def rewrap(
    path_in: str | os.PathLike[str],
    identity: Identity,
    recipients: Sequence[Recipient],
    path_out: str | os.PathLike[str],
) -> ContainerHeader:
    """Write a copy that is wrapped to `recipients` instead; manifest, payload and trailer stay byte for byte.

    Old recipients who kept the old file, or its data key, can still open the payload.
    """
    _check_recipients(recipients)
    with Path(path_in).open("rb") as source:
        header = _read_header(source)
        dek = find_dek(header, identity)
        # The wraps are not authenticated: make sure that this data key is the payload's before passing it on.
        PayloadReader(source, dek, header.context, offset=header.payload_offset, size=header.payload_size)
        wraps = [Wrap(r.key_id, keys.wrap(dek, r, header.context)) for r in recipients]
        with _new_file(Path(path_out)) as file:
            head = _header(header.manifest, wraps, header.payload_size, len(header.trailer))
            file.write(head)
            copy_range(source, header.payload_offset, header.payload_size, file)
            file.write(header.trailer)
    return ContainerHeader(header.manifest, tuple(wraps), len(head), header.payload_size, header.trailer)


def _header(manifest: bytes, wraps: Sequence[Wrap], payload_size: int, trailer_size: int) -> bytes:
    lengths = _LENGTHS.pack(len(manifest), len(wraps), payload_size, trailer_size)
    records = b"".join(bytes.fromhex(wrap.recipient_key_id) + wrap.wrap for wrap in wraps)
    return MAGIC + lengths + manifest + records


def _read_header(file: BinaryIO) -> ContainerHeader:
    """Every length is checked against its limit and against the file before memory is taken for it."""
    actual = file.seek(0, os.SEEK_END)
    file.seek(0)
    _check_magic(file.read(len(MAGIC)))
    lengths = file.read(_LENGTHS.size)
    if len(lengths) != _LENGTHS.size:
        raise ContainerTruncatedError("container: it ends inside its lengths")
    manifest_size, wrap_count, payload_size, trailer_size = _LENGTHS.unpack(lengths)
    _check_size("manifest", manifest_size, MAX_MANIFEST_SIZE)
    _check_size("list of wraps", wrap_count, MAX_WRAPS)
    _check_size("payload", payload_size, MAX_PAYLOAD_SIZE)
    _check_size("trailer", trailer_size, MAX_TRAILER_SIZE)
    end = _WRAPS_START
    sizes = (manifest_size, wrap_count * _WRAP_RECORD, payload_size, trailer_size)
    for part, size in zip(("manifest", "wraps", "payload", "trailer"), sizes, strict=True):
        end += size
        if actual < end:
            raise ContainerTruncatedError(
                f"container: it ends inside its {part}: {actual} bytes, at least {end} expected; copy again"
            )
    if actual > end:
        raise TrailingDataError(f"container: {actual - end} bytes follow its end at {end}")
    plaintext_size(payload_size)
    manifest = file.read(manifest_size)
    wraps = _parse_wraps(file.read(wrap_count * _WRAP_RECORD))
    payload_offset = file.tell()
    file.seek(payload_offset + payload_size)
    return ContainerHeader(manifest, wraps, payload_offset, payload_size, file.read(trailer_size))


def _parse_wraps(data: bytes) -> tuple[Wrap, ...]:
    records = [data[at : at + _WRAP_RECORD] for at in range(0, len(data), _WRAP_RECORD)]
    wraps = tuple(Wrap(record[:_KEY_ID_SIZE].hex(), record[_KEY_ID_SIZE:]) for record in records)
    if len({wrap.recipient_key_id for wrap in wraps}) != len(wraps):
        raise HeaderError("container: two wraps name the same recipient")
    return wraps


def _check_magic(magic: bytes) -> None:
    if magic == MAGIC:
        return
    if magic and MAGIC.startswith(magic):
        raise ContainerTruncatedError("container: it ends inside its first line")
    if magic.startswith(_MAGIC_STEM):
        raise UnsupportedVersionError("container: it has a version other than v1; open it with a newer cloister")
    raise NotSealedError("container: the file does not begin with 'cloister-sealed/v1'; it is not a sealed file")


def _check_size(part: str, size: int, limit: int) -> None:
    if size > limit:
        raise ContainerLimitError(f"container: {part} of {size}; at most {limit} is allowed")
    if size == 0 and part in ("manifest", "list of wraps"):
        raise HeaderError(f"container: its {part} is empty")


def _check_recipients(recipients: Sequence[Recipient]) -> None:
    _check_size("list of wraps", len(recipients), MAX_WRAPS)
    if len({recipient.key_id for recipient in recipients}) != len(recipients):
        raise HeaderError("container: a recipient is named twice")


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path` that becomes `path` at the end, or vanishes on any error.

    Order: data to disk, then rename, then the folder to disk; a crash leaves the old state or the new one.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
