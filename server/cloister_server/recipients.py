# SPDX-License-Identifier: Apache-2.0
"""Key ids of the recipients that the roster names.

The control plane has no code that opens envelopes, so it reads an age1pq… string by itself, as far as naming
its key needs: Bech32 (BIP-173) without the checksum, which the root's signature over the roster makes needless.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from cloister.evidence.errors import FormatError

if TYPE_CHECKING:
    from cloister.evidence.roster import Roster

_PREFIX = "age1pq1"
_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_CHECKSUM_LENGTH = 6
_PUBLIC_KEY_SIZE = 1216
WRAP_SIZE = 1168
"""Bytes of one wrap: ENVELOPE.md."""


@lru_cache(maxsize=1024)
def recipient_key_id(recipient: str) -> str:
    """First 32 hex digits of SHA-256 of the public key (ENVELOPE.md).  Raises FormatError."""
    body = recipient.removeprefix(_PREFIX)[:-_CHECKSUM_LENGTH]
    value = 0
    for char in body:
        group = _CHARSET.find(char)
        if group < 0:
            raise FormatError("a recipient of the roster is not an age1pq key")
        value = value << 5 | group
    size, spare = divmod(len(body) * 5, 8)
    if not recipient.startswith(_PREFIX) or size != _PUBLIC_KEY_SIZE:
        raise FormatError("a recipient of the roster is not an age1pq key")
    return hashlib.sha256((value >> spare).to_bytes(size, "big")).hexdigest()[:32]


def host_key_id(roster: Roster, host: str) -> str:
    """Raises RosterError, FormatError."""
    return recipient_key_id(roster.host(host).sealing_recipient)


def pool_key_ids(roster: Roster, pool: str, now: int) -> frozenset[str]:
    """Key ids of every certified host of a pool."""
    return frozenset(recipient_key_id(host.sealing_recipient) for host in roster.pool_hosts(pool, now))


def report_key_ids(roster: Roster, member: str, team: str) -> frozenset[str]:
    """Who must hold a wrap of a report: the member who signed its job, and the team's recovery key.  No host."""
    names = (roster.person(member).recipient, roster.team(team).recovery_recipient)
    return frozenset(recipient_key_id(name) for name in names)


def owned_key_ids(roster: Roster, pool: str, team: str, now: int) -> frozenset[str]:
    """Who must hold a wrap of a dataset or base model: the pool's hosts and the team's recovery key."""
    return pool_key_ids(roster, pool, now) | {recipient_key_id(roster.team(team).recovery_recipient)}
