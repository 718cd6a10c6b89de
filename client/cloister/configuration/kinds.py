# SPDX-License-Identifier: Apache-2.0
"""What the value of a key may be.

A kind reads the value of the file and says in words what it takes.  A value that it refuses is a ValueError whose
text names the value and what would be right.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from cloister.evidence.errors import FormatError
from cloister.evidence.fields import IDENTIFIER
from cloister.evidence.signatures import unb64

CREDENTIAL = "credential:"
"""A path with this prefix lies in the folder that systemd made for the unit's credentials."""
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,2000}")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


@dataclass(frozen=True)
class Place:
    """Where relative paths and credentials lie."""

    folder: Path
    """Of the configuration file."""
    credentials: Path | None
    """$CREDENTIALS_DIRECTORY, where systemd gave the process one."""


class Kind(Protocol):
    """A type with its range."""

    @property
    def words(self) -> str:
        """For the reference page."""

    def read(self, value: object, place: Place) -> object:
        """What the program works with.  Raises ValueError."""


@dataclass(frozen=True)
class Text:
    """Any text but the empty one.  The value is not repeated in a refusal: it may carry a password."""

    words: str = "text"

    def read(self, value: object, place: Place) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError(f'expected a text in quotes, found {_type(value)}; write it as "…"')
        return value


@dataclass(frozen=True)
class Identifier:
    """A name as rosters have it."""

    words: str = "identifier"

    def read(self, value: object, place: Place) -> str:
        if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
            raise ValueError(f"{value!r} is not an identifier; use a-z, 0-9, '.', '_' and '-'")
        return value


@dataclass(frozen=True)
class PublicKey:
    """A raw Ed25519 public key."""

    words: str = "32 bytes in base64"

    def read(self, value: object, place: Place) -> bytes:
        try:
            key = unb64(str(value), "the key")
        except FormatError:
            raise ValueError(f"{value!r} is not base64; copy root_public from the welcome file") from None
        if len(key) != 32:
            raise ValueError(
                f"{len(key)} bytes are no Ed25519 public key of 32; copy root_public from the welcome file"
            )
        return key


@dataclass(frozen=True)
class Address:
    """Where to listen; port 0 takes a free one."""

    words: str = "HOST:PORT"

    def read(self, value: object, place: Place) -> str:
        found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
        if found is None or int(found[2]) > 65535:
            raise ValueError(f'{value!r} is not HOST:PORT; write for example "127.0.0.1:8443" or "[::]:8443"')
        return found[0]


@dataclass(frozen=True)
class Url:
    """Where to post.  The value is not repeated in a refusal: receivers put secrets into paths."""

    words: str = "https URL"

    def read(self, value: object, place: Place) -> str:
        parts = _split(value) if isinstance(value, str) and _PRINTABLE.fullmatch(value) else None
        if not isinstance(value, str) or parts is None or not parts.hostname:
            raise ValueError('it is not a URL; write for example "https://receiver.example/notices"')
        if parts.username is not None or parts.fragment:
            raise ValueError("the URL has a user name or a fragment; leave them out")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise ValueError("the URL is not https, and its host is not loopback; anybody on the way could read it")
        return value


@dataclass(frozen=True)
class Command:
    """A program and its arguments, started without a shell."""

    words: str = "list of texts"

    def read(self, value: object, place: Place) -> tuple[str, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
            raise ValueError('expected a list of texts; write for example ["/usr/local/lib/cloister/told", "--quiet"]')
        if any("\0" in part for part in value):
            raise ValueError("an argument has a NUL in it; leave it out")
        if not value[0].startswith("/"):
            raise ValueError(f"{value[0]!r} is not the absolute path of a program; nothing is looked up in PATH")
        return tuple(value)


@dataclass(frozen=True)
class File:
    """A path, relative to the configuration file's folder, or `credential:NAME`."""

    secret: bool = False
    """Whether the file holds a key: nobody but its owner and group may read it."""
    folder: bool = False
    made: bool = False
    """Whether the service makes it."""

    @property
    def words(self) -> str:
        return "folder" if self.folder else "file with a key" if self.secret else "file"

    def read(self, value: object, place: Place) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"{value!r} is not a path; write it in quotes")
        if not value.startswith(CREDENTIAL):
            return place.folder / value
        name = value.removeprefix(CREDENTIAL)
        if place.credentials is None:
            raise ValueError(f"{value!r} needs a credential, and this process has none; add LoadCredential={name}:…")
        if not name or "/" in name or name in (".", ".."):
            raise ValueError(f"{value!r} is not the name of a credential; write {CREDENTIAL}NAME, without '/'")
        return place.credentials / name


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    low: int
    high: int

    @property
    def words(self) -> str:
        return f"whole number, {self.low} to {self.high}"

    def read(self, value: object, place: Place) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{value!r} is not a whole number; write one without quotes")  # noqa: TRY004 - see Kind
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is not between {self.low} and {self.high}")
        return value


@dataclass(frozen=True)
class Seconds:
    """A time, in seconds, with or without a fraction."""

    low: float
    high: float

    @property
    def words(self) -> str:
        return f"seconds, {self.low:g} to {self.high:g}"

    def read(self, value: object, place: Place) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{value!r} is not a number of seconds; write one without quotes")  # noqa: TRY004 - see Kind
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is not between {self.low:g} and {self.high:g} seconds")
        return float(value)


def is_loopback(host: str) -> bool:
    """Whether a host of an address or URL, without brackets, is this machine by its name or number alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        return parts if parts.port != 0 else None
    except ValueError:  # a port that is no number, brackets that do not close
        return None


def _type(value: object) -> str:
    names = {str: "an empty text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "something else")
