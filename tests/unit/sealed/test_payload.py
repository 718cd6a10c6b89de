# SPDX-License-Identifier: Apache-2.0
import hashlib
import random
import zlib
from io import BytesIO

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor

from cloister.sealed.errors import (
    DigestMismatchError,
    KeyFormatError,
    PayloadDamagedError,
    PayloadTruncatedError,
)
from cloister.sealed.payload import (
    PayloadReader,
    SealedDigest,
    ciphertext_size,
    generate_dek,
    open_stream,
    plaintext_size,
    seal_stream,
)

CHUNK = 16384
BLOCK = 128 * CHUNK
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5 * CHUNK + 7]
DEK, CONTEXT = b"k" * 32, b"context"

# Tests 1 to 3 of Wycheproof's c2sp_chunked_encryption_aes_256_gcm_test.json: length, ciphertext (zlib), SHA-512.
WYCHEPROOF_KEY = b"YELLOW SUBMARINE YELLOW SUBMARIN"
WYCHEPROOF = [
    (
        0,
        (
            "78da004800b7ff43a2e39431cbae0389d3fc86adf46f7c3a24de88d9311617e53f3164cc1d5dc738a66b97f0bf786565c31799c2"
            "f463d50a7e10046011dc6fc3c939e3a5db7affb6191551669554fb010000ffff4bc124df"
        ),
        (
            "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
            "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
        ),
    ),
    (
        7,
        (
            "78da004f00b0ffa1a1b56f6db58cd1ede0c5c9db62aef20d3f96a6c594bb9252bb38122de91236502b42a1d7fcab820ffa292940"
            "d2f86add212cfa42c38df19d3cc9139ee61a5990d3db57433514229beea49a8a72bd010000ffffdb4f2a44"
        ),
        (
            "e85f32a85f1d4f7c9b2d36d20eca8435d81253e7075e9dea069eb1b6da48daf9"
            "2ef1797367b520d8a46c4f72cecb85b1daff8887fcb41721d39943d1952fc180"
        ),
    ),
    (
        16385,
        (
            "78daecc0312b05010000e0ab33889449c9a0cb22b9ba89943f70a5fc02db1918582c6e757465a0db6eb11ad5a52e1383b2dca26c"
            "66a4647b75f55ebdf733def27d4f7ff71fd7e9db7137b778b1558707cdd27cf270d4177b2f7751f738d80e376f9ed7aaaf7c793d"
            "fa0d47ef2797b3e57ed6bf360100000000000000000000000000000030750bc9613ffc6cafd232cb57ebd3b320de5d29cedbf876"
            "a7da18ff7fffcc4c020000ffffea552abb"
        ),
        (
            "db9e441f318209d02c8eaedfa94be7a08d3414057835c80ecea2deb0b16438ff"
            "97ae6dac13a749efe4a24686b01dc0dfab756703e810cc164466cd5cce99b3e8"
        ),
    ),
]


def plain(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def seal(data: bytes, dek: bytes = DEK, context: bytes = CONTEXT) -> tuple[bytes, SealedDigest]:
    sink = BytesIO()
    digest = seal_stream(BytesIO(data), sink, dek, context)
    return sink.getvalue(), digest


class Trickle:
    """A source that gives a few bytes at a time, as pipes do."""

    def __init__(self, data: bytes) -> None:
        self._file = BytesIO(data)

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        return self._file.readinto(memoryview(buffer)[:1000])


@pytest.mark.parametrize("size", SIZES)
def test_sealing_and_opening_are_inverse(size: int) -> None:
    """Every length comes back, and both directions report the same digest and sizes."""
    sealed, digest = seal(plain(size))
    sink = BytesIO()
    assert digest == open_stream(BytesIO(sealed), sink, DEK, CONTEXT)
    assert plain(size) == sink.getvalue()
    assert digest == SealedDigest(hashlib.sha256(sealed).hexdigest(), len(sealed), size)


@pytest.mark.parametrize("size", SIZES)
def test_the_library_reads_what_is_sealed(size: int) -> None:
    """The payload is plain Cobblestone-256: the library's own decryptor opens it in one piece."""
    decryptor = Cobblestone256Decryptor(DEK, CONTEXT)
    assert plain(size) == decryptor.update(seal(plain(size))[0]) + decryptor.finalize()


@pytest.mark.parametrize("size", SIZES)
def test_what_the_library_seals_is_read(size: int) -> None:
    """Stream and random access open a payload that the library's own encryptor made."""
    encryptor = Cobblestone256Encryptor(DEK, CONTEXT)
    sealed = encryptor.update(plain(size)) + encryptor.finalize()
    sink = BytesIO()
    open_stream(BytesIO(sealed), sink, DEK, CONTEXT)
    reader = PayloadReader(BytesIO(sealed), DEK, CONTEXT)
    assert plain(size) == sink.getvalue()
    assert (size, plain(size)) == (reader.size, reader.read())


@pytest.mark.parametrize(("size", "packed", "sha512"), WYCHEPROOF)
def test_published_vectors_open(size: int, packed: str, sha512: str) -> None:
    """Payloads made by the specification's own implementation open in both ways."""
    sealed = zlib.decompress(bytes.fromhex(packed))
    sink = BytesIO()
    open_stream(BytesIO(sealed), sink, WYCHEPROOF_KEY, b"")
    for data in (sink.getvalue(), PayloadReader(BytesIO(sealed), WYCHEPROOF_KEY, b"").read()):
        assert (size, sha512) == (len(data), hashlib.sha512(data).hexdigest())


@pytest.mark.parametrize("size", SIZES)
def test_sizes_follow_from_each_other(size: int) -> None:
    """Plaintext and ciphertext size determine each other without reading anything."""
    assert len(seal(plain(size))[0]) == ciphertext_size(size)
    assert plaintext_size(ciphertext_size(size)) == size


@pytest.mark.parametrize("size", [0, 55, 56, 71, 56 + 16400, 56 + 16400 + 15])
def test_sizes_that_no_payload_has_are_refused(size: int) -> None:
    """A length without room for a short last chunk shows a cut."""
    with pytest.raises(PayloadTruncatedError):
        plaintext_size(size)


def test_sources_may_give_less_than_asked_for() -> None:
    """A pipe's short reads change neither ciphertext length nor plaintext."""
    data = plain(3 * CHUNK + 1)
    sink, back = BytesIO(), BytesIO()
    seal_stream(Trickle(data), sink, DEK, CONTEXT)
    open_stream(Trickle(sink.getvalue()), back, DEK, CONTEXT)
    assert data == back.getvalue()


def test_equal_plaintexts_seal_to_different_bytes() -> None:
    """Each payload has a salt of its own, and each data key is new."""
    assert seal(b"same")[0] != seal(b"same")[0]
    assert generate_dek() != generate_dek()


def test_progress_counts_plaintext() -> None:
    """Progress rises to the plaintext's size when sealing, and never passes it when opening."""
    data = plain(3 * BLOCK + 1)
    sealing: list[int] = []
    opening: list[int] = []
    sink = BytesIO()
    seal_stream(BytesIO(data), sink, DEK, CONTEXT, sealing.append)
    open_stream(BytesIO(sink.getvalue()), BytesIO(), DEK, CONTEXT, progress=opening.append)
    assert sealing == sorted(sealing)
    assert sealing[-1] == len(data)
    assert opening == sorted(opening)
    assert opening[-1] <= len(data)


@pytest.mark.parametrize(("dek", "context"), [(b"x" * 32, CONTEXT), (DEK, b"other"), (DEK, b"")])
def test_another_key_or_context_opens_nothing(dek: bytes, context: bytes) -> None:
    """Key and context are committed to: not a byte of plaintext comes out under another one."""
    sealed, _ = seal(plain(2 * BLOCK))
    sink = BytesIO()
    with pytest.raises(PayloadDamagedError):
        open_stream(BytesIO(sealed), sink, dek, context)
    with pytest.raises(PayloadDamagedError):
        PayloadReader(BytesIO(sealed), dek, context)
    assert sink.getvalue() == b""


def test_damage_releases_only_what_stands_before_it() -> None:
    """Opening a damaged payload writes an authentic prefix at most."""
    data = plain(3 * BLOCK)
    sealed = bytearray(seal(data)[0])
    sealed[2 * BLOCK] ^= 1
    sink = BytesIO()
    with pytest.raises(PayloadDamagedError):
        open_stream(BytesIO(bytes(sealed)), sink, DEK, CONTEXT)
    assert data.startswith(sink.getvalue())
    assert len(sink.getvalue()) < 2 * BLOCK


def test_another_genuine_payload_is_not_the_announced_one() -> None:
    """Digest and size are compared before the last bytes are released."""
    sealed, digest = seal(b"genuine")
    cases: list[tuple[str | None, int | None]] = [
        ("0" * 64, None),
        (None, digest.ciphertext_size - 1),
        (None, digest.ciphertext_size + 1),
    ]
    for sha256, size in cases:
        sink = BytesIO()
        with pytest.raises(DigestMismatchError):
            open_stream(BytesIO(sealed), sink, DEK, CONTEXT, expected_sha256=sha256, expected_size=size)
        assert sink.getvalue() == b""


def test_data_keys_of_another_length_are_refused() -> None:
    """Sealing, opening and random access want 32 bytes."""
    for action in (
        lambda: seal(b"", b"short"),
        lambda: open_stream(BytesIO(), BytesIO(), b"short", CONTEXT),
        lambda: PayloadReader(BytesIO(), b"short", CONTEXT),
    ):
        with pytest.raises(KeyFormatError):
            action()


def test_errors_of_source_and_sink_come_through() -> None:
    """A full disk or a broken pipe is reported as itself."""

    class Full(BytesIO):
        def write(self, data: object, /) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        seal_stream(BytesIO(plain(3 * BLOCK)), Full(), DEK, CONTEXT)


def test_random_access_equals_slices() -> None:
    """Any read from any position gives the slice of the plaintext."""
    data = plain(5 * CHUNK + 99)
    reader = PayloadReader(BytesIO(b"before" + seal(data)[0]), DEK, CONTEXT, offset=6)
    random_source = random.Random(7)
    for _ in range(200):
        at, count = random_source.randrange(len(data) + 50), random_source.randrange(3 * CHUNK)
        assert at == reader.seek(at)
        assert data[at : at + count] == reader.read(count)
        assert reader.tell() == max(at, min(at + count, len(data)))


def test_seeking_works_as_in_files() -> None:
    """Seeks are relative to the start, the position or the end."""
    reader = PayloadReader(BytesIO(seal(b"0123456789")[0]), DEK, CONTEXT)
    assert (reader.seek(-3, 2), reader.read()) == (7, b"789")
    assert (reader.seek(2), reader.seek(3, 1), reader.read(2)) == (2, 5, b"56")
    assert (reader.seek(-9, 1), reader.read(1)) == (0, b"0")
    assert (reader.seekable(), reader.readable()) == (True, True)
    with pytest.raises(ValueError, match="seek from 9"):
        reader.seek(0, 9)


def test_a_file_that_shrinks_while_open_is_noticed() -> None:
    """A reader never returns fewer bytes than the proven length without an error."""
    source = BytesIO(seal(plain(3 * CHUNK))[0])
    reader = PayloadReader(source, DEK, CONTEXT)
    source.truncate(CHUNK)
    with pytest.raises(PayloadTruncatedError):
        reader.read()
