# SPDX-License-Identifier: Apache-2.0
"""One release: the key agent wraps a version to its recipient, or says why not."""

from __future__ import annotations

from cloister.api.v1 import common_pb2, workers_pb2
from cloister.wire import statement_to_proto
from cloister_workers.agent import openings
from cloister_workers.agent.errors import AttemptError, JobFault, LeaseLostError
from cloister_workers.agent.host import Host
from cloister_workers.agent.lease import Lease, LeaseKeeper
from cloister_workers.agent.logging_openings import logged_opening
from cloister_workers.crashpoints import crash_here
from cloister_workers.keyagent import client
from cloister_workers.keyagent.errors import KeyAgentError, Refused


def run_release(host: Host, release: workers_pb2.ReleaseLease, lease: Lease) -> bool:
    """Carry out one attempt; returns whether this host did its part.

    Where it did not, the release is not ended: the lease expires and another attempt follows.
    """
    crash_here("after-lease")
    host.log({"event": "release", "release": release.release_id, "attempt": release.attempt})
    try:
        with LeaseKeeper(lease, host.control.heartbeat, host.clock):
            request = _attempt(host, release, lease)
            crash_here("before-finish")
            host.control.finish_release(lease, request)
            host.log({"event": "released", "release": release.release_id, "refusal": request.refusal})
            crash_here("after-finish")
            return True
    except (LeaseLostError, AttemptError, KeyAgentError) as error:
        host.log({"event": "not_released", "release": release.release_id, "kind": type(error).__name__})
        return False


def _attempt(host: Host, release: workers_pb2.ReleaseLease, lease: Lease) -> workers_pb2.FinishReleaseRequest:
    request = workers_pb2.FinishReleaseRequest(release_id=release.release_id, attempt=release.attempt)
    connection = client.Connection(host.keyagent)
    try:
        logged = logged_opening(host.control, lease, connection)
        opening = openings.release_opening(release, logged)
        wrap = release.object.wrap.wrap
        granted = client.open_release(connection, opening, openings.roster(logged), wrap)
        crash_here("after-opening")
    except Refused as refused:
        if not isinstance(openings.refusal(refused), JobFault):
            raise
        request.refusal = refused.code
        return request
    finally:
        connection.close()
    request.wrap.CopyFrom(common_pb2.Wrap(recipient_key_id=granted.wrap.recipient_key_id, wrap=granted.wrap.wrap))
    request.statement.CopyFrom(statement_to_proto(granted.statement))
    return request
