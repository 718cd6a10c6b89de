# SPDX-License-Identifier: Apache-2.0
"""The home directory of a person (or the key directory of any enrolled machine): keys, pins and what was seen.

    signing.key    Ed25519: signs manifests, authorisations, requests and approvals
    recipient.key  AGE-SECRET-KEY-PQ-1…: opens what is released to this person
    tls.key        P-256; tls.crt is its certificate
    request.json   public halves, for the root custodian
    site.json      {"site", "endpoint", "root_public", "ca_pem", "id", "kind"}: the pins
    state.json     {"roster_version", "checkpoint", "policies", "restorations"}: the newest ones seen; never goes back
    set-aside-N.checkpoint   a head over N entries that gave way to a restored log: evidence of what was lost
    spool/         sealed files whose upload is not finished
    cache/         sealed models of unfinished pulls

The directory has mode 0700 and every file 0600.  Whoever copies it can act as this person.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cloister.enrolment import EnrolmentRequest, Welcome
from cloister.errors import HomeError, UsageError
from cloister.evidence.errors import FormatError
from cloister.evidence.signatures import SigningKey, b64, unb64
from cloister.files import create_private, private_directory, replace_private

ENVIRONMENT = "CLOISTER_HOME"
KEY_FILES = ("signing.key", "recipient.key", "tls.key", "request.json")


@dataclass(frozen=True)
class SitePins:
    """What was pinned at enrolment."""

    site: str
    endpoint: str
    root_public: bytes
    """Raw Ed25519 public key."""
    ca_pem: str
    id: str
    kind: str


@dataclass(frozen=True)
class SiteState:
    """The newest roster and log head that this home has seen."""

    roster_version: int = 0
    checkpoint: str = ""
    """Signed note; empty before the first."""
    policies: Mapping[str, int] = field(default_factory=dict)
    """Newest version seen of each release policy, by its id."""
    restorations: int = 0
    """How many restored heads of the log were accepted."""


def default_directory() -> Path:
    """$CLOISTER_HOME, or ~/.cloister."""
    named = os.environ.get(ENVIRONMENT)
    return Path(named) if named else Path.home() / ".cloister"


@dataclass(frozen=True)
class Home:
    """Reads and writes a home directory."""

    directory: Path

    @classmethod
    def at(cls, directory: str | os.PathLike[str] | None = None) -> Home:
        """The named home, or the default one."""
        return cls(default_directory() if directory is None else Path(directory))

    @property
    def spool(self) -> Path:
        return private_directory(self.directory / "spool")

    @property
    def cache(self) -> Path:
        return private_directory(self.directory / "cache")

    def read(self, name: str) -> bytes:
        """Raises HomeError where the file is missing, or open to others."""
        path = self.directory / name
        try:
            mode = path.stat().st_mode
            if name.endswith(".key") and mode & 0o077:
                raise HomeError(f"{path} can be read by others; run: chmod 600 {path}")
            return path.read_bytes()
        except FileNotFoundError:
            step = "cloister keygen" if name in KEY_FILES else "cloister enroll WELCOME.json"
            raise HomeError(f"{path} is missing; run: {step}") from None
        except PermissionError:
            raise HomeError(f"{path} cannot be read by this user; use your own home directory") from None

    def signing_key(self) -> SigningKey:
        return SigningKey.parse(self.read("signing.key").decode("ascii"))

    def recipient_secret(self) -> str:
        """The AGE-SECRET-KEY-PQ-1… string."""
        return self.read("recipient.key").decode("ascii").strip()

    def pins(self) -> SitePins:
        """Raises HomeError before enrolment."""
        try:
            values = json.loads(self.read("site.json"))
            return SitePins(
                site=str(values["site"]),
                endpoint=str(values["endpoint"]),
                root_public=unb64(values["root_public"], "root_public"),
                ca_pem=str(values["ca_pem"]),
                id=str(values["id"]),
                kind=str(values["kind"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError, FormatError):
            raise HomeError(f"{self.directory / 'site.json'} is damaged; run: cloister enroll WELCOME.json") from None

    def state(self) -> SiteState:
        """What was seen last; nothing before the first call."""
        path = self.directory / "state.json"
        if not path.exists():
            return SiteState()
        try:
            values = json.loads(path.read_bytes())
            policies = {str(name): int(version) for name, version in values.get("policies", {}).items()}
            restorations = int(values.get("restorations", 0))
            return SiteState(int(values["roster_version"]), str(values["checkpoint"]), policies, restorations)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise HomeError(
                f"{path} is damaged: it protects against rollback; restore it, or ask an auditor before removing it"
            ) from None

    @contextmanager
    def locked_state(self) -> Iterator[SiteState]:
        """The state, with other processes of this home kept out until the end.

        Without the lock two commands could each judge by an old head and the older one be stored last.
        """
        descriptor = os.open(self.directory / "state.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self.state()
        finally:
            os.close(descriptor)

    def save_state(self, state: SiteState) -> None:
        """Call inside `locked_state`."""
        values = {**state.__dict__, "policies": dict(state.policies)}
        replace_private(self.directory / "state.json", json.dumps(values, sort_keys=True).encode("utf-8"))


def keygen(home: Home, random: Callable[[int], bytes] = os.urandom, *, kind: str = "person") -> EnrolmentRequest:
    """Make a person's keys and the request that goes to the root custodian.

    Raises HomeError where keys exist: they are never overwritten.
    """
    from cloister.sealed.keys import Identity
    from cloister.tls import generate_tls_key, make_csr, tls_key_pem

    private_directory(home.directory)
    for name in KEY_FILES:
        if (home.directory / name).exists():
            raise HomeError(f"{home.directory / name} exists already; choose another --home")
    signing, identity, tls = SigningKey.generate(random), Identity.generate(random), generate_tls_key()
    request = EnrolmentRequest(kind, make_csr(tls), b64(signing.public), str(identity.recipient))
    create_private(home.directory / "signing.key", (signing.export() + "\n").encode("ascii"))
    create_private(home.directory / "recipient.key", f"{identity}\n".encode("ascii"))
    create_private(home.directory / "tls.key", tls_key_pem(tls))
    create_private(home.directory / "request.json", request.to_json().encode("utf-8"))
    return request


def install_welcome(home: Home, welcome: Welcome) -> SitePins:
    """Store certificate and pins.

    Raises UsageError for a certificate of another key, HomeError where this home is pinned to another root.
    """
    from cryptography import x509

    from cloister.tls import load_tls_key, spki_sha256

    try:
        certificate = x509.load_pem_x509_certificate(welcome.certificate_pem.encode("utf-8"))
        root = unb64(welcome.root_public, "root_public")
    except (ValueError, FormatError):
        raise UsageError("welcome file: its certificate or root key is damaged; ask for it again") from None
    if spki_sha256(certificate) != spki_sha256(load_tls_key(home.read("tls.key"))):
        raise UsageError(
            f"welcome file: its certificate is not for the key in {home.directory}; "
            "name the home whose request it answers"
        )
    pins = SitePins(welcome.site, welcome.endpoint, root, welcome.ca_pem, welcome.id, welcome.kind)
    if (home.directory / "site.json").exists() and (old := home.pins()).root_public != root:
        raise HomeError(f"this home belongs to site {old.site} with another root; use another --home")
    replace_private(home.directory / "tls.crt", welcome.certificate_pem.encode("utf-8"))
    _save_pins(home, pins)
    return pins


def set_endpoint(home: Home, endpoint: str) -> None:
    """Store another HOST:PORT; the pins stay."""
    _save_pins(home, replace(home.pins(), endpoint=endpoint))


def _save_pins(home: Home, pins: SitePins) -> None:
    values = {**pins.__dict__, "root_public": b64(pins.root_public)}
    replace_private(home.directory / "site.json", (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())
