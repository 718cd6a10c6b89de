# SPDX-License-Identifier: Apache-2.0
"""The custodian's directory.

root.key      the site's root (Ed25519): signs rosters
root-ID.key   roots before it, of no further use; root.next.key while a rotation is under way
ca.key        key of the certificate authority (P-256), and its certificate ca.crt
external.crt  authorities of the organisation's own whose TLS certificates count too, where it has one
draft.json    the roster that will be signed next, not signed yet
roster.dsse   the roster that was signed last
site.json     {"site", "endpoint"}: what welcome files say
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509

from cloister.admin.certificates import CertificateAuthority
from cloister.errors import HomeError, UsageError
from cloister.evidence.roster import ROSTER_TYPE, Roster
from cloister.evidence.signatures import SigningKey, Statement, b64, key_id, verify
from cloister.files import replace_private
from cloister.tls import load_tls_key

ROOT_KEY = "root.key"
CA_KEY = "ca.key"
CA_CERTIFICATE = "ca.crt"
EXTERNAL = "external.crt"
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

    def external_authorities(self) -> bytes:
        """Certificates in PEM; empty where there are none."""
        path = self.directory / EXTERNAL
        return path.read_bytes() if path.exists() else b""

    def save_external_authorities(self, pem: bytes) -> None:
        replace_private(self.directory / EXTERNAL, pem)

    def draft(self) -> Roster:
        return Roster.parse(self._read(DRAFT))

    def save_draft(self, draft: Roster) -> None:
        replace_private(self.directory / DRAFT, draft.to_payload())

    def roster(self) -> Statement:
        """The roster that was signed last.  Raises HomeError where none was."""
        return Statement.from_bytes(self._read(ROSTER))

    def adopt(self, statement: Statement) -> Roster:
        """Go on from the roster in force, after a restore or at another custodian's machine.

        Raises an EvidenceError for one that this root did not sign, UsageError where the draft is ahead of it.
        """
        root = self.root_key().public
        verify(statement, ROSTER_TYPE, {key_id(root): root}, "this directory's root")
        published, draft = Roster.parse(statement.payload), self.draft()
        if published.site != draft.site:
            raise UsageError(f"the roster is of site {published.site!r}, this directory is of {draft.site!r}")
        if published.version < draft.version:
            raise UsageError(f"the draft is at version {draft.version} already, the roster at {published.version}")
        self.save_draft(replace(published, version=published.version + 1, issued_at=0, expires_at=0))
        self.save_roster(statement)
        return published

    def save_roster(self, statement: Statement) -> None:
        replace_private(self.directory / ROSTER, statement.to_bytes())

    def endpoint(self) -> str:
        """HOST:PORT of the control plane; empty until it is set."""
        return str(json.loads(self._read(SITE))["endpoint"])

    def save_site(self, site: str, endpoint: str) -> None:
        text = json.dumps({"site": site, "endpoint": endpoint}, indent=2, sort_keys=True) + "\n"
        replace_private(self.directory / SITE, text.encode("utf-8"))
