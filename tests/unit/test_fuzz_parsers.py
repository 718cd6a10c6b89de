# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in bytes that come from elsewhere, a reader takes it or refuses it with an error that it states."""

import contextlib
import json
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byte_strategies import Damage, damaged, damages
from fuzzing import examples
from json_strategies import Edit, edited, edits
from reader import Reader
from readers import readers

READERS = readers()


@pytest.fixture(autouse=True, scope="module")
def _one_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = tempfile.tempdir
    tempfile.tempdir = str(tmp_path_factory.mktemp("read"))
    yield
    tempfile.tempdir = before


@pytest.mark.parametrize("name", READERS)
def test_a_reader_reads_what_is_good(name: str) -> None:
    """The document from which the damage starts is one that the reader gets far with."""
    reader = READERS[name]
    with contextlib.suppress(*reader.errors):
        reader.read(reader.good)


@pytest.mark.parametrize("name", READERS)
def test_no_bytes_bring_down_a_reader(name: str) -> None:
    """Damaged documents, documents of other values, and any bytes end in a value or in a stated error."""
    reader = READERS[name]

    @examples(25)
    @given(damages())
    def harmed(several: list[Damage]) -> None:
        hold(reader, damaged(reader.good, several))

    @examples(20)
    @given(edits())
    def changed(several: list[Edit]) -> None:
        document = json.loads(reader.good)
        text = json.dumps(edited(document, several), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        hold(reader, text.encode("utf-8", "surrogatepass"))

    @examples(10)
    @given(st.binary(max_size=200))
    def anything(data: bytes) -> None:
        hold(reader, data)

    harmed()
    anything()
    if reader.good.startswith(b"{"):
        changed()
    hold(reader, b"")
    hold(reader, b"[" * 100_000)
    hold(reader, b'{"a":' * 20_000)
    hold(reader, b"9" * 10_000)


def hold(reader: Reader, data: bytes) -> None:
    with contextlib.suppress(*reader.errors):
        reader.read(data)
