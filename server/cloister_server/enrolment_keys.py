# SPDX-License-Identifier: Apache-2.0
"""The keys of enrolment tokens that may connect: each opens the TLS handshake, and one method behind it.

A token's self-signed certificate is a trust anchor for itself alone: it is no CA, so nothing else chains to it.
The memory here follows the table; what a claim does is decided by the row, in its transaction.
"""

from __future__ import annotations

from cloister_server.database.rows import TokenRow
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.registry import tokens
from cloister_server.rosters import Clock


class EnrolmentKeys:
    """TLS keys of the tokens that still lead somewhere."""

    def __init__(self, unit_of_work: UnitOfWork, clock: Clock) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._known: tuple[TokenRow, ...] = ()

    def refresh(self) -> None:
        """Follow the table, which another control plane may have changed."""
        self._known = tuple(self._unit_of_work.read(lambda connection: tokens.known(connection, self._clock())))

    def token_of(self, tls_sha256: str) -> str:
        """Id of the token with this TLS key; empty for none."""
        return next((row.id for row in self._known if row.tls_sha256 == tls_sha256), "")

    def certificates(self) -> bytes:
        """Trust anchors for the TLS handshake, PEM."""
        return "".join(row.certificate_pem for row in self._known).encode("ascii")
