# SPDX-License-Identifier: Apache-2.0
"""The control plane's configuration file (TOML).

Each field states its key, its range and its meaning; docs/reference/configuration.md is made from them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cloister.configuration.kinds import (
    Address,
    Command,
    File,
    Identifier,
    PublicKey,
    Seconds,
    Text,
    Url,
    Whole,
    is_loopback,
)
from cloister.configuration.settings import CREDENTIALS_VARIABLE, Problem, Setting, Source, read_settings
from cloister.errors import ConfigurationError
from cloister_server.database.engine import Limits
from cloister_server.errors import ConfigError

_FORBIDDEN_VARIABLE = "PGPASSWORD"
UNIT_CREDENTIALS = "/run/credentials/cloister-server.service"
"""Where a command outside the unit finds the unit's credentials, while that runs and its user may read them."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a site is started with."""

    site: Annotated[str, Setting("site.name", Identifier(), "the site's identifier, as in the roster")]
    root_public: Annotated[
        bytes, Setting("site.root_public", PublicKey(), "public key of the root; the only trust anchor")
    ]
    roster_file: Annotated[
        Path,
        Setting("site.roster_file", File(), "a signed roster, taken at start where it is newer than the database's"),
    ]
    address: Annotated[str, Setting("listen.address", Address(), "where gRPC is served; port 0 takes a free one")]
    port_file: Annotated[
        Path | None, Setting("listen.port_file", File(made=True), "where the bound port is written")
    ] = None
    stop_grace_seconds: Annotated[
        float, Setting("listen.stop_grace_seconds", Seconds(0, 600), "how long open calls may go on after SIGTERM")
    ] = 10.0
    tls_certificate: Annotated[
        Path, Setting("tls.certificate", File(), "certificate of the control plane (PEM); read again when it changes")
    ]
    tls_key: Annotated[
        Path, Setting("tls.key", File(secret=True), "its P-256 key (PEM, mode 0600); read again when it changes")
    ]
    client_ca: Annotated[
        Path, Setting("tls.client_ca", File(), "certificate authority of people and hosts (PEM); read again likewise")
    ]
    issuing_key: Annotated[
        Path | None,
        Setting(
            "tls.issuing_key",
            File(secret=True),
            "key of the authority with which certificates are renewed (PEM, mode 0600); without it the custodian does",
        ),
    ] = None
    issuing_certificate: Annotated[
        Path | None,
        Setting("tls.issuing_certificate", File(), "its certificate (PEM); given together with `issuing_key`"),
    ] = None
    certificate_days: Annotated[
        int, Setting("tls.certificate_days", Whole(1, 366), "life of a renewed certificate, in days")
    ] = 90
    database_url: Annotated[
        str,
        Setting(
            "database.url", Text("URL"), "SQLAlchemy URL: `sqlite:////path/cloister.db` or `postgresql+psycopg://…`"
        ),
    ]
    database_password_file: Annotated[
        Path | None,
        Setting("database.password_file", File(secret=True), "PostgreSQL password, instead of one in the URL"),
    ] = None
    pool_size: Annotated[
        int,
        Setting(
            "database.pool_size",
            Whole(2, 200),
            "calls that one process works on at once, each with a connection; it keeps two more for itself",
        ),
    ] = 16
    lock_timeout_seconds: Annotated[
        float, Setting("database.lock_timeout_seconds", Seconds(0.1, 600), "longest wait for a lock")
    ] = 10.0
    statement_timeout_seconds: Annotated[
        float,
        Setting("database.statement_timeout_seconds", Seconds(1, 3600), "longest statement on PostgreSQL"),
    ] = 30.0
    store_directory: Annotated[
        Path,
        Setting(
            "store.directory",
            File(folder=True, made=True),
            "folder of the blobs; one file system, shared by every control plane of the site",
        ),
    ]
    reserve_bytes: Annotated[
        int, Setting("store.reserve_bytes", Whole(0, 1 << 50), "free space that uploads leave alone, in bytes")
    ] = 1 << 30
    log_origin: Annotated[str, Setting("log.origin", Text(), "name of the audit log, as in the roster")]
    log_key_file: Annotated[
        Path, Setting("log.key_file", File(secret=True), "the log's signing key, a note key (mode 0600)")
    ]
    lease_seconds: Annotated[
        int, Setting("queue.lease_seconds", Whole(1, 3600), "a worker that says nothing for so long loses its job")
    ] = 60
    heartbeat_seconds: Annotated[
        int, Setting("queue.heartbeat_seconds", Whole(1, 3600), "between two heartbeats of a watched job")
    ] = 10
    sweep_seconds: Annotated[
        float,
        Setting(
            "queue.sweep_seconds",
            Seconds(0.05, 3600),
            "between two looks for expired leases, a newer roster, and health",
        ),
    ] = 5.0

    metrics_address: Annotated[
        str | None,
        Setting("metrics.address", Address(), "where Prometheus reads `/metrics`; loopback, or with `client_ca` any"),
    ] = None
    metrics_client_ca: Annotated[
        Path | None,
        Setting("metrics.client_ca", File(), "serve metrics by TLS, to clients of this authority alone (PEM)"),
    ] = None

    notices_command: Annotated[
        tuple[str, ...] | None,
        Setting(
            "notices.command",
            Command(),
            "program and arguments, started for each job that ended; the notice is JSON on its standard input",
        ),
    ] = None
    notices_url: Annotated[
        str | None, Setting("notices.url", Url(), "where the notice is posted; `http` for a loopback host alone")
    ] = None
    notices_ca_file: Annotated[
        Path | None,
        Setting("notices.ca_file", File(), "authority of the URL's host (PEM), instead of those of the system"),
    ] = None
    notices_secret_file: Annotated[
        Path | None,
        Setting(
            "notices.secret_file",
            File(secret=True),
            "key that signs what is posted: `whsec_` and 24 to 64 bytes in base64 (mode 0600)",
        ),
    ] = None
    notices_timeout_seconds: Annotated[
        float, Setting("notices.timeout_seconds", Seconds(0.1, 300), "how long the command or the receiver may take")
    ] = 10.0
    notices_give_up_seconds: Annotated[
        float,
        Setting("notices.give_up_seconds", Seconds(60, 2592000), "how long after a job's end delivery is tried again"),
    ] = 86400.0

    @property
    def database_limits(self) -> Limits:
        """What one process may ask of the database."""
        return Limits(self.pool_size, self.lock_timeout_seconds, self.statement_timeout_seconds)

    def database_password(self) -> str | None:
        """Out of its file.  Raises ConfigError."""
        if self.database_password_file is None:
            return None
        try:
            return self.database_password_file.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"[database] password_file: {self.database_password_file} cannot be read") from error


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """Read the file; relative paths in it start at its folder.  Raises ConfigError with every problem."""
    return read_config(path, environment)[0]


def read_config(path: Path, environment: Mapping[str, str] = os.environ) -> tuple[Config, Source]:
    """The same, with the lines of the file.  Raises ConfigError."""
    if environment.get(_FORBIDDEN_VARIABLE):
        # What is in the environment is seen by every child and by whoever reads /proc/PID/environ.
        raise ConfigError(
            f"{_FORBIDDEN_VARIABLE} is set: a password does not belong in the environment; "
            "put it in a file and name that in [database] password_file"
        )
    try:
        config, source = read_settings(Config, path, {CREDENTIALS_VARIABLE: UNIT_CREDENTIALS, **environment})
    except ConfigurationError as error:
        raise ConfigError(str(error)) from error
    for problem in _conflicts(config):
        raise ConfigError(source.show(problem))
    return config, source


def _conflicts(config: Config) -> Iterator[Problem]:
    """Keys that do not go together."""
    if not _is_closed(config):
        yield Problem(
            "metrics.address",
            f"{config.metrics_address!r} is not loopback and [metrics] client_ca is not set: everybody could read; "
            "listen on 127.0.0.1, or name the authority of who may read",
        )
    if (config.issuing_key is None) != (config.issuing_certificate is None):
        missing = "issuing_certificate" if config.issuing_certificate is None else "issuing_key"
        yield Problem(f"tls.{missing}", "it is missing: give both, or neither")
    for name, path in (("ca_file", config.notices_ca_file), ("secret_file", config.notices_secret_file)):
        if path is not None and config.notices_url is None:
            yield Problem(f"notices.{name}", "it is for what is posted, and [notices] url is missing; add the URL")


def _is_closed(config: Config) -> bool:
    if config.metrics_address is None or config.metrics_client_ca is not None:
        return True
    return is_loopback(config.metrics_address.rpartition(":")[0].strip("[]"))
