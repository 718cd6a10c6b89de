# SPDX-License-Identifier: Apache-2.0
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.evidence.canonical import JSON, MAX_DEPTH, canonical_bytes, parse_canonical, sha256_hex
from cloister.evidence.errors import FormatError

KEYS = st.text(st.characters(max_codepoint=127))
SCALARS = st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_bytes_equal_those_of_rfc8785(value: JSON) -> None:
    """For every allowed value the bytes are those of an independent RFC 8785 encoder."""
    assert rfc8785.dumps(value) == canonical_bytes(value)


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_parsing_inverts_encoding(value: JSON) -> None:
    """Canonical bytes parse to the value that they were made from."""
    assert value == parse_canonical(canonical_bytes(value))


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=40))
def test_only_canonical_bytes_parse(data: bytes) -> None:
    """Whatever parses encodes to the same bytes again."""
    try:
        value = parse_canonical(data)
    except FormatError:
        return
    assert data == canonical_bytes(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b" 1",
        b"1\n",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a": 1}',
        b"1.0",
        b"1e3",
        b"-0",
        b"01",
        b"NaN",
        b"Infinity",
        b"9007199254740992",
        b'"\\u0041"',
        b'"\\/"',
        b'"\\ud800"',
        b'"\xff"',
        b'"\x01"',
        '{"\u00e4":1}'.encode(),
        b"\xef\xbb\xbf1",
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b"[" * 100_000,
        b"9" * 10_000,
    ],
)
def test_other_spellings_are_refused(data: bytes) -> None:
    """Bytes that are not JSON, not of the allowed types, or not in canonical form are refused."""
    with pytest.raises(FormatError):
        parse_canonical(data)


@pytest.mark.parametrize("value", [1.0, 2**53, -(2**53), b"x", {1: 2}, {"\u00e4": 1}, "\ud800", {1, 2}])
def test_values_without_a_canonical_form_are_refused(value: JSON) -> None:
    """Floats, large integers, bytes, other keys and lone surrogates cannot be encoded."""
    with pytest.raises(FormatError):
        canonical_bytes(value)


def test_messages_never_quote_the_document() -> None:
    """A parse error says what is wrong without repeating what was read."""
    with pytest.raises(FormatError) as caught:
        parse_canonical(b'{"patient":"Ada"')
    assert "Ada" not in str(caught.value)


def test_deep_values_are_refused_before_the_stack_ends() -> None:
    """A value nested deeper than the limit is refused, also when it contains itself."""
    value: list[JSON] = []
    value.append(value)
    with pytest.raises(FormatError):
        canonical_bytes(value)


def test_sha256_is_lower_case_hexadecimal() -> None:
    """The digest helper gives the usual text form."""
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
