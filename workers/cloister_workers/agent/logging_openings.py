# SPDX-License-Identifier: Apache-2.0
"""Having an opening logged, with the proof that this host's key agent asks for.

Which proof that is depends on the head that the key agent remembers, and a roster that says that the log was
restored changes it.  So a newer roster goes to the key agent before its answer counts: (1) ask with the head that
is remembered; a log that is shorter is asked again for its roster alone; (2) hand over a newer roster; (3) where
the key agent went back to a restored head, ask again with that one.  A control plane that rolls back without the
root's word stays refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.evidence.errors import EvidenceError
from cloister.evidence.roster import Roster
from cloister_workers.agent import openings
from cloister_workers.agent.errors import LogBehindError
from cloister_workers.keyagent import client

if TYPE_CHECKING:
    from cloister.api.v1 import workers_pb2
    from cloister_workers.agent.control import ControlPlane
    from cloister_workers.agent.lease import Lease


def logged_opening(
    control: ControlPlane, lease: Lease, connection: client.Connection
) -> workers_pb2.RequestOpeningResponse:
    """Raises LeaseLostError, AttemptError, Refused, KeyAgentGone."""
    status = client.status(connection)
    behind: LogBehindError | None = None
    try:
        logged = control.request_opening(lease, status.checkpoint_size)
    except LogBehindError as error:
        behind = error
        logged = control.request_opening(lease, 0)
    try:
        version = Roster.parse(openings.roster(logged).payload).version
    except EvidenceError as error:
        raise openings.evidence_refused(error.reason) from None
    if version > status.roster_version:
        client.update_roster(connection, openings.roster(logged))
    since = client.status(connection).checkpoint_size
    if since != status.checkpoint_size:
        return control.request_opening(lease, since)
    if behind is not None:
        raise behind
    return logged
