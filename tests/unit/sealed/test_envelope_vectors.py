# SPDX-License-Identifier: Apache-2.0
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from cloister.sealed.bundle import file_list, read_bundle
from cloister.sealed.container import find_dek, open_container, read_header
from cloister.sealed.errors import SealedError
from cloister.sealed.keys import Identity, Recipient
from cloister.sealed.payload import PayloadReader

FOLDER = Path(__file__).parents[2] / "vectors" / "envelope"


@dataclass(frozen=True)
class Vector:
    name: str
    fields: dict[str, str]
    body: bytes


def load(path: Path) -> Vector:
    head, _, body = path.read_bytes().partition(b"\n\n")
    return Vector(path.stem, dict(line.split(": ", 1) for line in head.decode().splitlines()), body)


VECTORS = [load(path) for path in sorted(FOLDER.glob("*.vector"))]


def vectors(*kinds: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    found = [vector for vector in VECTORS if vector.fields["kind"] in kinds]
    return pytest.mark.parametrize("vector", found, ids=[vector.name for vector in found])


def result(action: Callable[[], object]) -> str:
    try:
        action()
    except SealedError as error:
        return error.reason
    return "ok"


def assert_plaintext(vector: Vector, plain: bytes) -> None:
    assert vector.fields["plaintext-size"] == str(len(plain))
    assert vector.fields["plaintext-sha256"] == hashlib.sha256(plain).hexdigest()


@vectors("container")
def test_open_gives_the_expected_result(vector: Vector, tmp_path: Path) -> None:
    """Opening a container yields its plaintext, or the one reason that the vector names."""
    path = tmp_path / "file.sealed"
    path.write_bytes(vector.body)
    sink = BytesIO()
    identity = Identity.parse(vector.fields["identity"])
    assert vector.fields["expect"] == result(lambda: open_container(path, identity, sink))
    if vector.fields["expect"] == "ok":
        assert_plaintext(vector, sink.getvalue())


@vectors("container")
def test_inspect_gives_the_expected_result(vector: Vector, tmp_path: Path) -> None:
    """Reading the header without a key accepts and refuses as the vector says."""
    path = tmp_path / "file.sealed"
    path.write_bytes(vector.body)
    assert vector.fields["inspect"] == result(lambda: read_header(path))


@vectors("container")
def test_random_access_gives_the_expected_result(vector: Vector, tmp_path: Path) -> None:
    """The random-access reader agrees with the streaming one on every container."""
    path = tmp_path / "file.sealed"
    path.write_bytes(vector.body)
    pieces: list[bytes] = []

    def read() -> None:
        header = read_header(path)
        dek = find_dek(header, Identity.parse(vector.fields["identity"]))
        with path.open("rb") as file:
            reader = PayloadReader(file, dek, header.context, offset=header.payload_offset, size=header.payload_size)
            while piece := reader.read(1000):
                pieces.append(piece)

    assert vector.fields["random-access"] == result(read)
    if vector.fields["random-access"] == "ok":
        assert_plaintext(vector, b"".join(pieces))


@vectors("identity", "recipient")
def test_key_strings_give_the_expected_result(vector: Vector) -> None:
    """A key string parses to the key with the given id and back to itself, or is refused."""
    text = vector.body.decode()
    parse: Callable[[str], Identity | Recipient] = (
        Identity.parse if vector.fields["kind"] == "identity" else Recipient.parse
    )
    assert vector.fields["expect"] == result(lambda: parse(text))
    if vector.fields["expect"] == "ok":
        key = parse(text)
        recipient = key.recipient if isinstance(key, Identity) else key
        assert (text, vector.fields["key-id"]) == (str(key), recipient.key_id)


@vectors("bundle")
def test_bundles_give_the_expected_result(vector: Vector, tmp_path: Path) -> None:
    """A bundle unpacks completely, or is refused and leaves nothing behind."""
    assert vector.fields["expect"] == result(lambda: read_bundle(BytesIO(vector.body), tmp_path))
    assert (vector.name == "bundle-good") == bool(file_list(tmp_path))
    assert (vector.name == "bundle-good") == any(tmp_path.iterdir())


def test_the_vectors_cover_every_reason() -> None:
    """Each error class that bytes alone can cause has a vector."""
    reasons = {vector.fields["expect"] for vector in VECTORS}
    assert reasons == {
        "ok",
        "BAD_KEY",
        "WRONG_RECIPIENT",
        "PAYLOAD_TRUNCATED",
        "PAYLOAD_DAMAGED",
        "NOT_SEALED",
        "UNSUPPORTED_VERSION",
        "BAD_HEADER",
        "CONTAINER_LIMIT",
        "CONTAINER_TRUNCATED",
        "TRAILING_DATA",
        "BAD_BUNDLE",
        "UNSAFE_NAME",
    }
