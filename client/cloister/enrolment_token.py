# SPDX-License-Identifier: Apache-2.0
"""The one-time enrolment token: what it pins, and the keys that only its holder can derive.

Text form: `cloister-enrol-1.` and base64url without padding of

    secret (32) | root_sha256 (32) | server_sha256 (32) | expires_at (8, big-endian Unix seconds) | site (ASCII) |
    check (4: the start of SHA-256 over all before it)

The keys come from HKDF-SHA-256 (RFC 5869) over the secret, with everything else as context: a token that was altered
in any place has other keys, which the site does not know.  The secret itself is never sent.  The TLS certificate is
made again from the token alone (ECDSA by RFC 6979), bit for bit the one that the issuer had the site admit.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.errors import UsageError
from cloister.evidence.enrolment import COLLECT_SECONDS, MAX_LIFETIME_SECONDS
from cloister.evidence.fields import IDENTIFIER
from cloister.evidence.roster import CLOCK_SKEW_SECONDS
from cloister.evidence.signatures import SigningKey
from cloister.tls import TlsKey, spki_sha256

PREFIX = "cloister-enrol-1."
KIND = "enrolment"
"""In the identity URI of the token's certificate: `cloister://SITE/enrolment/ID`."""
SECRET_BYTES = 32
_DIGEST = 32
_EXPIRES = 8
_CHECK = 4
_FIXED = SECRET_BYTES + 2 * _DIGEST + _EXPIRES
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class EnrolmentToken:
    """A token as its holder has it.  Its repr never shows the secret."""

    secret: bytes = field(repr=False)
    root_sha256: str
    """SHA-256 of the root's raw public key, hex."""
    server_sha256: str
    """SHA-256 of the SubjectPublicKeyInfo of the control plane's TLS key, hex."""
    expires_at: int
    """Unix seconds; from then on it cannot be claimed."""
    site: str

    @classmethod
    def generate(
        cls,
        site: str,
        root_public: bytes,
        server_sha256: str,
        expires_at: int,
        random: Callable[[int], bytes] = os.urandom,
    ) -> EnrolmentToken:
        """A new token."""
        return cls(random(SECRET_BYTES), hashlib.sha256(root_public).hexdigest(), server_sha256, expires_at, site)

    def export(self) -> str:
        """The text that is handed over."""
        body = self.secret + self._pinned()
        check = hashlib.sha256(body).digest()[:_CHECK]
        return PREFIX + base64.urlsafe_b64encode(body + check).rstrip(b"=").decode("ascii")

    @classmethod
    def parse(cls, text: str) -> EnrolmentToken:
        """Raises UsageError for a text that is no token, or not the whole one."""
        stripped = text.strip()
        if not stripped.startswith(PREFIX):
            raise UsageError(f"an enrolment token starts with {PREFIX}; copy it as the admin's command printed it")
        encoded = stripped.removeprefix(PREFIX)
        try:
            data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _altered() from None
        body, check = data[:-_CHECK], data[-_CHECK:]
        if len(body) <= _FIXED or hashlib.sha256(body).digest()[:_CHECK] != check:
            raise _altered()
        site = body[_FIXED:].decode("ascii", "replace")
        if not IDENTIFIER.fullmatch(site):
            raise _altered()
        return cls(
            secret=body[:SECRET_BYTES],
            root_sha256=body[SECRET_BYTES : SECRET_BYTES + _DIGEST].hex(),
            server_sha256=body[SECRET_BYTES + _DIGEST : SECRET_BYTES + 2 * _DIGEST].hex(),
            expires_at=int.from_bytes(body[SECRET_BYTES + 2 * _DIGEST : _FIXED], "big"),
            site=site,
        )

    @property
    def signing_key(self) -> SigningKey:
        """Signs the claim."""
        return SigningKey(self._derive(b"cloister enrolment signing", 32))

    @property
    def id(self) -> str:
        """Names the token in public: the id of its signing key."""
        return self.signing_key.key_id

    @property
    def tls_key(self) -> TlsKey:
        """The key with which the holder connects, for the one call that a token allows."""
        # 48 bytes modulo the order: the bias is below 2^-128 (FIPS 186-5, A.2.1).
        number = int.from_bytes(self._derive(b"cloister enrolment tls", 48), "big")
        return ec.derive_private_key(number % (_P256_ORDER - 1) + 1, ec.SECP256R1())

    @property
    def tls_sha256(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo of `tls_key`, hex."""
        return spki_sha256(self.tls_key)

    def certificate_pem(self) -> str:
        """The self-signed certificate of `tls_key`, the same each time.  It can sign no other."""
        key = self.tls_key
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"cloister enrolment {self.id}")])
        end = dt.datetime.fromtimestamp(self.expires_at + COLLECT_SECONDS, dt.UTC)
        begin = dt.datetime.fromtimestamp(self.expires_at - MAX_LIFETIME_SECONDS - CLOCK_SKEW_SECONDS, dt.UTC)
        uri = x509.UniformResourceIdentifier(f"cloister://{self.site}/{KIND}/{self.id}")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(int(self.id, 16) | 1)
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def _pinned(self) -> bytes:
        digests = bytes.fromhex(self.root_sha256) + bytes.fromhex(self.server_sha256)
        return digests + self.expires_at.to_bytes(_EXPIRES, "big") + self.site.encode("ascii")

    def _derive(self, label: bytes, size: int) -> bytes:
        return HKDF(hashes.SHA256(), size, salt=None, info=label + b"\0" + self._pinned()).derive(self.secret)


def _altered() -> UsageError:
    return UsageError(
        "the enrolment token is not complete, or was altered on the way; copy it again, or ask for another"
    )
