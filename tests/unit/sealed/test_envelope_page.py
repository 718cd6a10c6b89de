# SPDX-License-Identifier: Apache-2.0
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cloister.sealed import chunks, container, keys
from cloister.sealed.bundle import MODEL_FILES
from cloister.sealed.errors import SealedError

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "protos" / "ENVELOPE.md").read_text()
VECTORS = ROOT / "tests" / "vectors"


def leaves(kind: type[SealedError]) -> Iterator[type[SealedError]]:
    below = kind.__subclasses__()
    yield from [leaf for inner in below for leaf in leaves(inner)] if below else [kind]


def load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_envelope", VECTORS / "make_envelope.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_lists_every_error() -> None:
    """Each error class stands with its reason in the table of reasons, and nothing else does."""
    listed = set(re.findall(r"^\| `([A-Z_]+)` \| (\w+Error) \|", PAGE, re.MULTILINE))
    assert listed == {(error.reason, error.__name__) for error in leaves(SealedError)}


def test_the_page_states_the_constants_of_the_code() -> None:
    """Sizes and limits on the page are those that the code uses."""
    assert (chunks.HEADER_SIZE, chunks.SEALED_CHUNK_SIZE, chunks.MAX_CHUNKS) == (56, 16400, 2**38)
    assert "Chunk k starts at `56 + k * 16400`" in PAGE
    assert (container.MAX_MANIFEST_SIZE, container.MAX_TRAILER_SIZE, container.MAX_WRAPS) == (65536, 65536, 1024)
    assert (keys.PUBLIC_KEY_SIZE, keys.WRAP_SIZE) == (1216, 1168)
    assert len(keys.WRAP_LABEL + bytes(keys.CONTEXT_SIZE)) == 24 + 32
    assert set(MODEL_FILES) == set(
        re.findall(r"`([^`]+)`", PAGE.partition("**Model files**")[2].partition(".\n")[0].partition(" Everything")[0])
    )


def test_the_vectors_are_made_again_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator and the committed wraps give exactly the committed files."""
    maker = load_maker()
    (tmp_path / "wraps.txt").write_bytes((VECTORS / "envelope" / "wraps.txt").read_bytes())
    monkeypatch.setattr(maker, "FOLDER", tmp_path)
    monkeypatch.setattr(maker.WRAPS, "path", tmp_path / "wraps.txt")
    maker.main()
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in (VECTORS / "envelope").iterdir()}
