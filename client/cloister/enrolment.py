# SPDX-License-Identifier: Apache-2.0
"""The two files by which a person, a host or the server joins a site.

The *request* goes to the root custodian and holds public keys only.  The *welcome* comes back and pins the root;
whoever installs it trusts the way on which it came, so it travels as carefully as a key would.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TypeVar

from cloister.errors import UsageError

KINDS = ("person", "host", "server")

T = TypeVar("T")


@dataclass(frozen=True)
class EnrolmentRequest:
    """Public keys that ask for a place on the roster."""

    kind: str
    """"person", "host" or "server"."""
    csr_pem: str
    signing_public: str = ""
    """Raw Ed25519 public key, base64; empty for a server."""
    recipient: str = ""
    """age1pq… key; empty for a server."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> EnrolmentRequest:
        """Raises UsageError."""
        request = _read(cls, text, "enrolment request")
        _check_kind(request.kind, "enrolment request")
        return request


@dataclass(frozen=True)
class Welcome:
    """What the custodian answers: the place, the root to pin, and a certificate."""

    site: str
    endpoint: str
    """HOST:PORT of the control plane."""
    root_public: str
    """Raw Ed25519 public key, base64."""
    ca_pem: str
    certificate_pem: str
    id: str
    kind: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Welcome:
        """Raises UsageError."""
        welcome = _read(cls, text, "welcome file")
        _check_kind(welcome.kind, "welcome file")
        return welcome


def _check_kind(kind: str, what: str) -> None:
    if kind not in KINDS:
        raise UsageError(f"{what}: kind {kind[:40]!r} is not one of {', '.join(KINDS)}")


def _read(cls: type[T], text: str | bytes, what: str) -> T:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"{what}: it is not JSON; was the whole file copied?") from None
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # both callers are dataclasses
    if not isinstance(values, dict) or set(values) != names or not all(isinstance(v, str) for v in values.values()):
        raise UsageError(f"{what}: expected the text fields {', '.join(sorted(names))}; was it made by cloister?")
    return cls(**values)
