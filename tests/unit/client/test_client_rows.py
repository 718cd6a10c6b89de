# SPDX-License-Identifier: Apache-2.0
"""Rows are checked before anything is sealed, and errors never quote them."""

import hashlib

import pytest

from cloister.errors import RowsError, UsageError
from cloister.formats.stream import check_rows
from cloister.rows import MAX_LINE_BYTES, row_of


def test_good_file(tmp_path):
    """Digest, size and number of rows are those of the file; blank lines are no rows."""
    data = b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}'
    (tmp_path / "f").write_bytes(data)
    found = check_rows(tmp_path / "f")
    assert (hashlib.sha256(data).hexdigest(), len(data), 2) == (found.sha256, found.size, found.rows)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"SECRET", "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b"[1]", "not an object"),
        (b'{"a": "' + b"x" * MAX_LINE_BYTES + b'"}', "too large"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": 1}', {"a": 1}),
    ],
)
def test_reasons(line, reason):
    """Each kind of bad line has its fixed words."""
    assert reason == row_of(line)


def test_line_numbers_and_no_content(tmp_path):
    """The error names line numbers, also after a blank and an overlong line, and never what a line says."""
    lines = [b'{"a": 1}', b"", b"CANARY", b"x" * (2 * MAX_LINE_BYTES), b'{"a": 2}', b'["CANARY"]']
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(RowsError) as caught:
        check_rows(tmp_path / "rows.jsonl")
    expected = "rows.jsonl: 3 of 5 rows are bad: line 3 (not JSON), 4 (too large), 6 (not an object); mend them"
    assert expected == str(caught.value)


def test_only_the_first_bad_lines_are_named(tmp_path):
    """A file of nothing but bad lines gives one short line."""
    (tmp_path / "f").write_bytes(b"x\n" * 1000)
    with pytest.raises(RowsError, match=r"1000 of 1000 rows are bad: .* and 990 more"):
        check_rows(tmp_path / "f")


def test_empty_and_missing(tmp_path):
    """A file without rows, or none at all, is refused with what to do."""
    (tmp_path / "f").write_bytes(b"\n\n")
    with pytest.raises(RowsError, match="no rows"):
        check_rows(tmp_path / "f")
    with pytest.raises(UsageError, match="name a JSONL file"):
        check_rows(tmp_path / "missing")
