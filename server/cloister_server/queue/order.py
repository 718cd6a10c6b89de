# SPDX-License-Identifier: Apache-2.0
"""In which order waiting jobs of a pool run: priority, then fair share of the teams, then age.

A team's share is the milliseconds that its attempts held a lease in the last day; the smaller share goes first.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, Subquery, case, exists, func, select

from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.operations import quotas
from cloister_server.queue.states import WAITING

WINDOW_MS = 24 * 3600 * 1000

_JOB = tables.job
_ATTEMPT = tables.job_attempt
_INPUT = tables.job_input
_GRANT = tables.object_grant


# The rows of these queries are job ids; SQLAlchemy's type for "some columns" is Any.
def waiting(connection: Connection, pool: str) -> Select[Any]:
    """Ids of the waiting jobs of a pool, the next one first."""
    used = _used(connection, pool)
    return (
        select(_JOB.c.id)
        .outerjoin(used, used.c.team == _JOB.c.team)
        .where(_JOB.c.pool == pool, _JOB.c.state.in_(WAITING), _JOB.c.expires_at_s * 1000 > now_ms(connection))
        .order_by(_JOB.c.priority.desc(), func.coalesce(used.c.share, 0), _JOB.c.created_at, _JOB.c.id)
    )


def for_host(connection: Connection, pool: str, host_key_id: str) -> Select[Any]:
    """The same, for a host that holds a wrap of every input, without teams that run as many as they may."""
    unwrapped = (
        select(_INPUT.c.job_id)
        .outerjoin(_GRANT, (_GRANT.c.object_id == _INPUT.c.object_id) & (_GRANT.c.recipient_key_id == host_key_id))
        .where(_INPUT.c.job_id == _JOB.c.id, _GRANT.c.object_id.is_(None))
    )
    return waiting(connection, pool).where(~exists(unwrapped.correlate(_JOB)), ~quotas.at_running_limit())


def _used(connection: Connection, pool: str) -> Subquery:
    """Share of every team.  Summed once for a query: summed for each waiting job, a long queue on a busy day would
    make every lease slow.
    """
    now = now_ms(connection)
    until = case((_ATTEMPT.c.ended_at > 0, _ATTEMPT.c.ended_at), else_=now)
    return (
        select(_ATTEMPT.c.team, func.sum(until - _ATTEMPT.c.leased_at).label("share"))
        .where(_ATTEMPT.c.pool == pool, _ATTEMPT.c.leased_at > now - WINDOW_MS)
        .group_by(_ATTEMPT.c.team)
        .subquery("used")
    )
