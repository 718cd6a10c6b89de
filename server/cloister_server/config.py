# SPDX-License-Identifier: Apache-2.0
"""The configuration file (TOML): docs/reference/configuration.md explains each field."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from cloister.evidence.errors import FormatError
from cloister.evidence.fields import IDENTIFIER
from cloister.evidence.signatures import unb64
from cloister_server.errors import ConfigError

_SECTIONS = ("site", "listen", "tls", "database", "store", "log", "queue")


@dataclass(frozen=True)
class Config:
    """Everything that a site is started with."""

    site: str
    root_public: bytes
    """Raw Ed25519 public key of the root."""
    roster_file: Path
    """A signed roster; taken at start where it is newer than the one in the database."""
    address: str
    port_file: Path | None
    """Where the port that was bound is written, for address "…:0"."""
    tls_certificate: Path
    tls_key: Path
    client_ca: Path
    issuing_key: Path | None
    """Key with which certificates are renewed; None where the control plane issues none."""
    issuing_certificate: Path | None
    certificate_days: int
    """Life of a renewed certificate."""
    database_url: str
    store_directory: Path
    reserve_bytes: int
    """Free space that uploads leave alone."""
    log_origin: str
    log_key_file: Path
    lease_seconds: int
    heartbeat_seconds: int
    """Between two heartbeats of a WatchJob stream."""
    sweep_seconds: float
    """Between two looks for leases that ran out."""

    def __post_init__(self) -> None:
        if not IDENTIFIER.fullmatch(self.site):
            raise ConfigError(f"[site] name: {self.site!r} is not an identifier (a-z, 0-9, '.', '_', '-')")
        if len(self.root_public) != 32:
            raise ConfigError("[site] root_public: expected an Ed25519 public key of 32 bytes in base64")
        if (self.issuing_key is None) != (self.issuing_certificate is None):
            raise ConfigError("[tls] issuing_key and issuing_certificate: give both, or neither")
        if not 1 <= self.certificate_days <= 366:
            raise ConfigError(f"[tls] certificate_days: {self.certificate_days} is not between 1 and 366")
        for name, value in (("lease_seconds", self.lease_seconds), ("heartbeat_seconds", self.heartbeat_seconds)):
            if not 1 <= value <= 3600:
                raise ConfigError(f"[queue] {name}: {value} is not between 1 and 3600")


def load_config(path: Path) -> Config:
    """Read the file; relative paths in it start at its folder.  Raises ConfigError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if unknown := sorted(set(document) - set(_SECTIONS)):
        raise ConfigError(f"{path}: unknown section [{unknown[0]}]")
    sections = {name: _Section(path, name, document.get(name, {})) for name in _SECTIONS}
    config = _config(sections)
    for section in sections.values():
        section.finish()
    return config


def _config(sections: dict[str, _Section]) -> Config:
    site, listen, tls = sections["site"], sections["listen"], sections["tls"]
    store, log, queue = sections["store"], sections["log"], sections["queue"]
    return Config(
        site=site.text("name"),
        root_public=site.base64("root_public"),
        roster_file=site.file("roster_file"),
        address=listen.text("address"),
        port_file=listen.file("port_file") if listen.has("port_file") else None,
        tls_certificate=tls.file("certificate"),
        tls_key=tls.file("key"),
        client_ca=tls.file("client_ca"),
        issuing_key=tls.file("issuing_key") if tls.has("issuing_key") else None,
        issuing_certificate=tls.file("issuing_certificate") if tls.has("issuing_certificate") else None,
        certificate_days=tls.integer("certificate_days", 90),
        database_url=sections["database"].text("url"),
        store_directory=store.file("directory"),
        reserve_bytes=store.integer("reserve_bytes", 1 << 30),
        log_origin=log.text("origin"),
        log_key_file=log.file("key_file"),
        lease_seconds=queue.integer("lease_seconds", 60),
        heartbeat_seconds=queue.integer("heartbeat_seconds", 10),
        sweep_seconds=queue.integer("sweep_seconds", 5),
    )


class _Section:
    """One table of the file, being read."""

    def __init__(self, path: Path, name: str, table: object) -> None:
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: [{name}] is not a section")
        self._path = path
        self._name = name
        self._left: dict[str, object] = dict(table)

    def has(self, field: str) -> bool:
        return field in self._left

    def text(self, field: str) -> str:
        value = self._left.pop(field, None)
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{self._path}: [{self._name}] {field} is missing, or not a text")
        return value

    def file(self, field: str) -> Path:
        return self._path.parent / self.text(field)

    def base64(self, field: str) -> bytes:
        try:
            return unb64(self.text(field), field)
        except FormatError as error:
            raise ConfigError(f"{self._path}: [{self._name}] {error}") from None

    def integer(self, field: str, default: int) -> int:
        value = self._left.pop(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigError(f"{self._path}: [{self._name}] {field} is not a whole number")
        return value

    def finish(self) -> None:
        if self._left:
            raise ConfigError(f"{self._path}: [{self._name}] does not know {min(self._left)!r}")
