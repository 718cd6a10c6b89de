# SPDX-License-Identifier: Apache-2.0
"""Canonical bytes of the JSON values that are hashed and signed (RFC 8785, restricted).

Allowed: str, int with |x| < 2**53, bool, None, list (or tuple), dict with ASCII keys.
Floats are refused because serialisers disagree on them: write a decimal string.
For this set RFC 8785 equals sorted keys, no white space, UTF-8, and the shortest escapes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Never, TypeAlias

from cloister.evidence.errors import FormatError

JSON: TypeAlias = "str | int | bool | Sequence[JSON] | Mapping[str, JSON] | None"

MAX_DEPTH = 32
"""Containers inside one another: deeper values are refused, so that nobody can overflow a reader's stack."""

_INT_LIMIT = 2**53
_encode = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_bytes(value: JSON) -> bytes:
    """The one byte string that stands for `value`; raises FormatError where there is none."""
    _check(value, 0)
    try:
        return _encode(value).encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError("canonical JSON: a string holds a lone surrogate; pass valid Unicode") from None


def parse_canonical(data: bytes) -> JSON:
    """The value of canonical bytes.

    Raises FormatError for anything that `canonical_bytes` would not have produced: white space, another
    order of keys, duplicate keys, floats, other escapes.
    So two different byte strings never parse to the same value, and a signature covers exactly one meaning.
    """
    try:
        text = data.decode("utf-8")
        value: JSON = json.loads(text, object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float)
    except FormatError:
        raise
    except UnicodeDecodeError:
        raise FormatError("canonical JSON: not valid UTF-8") from None
    except RecursionError:
        raise FormatError(f"canonical JSON: nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:
        # The parser's own message may quote the document, so it is not passed on.
        raise FormatError("canonical JSON: not valid JSON") from None
    if canonical_bytes(value) != data:
        raise FormatError("canonical JSON: valid JSON, but not in canonical form; encode it with canonical_bytes")
    return value


def _check(value: object, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if isinstance(value, int) and kind is int:
        if not -_INT_LIMIT < value < _INT_LIMIT:
            raise FormatError("canonical JSON: an integer is not below 2**53; write it as a decimal string")
        return
    if depth >= MAX_DEPTH:
        raise FormatError(f"canonical JSON: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                raise FormatError("canonical JSON: a key is not an ASCII string; rename it")
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    else:
        hint = "; write a decimal string" if kind is float else ""
        raise FormatError(f"canonical JSON: values of type {kind.__name__} have no canonical form{hint}")


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise FormatError("canonical JSON: an object names a key twice")
    return result


def _no_float(_: str) -> Never:
    raise FormatError("canonical JSON: a number is not an integer; write a decimal string")
