# SPDX-License-Identifier: Apache-2.0
"""The custodian's directory.

root.key      the site's root (Ed25519): signs rosters
ca.key        key of the certificate authority (P-256), and its certificate ca.crt
draft.json    the roster that will be signed next, not signed yet
roster.dsse   the roster that was signed last
site.json     {"site", "endpoint"}: what welcome files say
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from cloister.admin.certificates import CertificateAuthority
from cloister.errors import HomeError
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import SigningKey, Statement, b64
from cloister.files import replace_private
from cloister.tls import load_tls_key

ROOT_KEY = "root.key"
CA_KEY = "ca.key"
CA_CERTIFICATE = "ca.crt"
DRAFT = "draft.json"
ROSTER = "roster.dsse"
SITE = "site.json"


@dataclass(frozen=True)
class Custody:
    """Reads and writes the custodian's directory."""

    directory: Path

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            raise HomeError(
                f"{self.directory / name} is missing; name the custodian's directory, or run: cloister-admin root init"
            ) from None

    def root_key(self) -> SigningKey:
        return SigningKey.parse(self._read(ROOT_KEY).decode("ascii"))

    def root_public(self) -> str:
        """Raw public key of the root, base64: what everybody pins."""
        return b64(self.root_key().public)

    def authority(self) -> CertificateAuthority:
        certificate = x509.load_pem_x509_certificate(self._read(CA_CERTIFICATE))
        return CertificateAuthority(load_tls_key(self._read(CA_KEY)), certificate)

    def draft(self) -> Roster:
        return Roster.parse(self._read(DRAFT))

    def save_draft(self, draft: Roster) -> None:
        replace_private(self.directory / DRAFT, draft.to_payload())

    def roster(self) -> Statement:
        """The roster that was signed last.  Raises HomeError where none was."""
        return Statement.from_bytes(self._read(ROSTER))

    def save_roster(self, statement: Statement) -> None:
        replace_private(self.directory / ROSTER, statement.to_bytes())

    def endpoint(self) -> str:
        """HOST:PORT of the control plane; empty until it is set."""
        return str(json.loads(self._read(SITE))["endpoint"])

    def save_site(self, site: str, endpoint: str) -> None:
        text = json.dumps({"site": site, "endpoint": endpoint}, indent=2, sort_keys=True) + "\n"
        replace_private(self.directory / SITE, text.encode("utf-8"))
