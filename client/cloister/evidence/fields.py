# SPDX-License-Identifier: Apache-2.0
"""Strict reading of the canonical JSON documents of EVIDENCE.md.

Every document is an object with a fixed set of fields.  A missing field, an unknown one or one of the wrong
type is a FormatError that names the document and the field: a verifier that skipped what it does not know
would sign off on what it did not check.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from cloister.evidence.canonical import JSON, parse_canonical
from cloister.evidence.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

T = TypeVar("T")

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
LAST_SECOND = 253_402_300_799
"""The end of year 9999, in Unix seconds."""
DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,319})(\.[0-9]{1,340})?")


class Fields:
    """One JSON object being read; call `finish` when every field has been taken."""

    def __init__(self, document: str, value: JSON) -> None:
        if not isinstance(value, dict):
            raise FormatError(f"{document}: expected an object, got {type(value).__name__}")
        self._document = document
        self._left = dict(value)

    @classmethod
    def of_bytes(cls, document: str, data: bytes) -> Fields:
        """Open canonical bytes of any object."""
        return cls(document, parse_canonical(data))

    @classmethod
    def of_document(cls, kind: str, payload: bytes) -> Fields:
        """Open a whole document: canonical bytes with the right `type` and version 1."""
        fields = cls.of_bytes(kind, payload)
        if (found := fields.text("type")) != kind:
            raise FormatError(f"expected a {kind} document, got {found!r}")
        if (version := fields.integer("v")) != 1:
            raise FormatError(f"{kind}: version {version} is not known here; update this software")
        return fields

    def _take(self, name: str) -> JSON:
        if name not in self._left:
            raise FormatError(f"{self._document}: field {name!r} is missing")
        value: JSON = self._left.pop(name)
        return value

    def _wrong(self, name: str, wanted: str) -> FormatError:
        return FormatError(f"{self._document}: field {name!r} is not {wanted}")

    def text(self, name: str, choices: Collection[str] = ()) -> str:
        value = self._take(name)
        if not isinstance(value, str) or len(value) > 4096 or "\0" in value:
            raise self._wrong(name, "a string of at most 4096 characters, NUL not among them")
        if choices and value not in choices:
            raise self._wrong(name, f"one of {', '.join(sorted(choices))}")
        return value

    def matching(self, name: str, pattern: re.Pattern[str], wanted: str) -> str:
        value = self.text(name)
        if not pattern.fullmatch(value):
            raise self._wrong(name, wanted)
        return value

    def digest(self, name: str) -> str:
        return self.matching(name, HEX_DIGEST, "64 lower-case hex digits")

    def identifier(self, name: str) -> str:
        return self.matching(name, IDENTIFIER, "an identifier (a-z, 0-9, '.', '_', '-')")

    def decimal(self, name: str) -> str:
        return self.matching(name, DECIMAL, "a decimal number in a string")

    def integer(self, name: str, minimum: int = 0) -> int:
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self._wrong(name, f"an integer of at least {minimum}")
        return value

    def time(self, name: str) -> int:
        """Unix seconds, up to the end of year 9999: what is later can be written by no calendar."""
        value = self.integer(name)
        if value > LAST_SECOND:
            raise self._wrong(name, "a time before the year 10000")
        return value

    def boolean(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._take(name)
        if not isinstance(value, list) or len(value) > 1024:
            raise self._wrong(name, "a list of at most 1024 strings")
        found = [item for item in value if isinstance(item, str) and "\0" not in item]
        if len(found) != len(value):
            raise self._wrong(name, "a list of strings, NUL not in them")
        return tuple(found)

    def decimals(self, name: str) -> dict[str, str]:
        value = self._take(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object of decimal numbers in strings")
        found = {key: item for key, item in value.items() if isinstance(item, str) and DECIMAL.fullmatch(item)}
        if len(found) != len(value):
            raise self._wrong(name, "an object of decimal numbers in strings")
        return found

    def table(self, name: str) -> dict[str, JSON]:
        value = self._take(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return dict(value)

    def object(self, name: str) -> Fields:
        return Fields(f"{self._document}.{name}", self._take(name))

    def objects(self, name: str) -> list[Fields]:
        value = self._take(name)
        if not isinstance(value, list) or len(value) > 65536:
            raise self._wrong(name, "a list of objects")
        return [Fields(f"{self._document}.{name}[{n}]", item) for n, item in enumerate(value)]

    def names(self, known: Collection[str]) -> list[str]:
        """Names that are left; for an object whose fields are all optional.  Raises FormatError for others."""
        if unknown := sorted(set(self._left) - set(known)):
            raise self._wrong(unknown[0], f"known; expected {', '.join(sorted(known))}")
        return sorted(self._left)

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """`read(name)`, or None where the field is null; the field itself must be there."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return read(name)

    def unless_absent(self, name: str, read: Callable[[str], T]) -> T | None:
        """`read(name)`, or None where the field is left out: for fields that came after the first release."""
        return read(name) if name in self._left else None

    def mark(self, name: str) -> bool:
        """A flag that stands there only when it is true, so that one meaning has one form."""
        if name not in self._left:
            return False
        if not self.boolean(name):
            raise self._wrong(name, "true or left out")
        return True

    def finish(self) -> None:
        if self._left:
            unknown = ", ".join(sorted(self._left))
            raise FormatError(f"{self._document}: unknown field {unknown}; update this software")
