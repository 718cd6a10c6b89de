# SPDX-License-Identifier: Apache-2.0
from io import BytesIO
from pathlib import Path

import pytest

from cloister.sealed.container import (
    ContainerHeader,
    Wrap,
    context_of,
    find_dek,
    open_container,
    read_header,
    rewrap,
    write_container,
)
from cloister.sealed.errors import (
    ContainerLimitError,
    DigestMismatchError,
    HeaderError,
    PayloadDamagedError,
    WrapFormatError,
    WrongRecipientError,
)
from cloister.sealed.keys import WRAP_SIZE, Identity
from cloister.sealed.keys import wrap as wrap_key
from cloister.sealed.payload import SealedDigest

ALICE, BOB, CAROL = (Identity(letter * 32) for letter in (b"a", b"b", b"c"))
MANIFEST = b'{"id":"1"}'
PLAIN = b"row\n" * 10_000


def statement(digest: SealedDigest) -> bytes:
    return f"{digest.ciphertext_sha256} {digest.ciphertext_size} {digest.plaintext_size}".encode()


def check_statement(header: ContainerHeader) -> SealedDigest:
    sha256, size, plain = header.trailer.decode().split()
    return SealedDigest(sha256, int(size), int(plain))


def write(path: Path, *identities: Identity) -> SealedDigest:
    recipients = [identity.recipient for identity in identities]
    return write_container(path, MANIFEST, BytesIO(PLAIN), recipients, statement)


def opened(path: Path, identity: Identity) -> bytes:
    sink = BytesIO()
    open_container(path, identity, sink, check=check_statement)
    return sink.getvalue()


def test_every_recipient_opens_the_container(tmp_path: Path) -> None:
    """Whoever it is sealed to gets the plaintext, and nobody else does."""
    path = tmp_path / "x.sealed"
    write(path, ALICE, BOB)
    assert [opened(path, ALICE), opened(path, BOB)] == [PLAIN, PLAIN]
    with pytest.raises(WrongRecipientError):
        opened(path, CAROL)


def test_the_header_shows_everything_but_the_payload(tmp_path: Path) -> None:
    """Manifest, wraps, trailer and the payload's place are read without a key."""
    path = tmp_path / "x.sealed"
    digest = write(path, ALICE, BOB)
    header = read_header(path)
    assert (MANIFEST, statement(digest)) == (header.manifest, header.trailer)
    assert [ALICE.recipient.key_id, BOB.recipient.key_id] == [w.recipient_key_id for w in header.wraps]
    assert (digest.ciphertext_size, context_of(MANIFEST)) == (header.payload_size, header.context)


def test_a_given_data_key_is_used(tmp_path: Path) -> None:
    """A caller who keeps grants elsewhere seals under a data key of its own."""
    path = tmp_path / "x.sealed"
    write_container(path, MANIFEST, BytesIO(PLAIN), [ALICE.recipient], statement, dek=b"d" * 32)
    assert find_dek(read_header(path), ALICE) == b"d" * 32


def test_plaintext_is_not_in_the_file(tmp_path: Path) -> None:
    """The file holds neither rows nor data key."""
    path = tmp_path / "x.sealed"
    write(path, ALICE)
    assert b"row\n" not in path.read_bytes()
    assert find_dek(read_header(path), ALICE) not in path.read_bytes()


def test_rewrapping_changes_the_recipients_only(tmp_path: Path) -> None:
    """A re-wrapped copy has the same manifest, payload and trailer, and opens for the new recipients alone."""
    old, new = tmp_path / "old.sealed", tmp_path / "new.sealed"
    write(old, ALICE)
    header = rewrap(old, ALICE, [BOB.recipient, CAROL.recipient], new)
    assert read_header(new) == header
    assert [opened(new, BOB), opened(new, CAROL)] == [PLAIN, PLAIN]
    with pytest.raises(WrongRecipientError):
        opened(new, ALICE)
    tail = old.read_bytes()[read_header(old).payload_offset :]
    assert tail == new.read_bytes()[header.payload_offset :]


def test_rewrapping_in_place_works(tmp_path: Path) -> None:
    """Input and output may be the same path."""
    path = tmp_path / "x.sealed"
    write(path, ALICE)
    rewrap(path, ALICE, [BOB.recipient], path)
    assert opened(path, BOB) == PLAIN


def test_rewrapping_refuses_a_foreign_data_key(tmp_path: Path) -> None:
    """A wrap that somebody planted with another data key is not passed on."""
    path = tmp_path / "x.sealed"
    write(path, ALICE)
    planted = wrap_key(b"x" * 32, ALICE.recipient, context_of(MANIFEST))
    genuine = read_header(path).wraps[0].wrap
    path.write_bytes(path.read_bytes().replace(genuine, planted))
    with pytest.raises(PayloadDamagedError):
        rewrap(path, ALICE, [BOB.recipient], tmp_path / "out.sealed")
    assert [path] == list(tmp_path.iterdir())


def test_the_check_runs_before_any_key_is_used(tmp_path: Path) -> None:
    """A refused signature stops the opening before unwrapping, even for a wrong identity."""
    path = tmp_path / "x.sealed"
    write(path, ALICE)

    def refuse(_: ContainerHeader) -> SealedDigest:
        raise HeaderError("refused")

    with pytest.raises(HeaderError):
        open_container(path, CAROL, BytesIO(), check=refuse)


def test_a_payload_that_was_not_signed_is_refused(tmp_path: Path) -> None:
    """The payload must be the one whose digest the trailer states."""
    path = tmp_path / "x.sealed"
    write_container(path, MANIFEST, BytesIO(PLAIN), [ALICE.recipient], lambda digest: b"0 50 50")
    with pytest.raises(DigestMismatchError):
        opened(path, ALICE)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """An error at any step keeps what was there and leaves no partial file."""
    path = tmp_path / "x.sealed"
    write(path, ALICE)
    before = path.read_bytes()

    def fail(_: SealedDigest) -> bytes:
        raise RuntimeError("signer is away")

    with pytest.raises(RuntimeError):
        write_container(path, MANIFEST, BytesIO(PLAIN), [ALICE.recipient], fail)
    with pytest.raises(ContainerLimitError):
        write_container(path, MANIFEST, BytesIO(PLAIN), [ALICE.recipient], lambda _: bytes(1 << 17))
    assert (before, [path]) == (path.read_bytes(), list(tmp_path.iterdir()))


def test_written_files_are_private(tmp_path: Path) -> None:
    """A new container is readable by its owner only."""
    path = tmp_path / "x.sealed"
    write(path, ALICE)
    assert path.stat().st_mode & 0o777 == 0o600


def test_unfit_arguments_are_refused(tmp_path: Path) -> None:
    """No recipient, a recipient twice, an empty or an oversized manifest make no container."""
    recipient = ALICE.recipient
    source = BytesIO(PLAIN)
    for manifest, recipients, error in (
        (MANIFEST, [], HeaderError),
        (MANIFEST, [recipient, recipient], HeaderError),
        (b"", [recipient], HeaderError),
        (bytes(65537), [recipient], ContainerLimitError),
    ):
        with pytest.raises(error):
            write_container(tmp_path / "x.sealed", manifest, source, recipients, statement)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("key_id", "size"), [("0" * 32, 1), ("0" * 31, WRAP_SIZE), ("G" * 32, WRAP_SIZE)])
def test_malformed_wraps_are_refused(key_id: str, size: int) -> None:
    """A wrap has a key id of 32 hexadecimal digits and its one length."""
    with pytest.raises(WrapFormatError):
        Wrap(key_id, bytes(size))
