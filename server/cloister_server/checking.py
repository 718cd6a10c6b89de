# SPDX-License-Identifier: Apache-2.0
"""`cloister-server check-config`: whether what the configuration names fits together, before it is served.

Every check runs, so that an administrator reads all problems at once; none of them changes anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from cloister.configuration.settings import Problem, check_files, declared
from cloister.evidence.errors import EvidenceError
from cloister.evidence.note import NoteSigner
from cloister.evidence.roster import Roster, verify_roster
from cloister.evidence.signatures import Statement
from cloister.tls import pair_fault
from cloister_server.config import Config
from cloister_server.database.engine import open_database
from cloister_server.errors import ConfigError, StartError
from cloister_server.migrations.schema import require_usable
from cloister_server.notices.setup import check_notices
from cloister_server.store import free_bytes


def check_site(config: Config, now: datetime) -> list[Problem]:
    """Everything that would keep the site from being served, or from staying so.  `now` is aware."""
    found = check_files(config, declared(Config))
    unreadable = {problem.key for problem in found}
    if not unreadable & {"tls.certificate", "tls.key"}:
        found += _check_pair(config, now)
    if "tls.client_ca" not in unreadable:
        found += _check_authority(config)
    signer = None if "log.key_file" in unreadable else _log_signer(config)
    if "log.key_file" not in unreadable:
        found += _check_log_key(config, signer)
    if "site.roster_file" not in unreadable:
        found += _check_roster(config, signer)
    found += _check_store(config)
    found += check_notices(config, unreadable)
    if "database.password_file" not in unreadable:
        found += _check_database(config)
    return found


def _check_pair(config: Config, now: datetime) -> Iterator[Problem]:
    if fault := pair_fault(config.tls_certificate.read_bytes(), config.tls_key.read_bytes(), now):
        yield Problem("tls.certificate", f"{config.tls_certificate}: {fault}")


def _check_authority(config: Config) -> Iterator[Problem]:
    try:
        x509.load_pem_x509_certificates(config.client_ca.read_bytes())
    except ValueError:
        yield Problem("tls.client_ca", f"{config.client_ca}: is not a PEM certificate; copy the site's ca.crt again")


def _log_signer(config: Config) -> NoteSigner | None:
    try:
        return NoteSigner.parse(config.log_key_file.read_text(encoding="utf-8").strip())
    except (UnicodeDecodeError, EvidenceError):
        return None


def _check_log_key(config: Config, signer: NoteSigner | None) -> Iterator[Problem]:
    if signer is None:
        yield Problem("log.key_file", f"{config.log_key_file}: is not a log key; put the file of `log keygen` there")
        return
    if signer.name != config.log_origin:
        yield Problem(
            "log.key_file",
            f"{config.log_key_file}: is the key of log {signer.name!r}, not of {config.log_origin!r}; "
            "correct [log] origin or put the right key there",
        )


def _check_roster(config: Config, signer: NoteSigner | None) -> Iterator[Problem]:
    try:
        statement = Statement.from_bytes(config.roster_file.read_bytes())
        # Its age is not looked at: the database may hold a newer one, and the start tells them apart.
        issued = Roster.parse(statement.payload).issued_at
        roster = verify_roster(statement, config.root_public, seen_version=0, now=issued)
    except EvidenceError as error:
        yield Problem(
            "site.roster_file",
            f"{config.roster_file}: is not a roster that [site] root_public signed ({error}); "
            "fetch the newest from the root custodian",
        )
        return
    for key, named, ours in (
        ("site.name", roster.site, config.site),
        ("log.origin", roster.log_origin, config.log_origin),
    ):
        if named != ours:
            yield Problem(key, f"is {ours!r}, the roster names {named!r}; correct the key, or take this site's roster")
    if signer is not None and signer.name == roster.log_origin and signer.vkey != roster.log_vkey:
        yield Problem(
            "log.key_file",
            f"{config.log_key_file}: is another key than the one that the roster names for this log; "
            "put back the key that signed the log so far",
        )


def _check_store(config: Config) -> Iterator[Problem]:
    place = _nearest(config.store_directory)
    if not os.access(place, os.W_OK | os.X_OK):
        yield Problem("store.directory", f"{place} cannot be written; give it to the service's user")
    elif (free := free_bytes(place)) < config.reserve_bytes:
        yield Problem(
            "store.reserve_bytes",
            f"{config.reserve_bytes} bytes are to stay free, {place} has {free}; free space or lower the reserve",
        )


def _nearest(path: Path) -> Path:
    """The folder itself, or the one in which the start will make it."""
    return path if path.exists() else _nearest(path.parent)


def _check_database(config: Config) -> Iterator[Problem]:
    try:
        database = open_database(config.database_url, config.database_limits, config.database_password())
    except ConfigError as error:
        yield Problem("", str(error))
        return
    path = make_url(config.database_url).database
    if database.writer.dialect.name == "sqlite" and path and not Path(path).exists():
        # Connecting would make it.  The first start does so too, and brings it to the newest schema.
        return
    try:
        with database.reader.connect() as connection:
            require_usable(connection)
    except StartError as error:
        yield Problem("database.url", str(error))
    except SQLAlchemyError as error:
        # The driver's text is left out: it may repeat the URL with its password.
        yield Problem(
            "database.url",
            f"the database does not answer ({type(error).__name__}); check that it runs, its name, the role and "
            "its password",
        )
    finally:
        database.dispose()
